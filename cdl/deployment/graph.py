"""A student as one graph, from pixels to logits, written as ONNX."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cdl.data.views import Views
from cdl.deployment.trained import Model
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

INPUT, OUTPUT = "images", "logits"
_EXAMPLE = (2, 37, 41, 3)  # all sizes differ, and none is one, which torch would take for fixed


class Graph(nn.Module):
    """Images `[B, H, W, 3]` uint8 of one size to logits `[B, C]`.

    The test view is two matrix products whose matrices are made of the height and the width, so
    these stay free in the graph.
    """

    def __init__(self, model: Model, views: Views) -> None:
        """Put the test view before a model."""
        super().__init__()
        self.model, self.views = model, views
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(self.views.test_of_one_size(images.permute(0, 3, 1, 2)))
        return logits


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph in which batch, height and width are free.

    Raises:
        CdlError: what translates is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CdlError(
            "torch writes ONNX with the packages onnx and onnxscript, which are not installed: "
            "pip install 'cdl-workbench[export]'"
        ) from error
    images = torch.zeros(_EXAMPLE, dtype=torch.uint8)
    with torch.no_grad():
        graph(images)  # opens the blocks' entrances, which torch.export may not do
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "height", "width"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            dynamic_shapes={INPUT: free},
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None, "dynamo=True returns a program"
    with artifacts.replacing(path) as temporary:
        program.save(temporary, external_data=False)
