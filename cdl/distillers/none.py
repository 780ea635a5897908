"""Training without a teacher, for teachers and undistilled students."""

from cdl.distillers.base import Distiller, DistillerContext


class NoDistillation(Distiller):
    """Cross-entropy and prompt loss."""

    def __init__(self, context: DistillerContext) -> None:
        super().__init__()
