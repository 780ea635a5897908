"""Which prompts a learner uses for the test images of each task, from its last checkpoint."""

from typing import Unpack

import pandas as pd
import torch
from torch import Tensor

from cdl.evaluation.inputs import Opened, TestFiles
from cdl.methods.base import Choice, PromptMethod
from cdl.runtime import artifacts
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec

BATCH = 1024  # queries at a time


@torch.no_grad()
def write_prompt_use(
    spec: LearnerSpec,
    output: str,
    record: str,
    *,
    task: int,
    images_per_class: int | None,
    execution: Execution = DEFAULT,
    **files: Unpack[TestFiles],
) -> None:
    """Write how much the test images of each task use each prompt after the last task.

    Nothing runs through the prompted ViT: the queries of the test images, usually cached, select
    or weigh the prompts.

    Args:
        spec: specification of a learner whose method has the fact `chooses`.
        output: CSV file to write, one row per block, prompt and task of the images: `added_by`, the
            task that added the prompt (empty if all tasks share all), and `weight`, the mean of
            `Choice.weights` over the images.
        record: JSON file to write with the provenance and the hash of `output`.
        task: the last task, counted from 0.
        images_per_class: test images per class; None for all.
        execution: how to compute.
        **files: files to read; of the checkpoints, the last one.

    Raises:
        CdlError: an input is damaged or belongs to another configuration.
    """
    (checkpoint,) = files["checkpoints"]
    opened = Opened.read(spec, images_per_class, task + 1, **files)
    state, metadata = opened.checkpoint(checkpoint, task)
    placed = opened.place(execution)
    opened.learner.load_state(state)
    queries, test = placed(spec.query), opened.test
    assert queries is not None, "a method that chooses prompts has a query"
    frame = _table(mean_choice(opened.learner.prompts, queries, test.owner, task))
    with artifacts.replacing(output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f")
    content = {
        "learner": spec.to_json(),
        "test_images_per_class": images_per_class,
        "checkpoint": metadata["sha256"],
        "backbones": dict(opened.weights),
        "data": test.split.fingerprint,
    }
    artifacts.write_json(record, content, files=[output])


def mean_choice(prompts: PromptMethod, queries: Tensor, owner: Tensor, task: int) -> Choice:
    """Return the choice `[layers, T, M]` of the mean image of each task.

    Args:
        prompts: a method in eval mode, with the fact `chooses`.
        queries: `[n, Dq]`.
        owner: tasks of the images, `[n]`, each of `0..task` at least once.
        task: the latest task.
    """
    total, choice = None, None
    for rows in torch.arange(len(queries)).split(BATCH):
        choice = prompts.choice(queries[rows.to(queries.device)], task)
        of_images = choice.weights.transpose(0, 1).double().cpu()  # [B, layers, M]
        if total is None:
            total = of_images.new_zeros(task + 1, *of_images.shape[1:])
        total.index_add_(0, owner[rows], of_images)
    assert total is not None and choice is not None, "there are test images"
    means = total / owner.bincount(minlength=task + 1)[:, None, None]
    return Choice(choice.layers, means.transpose(0, 1), choice.per_task)


def _table(choice: Choice) -> pd.DataFrame:
    """Return the rows of `write_prompt_use`."""
    layers, tasks, prompts = choice.weights.shape
    index = pd.MultiIndex.from_product(
        [choice.layers[:layers], range(tasks), range(prompts)], names=["layer", "task", "prompt"]
    )
    table = pd.DataFrame({"weight": choice.weights.flatten().numpy()}, index).reset_index()
    added = table["prompt"] // choice.per_task if choice.per_task else ""
    table.insert(3, "added_by", added)
    return table
