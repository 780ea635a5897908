"""A loop over frames that predicts, learns a class on request, and reports drift of confidence.

    python robot_loop.py student frames/ --teach mug=5:15 --every 10

The frames are the images of a folder in the order of their names; in a robot they come from its
camera. `--teach NAME=FIRST:LAST` plays the request of a person: when frame LAST has been seen, the
frames from FIRST on are learnt as NAME. A fall of the mean confidence below that of the first
frames says that the place has changed: teach again, or undo.
"""

import argparse
import sys
from collections import deque
from pathlib import Path

FALL = 0.15  # of the mean confidence, from which drift is reported


def request(text: str) -> tuple[str, int, int]:
    """Return name, first and last frame of a request to learn."""
    name, _, frames = text.rpartition("=")
    first, _, last = frames.partition(":")
    return name, int(first), int(last)


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description="A student in the loop of a robot.")
    parser.add_argument("student", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--teach", type=request, action="append", default=[])
    parser.add_argument("--every", type=int, default=10, help="frames between two reports")
    given = parser.parse_args()

    sys.path.insert(0, str(given.student))
    from student import Student  # the program in the folder

    student, frames = Student(given.student), sorted(given.frames.iterdir())
    recent: deque[float] = deque(maxlen=given.every)
    usual = None
    for i, frame in enumerate(frames):
        (name, probability), *_ = student.best(frame, 1)
        recent.append(probability)
        print(f"frame {i}: {name} {probability:.2f}")
        for new, first, last in given.teach:
            if i == last:
                print(student.learn({new: frames[first : last + 1]}).text())
                recent.clear()
                usual = None  # the confidence of other heads is not comparable
        if len(recent) == given.every and (i + 1) % given.every == 0:
            mean = sum(recent) / len(recent)
            usual = usual or mean
            drift = ", drift: the place has changed" if mean < usual - FALL else ""
            print(f"mean confidence {mean:.2f}, at first {usual:.2f}{drift}")


if __name__ == "__main__":
    main()
