"""The program in an exported folder: `student.py`, which predicts and learns without torch and cdl.

It consists of the modules of `PARTS`, then those of its modality, the last of which has the class
`Student` (`cdl.deployment.bundle`). They import only each other, numpy, onnxruntime, safetensors,
Pillow or tokenizers, and Python's library; cdl uses the same modules.
"""

PARTS = (
    "errors",
    "process",
    "names",
    "schedules",
    "items",
    "classifier",
    "belonging",
    "predict",
    "draws",
    "closed",
    "aligning",
    "sealed",
    "kept",
    "memory",
    "means",
    "ridge",
    "fecam",
    "aligned",
    "stored",
    "versions",
    "graph",
    "update",
    "student",
    "main",
)
