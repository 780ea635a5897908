"""Continual distillation learning of prompts between frozen ViTs."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdl.deployment.student import Student

__version__ = "0.3.0"

# Increase by one when a code change alters the numbers of a training rule. It is a parameter of
# every training rule, so that finished tasks run again when it changes.
NUMERICS = 3

# The same for evaluation: when it changes, finished runs are evaluated again but not trained again.
EVALUATION = 2


def load(
    path: str | PathLike[str], task: int | None = None, threads: int = 1, verify: bool = True
) -> "Student":
    """Load a trained student.

    Args:
        path: the folder of a finished run (`results/.../seed0`) or of an exported student (see
            `cdl export`), or `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION` for an exported
            student on the Hugging Face Hub (see `cdl push`). An exported student does not import
            torch.
        task: for a run, the task after which the student is loaded, counted from 0; None: the last.
        threads: number of threads; for one image, one thread is fastest.
        verify: for an exported student, whether to compare its files with the sha256 in its
            manifest, which takes less than a second for 100 MB. Runs are always compared.

    Returns:
        A student with `classes`, `predict(items)`, `predict_proba(items)` and `preprocess`.

    Raises:
        cdl.runtime.errors.CdlError: the folder does not contain a finished run or an exported
            student, a file is damaged, or the Hub has no such student.
    """
    from cdl.deployment.load import load as load_student

    return load_student(path, task, threads, verify)
