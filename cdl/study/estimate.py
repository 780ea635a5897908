"""What a task takes at the least, from sizes alone: memory, disk, time. No torch.

Planning refuses by these numbers what no machine could do, so they are rough and on the low side:

* memory of a step, in fp32: every parameter with its gradient and Adam's two moments; the batch's
  views; and what a frozen block keeps for the way back to its prompts, about `8 width` numbers a
  token (the inputs of both norms, queries, keys, values, attention's output, the hidden layer);
* disk of a cache: a vector per image and epoch;
* time: `SECONDS_PER_STEP` a step, which no ViT of six blocks beats today.
"""

from cdl.backbones.shape import BackboneShape

MEMORY = 10**12  # bytes of one job, more than a GPU or a common machine has
DAYS = 10.0  # of one task
SECONDS_PER_STEP = 1e-3
_FLOAT = 4
_KEPT = 8  # numbers per token and unit of width


def step_bytes(shape: BackboneShape, size: int, batch: int, parameters: int, prompts: int) -> float:
    """Return the bytes of memory that a training step takes.

    Args:
        shape: of the learner's backbone, with its patch.
        size: side of a view in pixels.
        batch: images per step.
        parameters: numbers that learn.
        prompts: tokens that an image gets, over all blocks.
    """
    tokens = (size // (shape.patch or size)) ** 2 + 1
    image = 3 * size**2 + (shape.depth * tokens * _KEPT + prompts) * shape.width
    return float(_FLOAT * (4 * parameters + batch * image))


def cache_gb(images: float, epochs: int, width: float, itemsize: int) -> float:
    """Return the GB on disk of what a frozen model says of every view."""
    return images * epochs * width * itemsize / 1e9


def task_days(images: float, epochs: int, batch: int) -> float:
    """Return the days that the steps of a task take; the last partial batch is dropped."""
    return epochs * max(1, images // batch) * SECONDS_PER_STEP / 86400
