"""Final tokens of the test images after each task, from which heads predict.

Runs whose heads alone differ have the same tokens: `write_test_features` computes them once for
all of these runs (see `cdl.study.grid.Grid.trained`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from cdl.evaluation.inputs import Opened, Queries, TestFiles
from cdl.runtime import artifacts
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec
from cdl.training.targets import over_test_images


@torch.no_grad()
def write_test_features(
    spec: LearnerSpec,
    output: str,
    *,
    images_per_class: int | None,
    unknown: bool = False,
    execution: Execution = DEFAULT,
    **files: Unpack[TestFiles],
) -> None:
    """Compute and write the tokens of the test images of all tasks seen, after each task.

    Args:
        spec: specification of the learner as trained, before an alignment.
        output: artifact to write; its tensor T `[n, 1 or 2, D]` has the tokens after task T.
        images_per_class: test images per class; None for all.
        unknown: whether the images of later tasks are among them, see `evaluate_run`.
        execution: how to compute.
        **files: files to read, with the checkpoints of this learner.

    Raises:
        CdlError: a checkpoint is damaged or belongs to another configuration.
    """
    checkpoints = files["checkpoints"]
    opened = Opened.read(spec, images_per_class, len(checkpoints), **files)
    stages = [opened.checkpoint(path, task) for task, path in enumerate(checkpoints)]
    queries, tokens = opened.place(execution), {}
    opened.learner.load_state(stages[0][0])
    tokens_after = computed(opened, queries, later=unknown)
    for stage, (state, _) in enumerate(stages):
        opened.learner.load_state(state)
        tokens[str(stage)] = tokens_after(stage).cpu().contiguous()
    artifacts.save(output, tokens, _provenance(opened, [made["sha256"] for _, made in stages]))


def read_test_features(
    path: str, opened: Opened, stages: Sequence[Mapping[str, Any]]
) -> list[Tensor]:
    """Return the tokens after each task that `write_test_features` wrote, on the CPU.

    Args:
        path: the artifact.
        opened: inputs of the evaluation that reads it.
        stages: records of the evaluated checkpoints.

    Raises:
        CdlError: the file is damaged, or was made from other checkpoints, images or backbones.
    """
    trained = [made["inputs"].get("trained", made["sha256"]) for made in stages]
    tensors, _ = artifacts.load(path, **_provenance(opened, trained))
    return [tensors[str(stage)] for stage in range(len(stages))]


def computed(opened: Opened, queries: Queries, later: bool = False) -> Callable[[int], Tensor]:
    """Return a function from a task, whose state is loaded, to the tokens after it.

    It returns those `[n, 1 or 2, D]` of the test images of all tasks up to this one, or with
    `later` of all tasks. If they are the same after all tasks, they are computed here, with the
    loaded state of task 0.
    """
    spec, learner, test = opened.spec, opened.learner, opened.test
    last = len(test.counts) - 1
    own = queries(spec.query if learner.needs_query else None)
    same = spec.teacher_query == spec.query or not learner.needs_query
    teacher_query = own if same else queries(spec.teacher_query)

    def after(stage: int, until: int) -> Tensor:
        def tokens(images: Tensor, rows: Tensor) -> Tensor:
            queried, taught = (None if q is None else q[rows] for q in (own, teacher_query))
            inputs = learner.backbone.prepare(images)
            output: Tensor = learner(inputs, queried, stage, teacher_query=taught).tokens
            return output

        rows = torch.arange(sum(test.counts[: until + 1]))
        return over_test_images(test.pixels, test.views, queries.compute.device, tokens, rows)

    if not _never_change(opened):
        return lambda stage: after(stage, last if later else stage)
    every = after(0, last)
    return lambda stage: every[: None if later else sum(test.counts[: stage + 1])]


def _never_change(opened: Opened) -> bool:
    """Whether the tokens of an image are the same after all tasks.

    This is so if nothing is trained but heads, or if the method solves for its head and trains
    nothing after task 0.
    """
    learner = opened.learner
    solved = not opened.spec.method.facts.trains and not learner.prompts.session(1)
    trained = [*learner.prompts.parameters(), *learner.distiller.parameters()]
    return solved or not (trained or learner.needs_query)


def _provenance(opened: Opened, checkpoints: Sequence[str]) -> dict[str, Any]:
    """Return what the tokens are computed from; `checkpoints` are those before an alignment."""
    return {
        "checkpoints": list(checkpoints),
        "backbones": dict(opened.weights),
        "data": opened.test.split.fingerprint,
        "test_images": opened.test.counts,
    }
