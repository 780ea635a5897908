"""Classify what a camera or a folder shows, and learn a class, with onnxruntime alone.

    python raspberry_pi.py student --images photos              # a folder of images
    python raspberry_pi.py student --camera 3                   # three pictures by rpicam-still
    python raspberry_pi.py student --images mug/ --teach mug    # all of them show a mug

`student` is the folder of `cdl export`; torch and cdl are not needed. Tests run this with images
from a folder on a PC; it was run on no Raspberry Pi, and no camera was tried.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CAMERA = ["rpicam-still", "--nopreview", "--timeout", "500", "--width", "640", "--height", "480"]


def photographed(n: int) -> list[Path]:
    """Take `n` pictures with the camera of a Raspberry Pi; return their files."""
    folder = Path(tempfile.mkdtemp())
    files = [folder / f"{i:03}.jpg" for i in range(n)]
    for file in files:
        subprocess.run([*CAMERA, "--output", str(file)], check=True, capture_output=True)
    return files


def main() -> None:
    """Predict the class of every image, or learn all images as one class."""
    parser = argparse.ArgumentParser(description="A student on a Raspberry Pi.")
    parser.add_argument("student", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder of images")
    source.add_argument("--camera", type=int, metavar="N", help="take N pictures")
    parser.add_argument("--teach", metavar="NAME", help="learn the images as this class")
    given = parser.parse_args()

    sys.path.insert(0, str(given.student))
    from student import Student  # the program in the folder

    student = Student(given.student, threads=4)
    files = photographed(given.camera) if given.camera else sorted(given.images.iterdir())
    if given.teach:
        print(student.learn({given.teach: files}).text())
        return
    for file in files:
        begin = time.perf_counter()
        (name, probability), *_ = student.best(file, 1)
        print(
            f"{file.name}: {name} {probability:.2f}, {1e3 * (time.perf_counter() - begin):.0f} ms"
        )


if __name__ == "__main__":
    main()
