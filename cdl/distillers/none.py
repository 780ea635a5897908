"""Training without a teacher, for teachers and undistilled students."""

from cdl.distillers.base import Distiller


class NoDistillation(Distiller):
    """Cross-entropy and prompt loss."""
