"""A graph's weights in eight bits, by onnxruntime's dynamic quantisation."""

import contextlib
import io
import logging
from pathlib import Path

from cdl.runtime import artifacts


def to_int8(model: Path) -> None:
    """Replace a graph by one whose matrix products with weights are of eight bits.

    Weights are rounded once, inputs of each product when it is computed, by their own range; the
    test view, attention and norms stay in fp32.
    """
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # its remarks go to the root
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            artifacts.replacing(model) as rounded,
            artifacts.replacing(model.with_suffix(".folded")) as folded,
        ):
            # without shapes, which it cannot infer where sizes are free: weights are only folded
            quant_pre_process(model, folded, skip_symbolic_shape=True)
            quantize_dynamic(folded, rounded, weight_type=QuantType.QInt8)
    finally:
        logging.getLogger().setLevel(before)
        model.with_suffix(".folded").unlink(missing_ok=True)
