"""Continual distillation learning: teachers, small students, and students that learn on.

    import cdl

    table = cdl.run("study.yaml", training__epochs=5)     # run a study; a row for each run
    print(cdl.compare("digits/l2p/kd", "digits/l2p/none"))
    cdl.export("kd/seed0", "student")                     # a folder that needs no torch
    student = cdl.load("student")
    student.predict(["photo.png"], top=3)
    student.learn({"mug": ["mug.png"]})

Each function does what the command of its name does: `cdl run`, `cdl status`, `cdl compare`,
`cdl export`. Errors are `cdl.CdlError`, with one sentence.
"""

from cdl.api import compare, export, load, results, run, status
from cdl.runtime.errors import CdlError as CdlError

__all__ = ["compare", "export", "load", "results", "run", "status"]
__version__ = "0.3.0"

# Increase by one when a code change alters the numbers of a training rule. It is a parameter of
# every training rule, so that finished tasks run again when it changes.
NUMERICS = 3

# The same for evaluation: when it changes, finished runs are evaluated again but not trained again.
EVALUATION = 3
