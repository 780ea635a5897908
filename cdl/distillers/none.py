"""No teacher: how teachers themselves and the undistilled student learn."""

from cdl.distillers.base import Distiller, Setting


class NoDistillation(Distiller):
    """Cross-entropy and prompt loss only."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
