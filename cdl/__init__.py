"""cdl: continual distillation learning of prompts between frozen vision transformers."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdl.deployment.student import Student

__version__ = "0.2.0"

# Raise this by one when a code change alters the numbers that a training rule produces. Every
# training rule carries it as a parameter, so raising it is what makes finished tasks run again.
NUMERICS = 3

# The same for evaluation: raising it evaluates finished runs once more and trains nothing again.
EVALUATION = 2


def load(path: str | PathLike[str], task: int | None = None, threads: int = 1) -> "Student":
    """Load a student that has finished learning.

    Args:
        path: the folder of a finished run (`results/.../seed0`), or one that `cdl export` made,
            for which torch is not imported.
        task: of a run: after which task, counted from 0; None: the last.
        threads: that compute; for one image more than one are slower.

    Returns:
        A student with `classes`, `predict(images)`, `predict_proba(images)` and `preprocess`.

    Raises:
        cdl.runtime.errors.CdlError: nothing usable lies there.
    """
    from cdl.deployment.load import load as found

    return found(path, task, threads)
