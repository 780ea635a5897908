"""The program in an exported folder: `student.py`, which predicts and learns without torch and cdl.

It consists of the modules of `PARTS`, then those of its modality, the last of which has the class
`Student`, without their imports of cdl (`bundle`). They import only numpy, onnxruntime,
safetensors, Pillow or tokenizers, and Python's library; cdl uses the same modules.
"""

PARTS = (
    "runtime/errors.py",
    "runtime/memory.py",
    "data/sources/names.py",
    "training/schedules.py",
    "deployment/device/items.py",
    "deployment/device/classifier.py",
    "deployment/predict.py",
    "deployment/device/draws.py",
    "deployment/device/closed.py",
    "deployment/device/aligning.py",
    "deployment/device/sealed.py",
    "deployment/device/memory.py",
    "deployment/device/versions.py",
    "deployment/device/graph.py",
    "deployment/device/update.py",
    "deployment/device/student.py",
    "deployment/device/main.py",
)
