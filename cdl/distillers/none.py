"""No teacher: how teachers themselves and the undistilled student learn."""

from cdl.distillers.base import Distiller, DistillerContext


class NoDistillation(Distiller):
    """Cross-entropy and prompt loss only."""

    def __init__(self, context: DistillerContext) -> None:
        super().__init__()
