"""Targets from the answers of a teacher that cdl does not train.

They have the form of a trained teacher's targets at test views, see `cdl.training.targets`: one
answer serves all views of an item.
"""

import logging
from typing import Any

import torch

from cdl.data.answers import AnswerTable, read_answers
from cdl.data.packed import Packed
from cdl.data.stream import Stream
from cdl.models.build import versions
from cdl.runtime import artifacts
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import CacheSpec
from cdl.training.classified import check_classified
from cdl.training.context import TaskContext

log = logging.getLogger(__name__)


def write_answers(
    spec: CacheSpec,
    task: int,
    output: str,
    *,
    data: str,
    answers: str,
    test_images_per_class: int | None = None,
    execution: Execution = DEFAULT,
) -> None:
    """Check the answers for a task's items and write them as a teacher's targets.

    The record has the number of right answers for the task's test items, among the classes that
    they answer for, if all of these items are answered.

    Args:
        spec: specification of the targets after the task.
        task: counted from 0.
        output: cache to write (.safetensors, and .json with the same name).
        data: packed folder.
        answers: CSV or Parquet file, see `cdl.data.answers`; or the table of `classify`.
        test_images_per_class: of the test split; None for all.
        execution: how to compute.

    Raises:
        CdlError: the file has changed since the plan, an item or class has no answer, or an answer
            is invalid.
    """
    assert spec.answers is not None and spec.columns is not None, "planned with answers"
    context, test = TaskContext.open(spec, task, data, {}, execution), Packed(data, "test")
    stream, train = context.stream, context.train
    if spec.answers.values == "classifier":
        check_classified(answers, spec.answers.sha256, train, test)
    elif fingerprint_file(answers) != spec.answers.sha256:
        raise CdlError(f"{answers}: has changed since this run was planned; start it again")
    table = read_answers(answers, spec.answers.values)
    table.check_classes(train.classes)
    classes = [train.classes[label] for label in stream.order[stream.columns(task, spec.columns)]]
    names = train.names[context.indices(task)[0].numpy()].tolist()
    if spec.answers.missing == "refused":
        table.check_items(names)
    values = torch.from_numpy(table.of(names, classes))
    read: dict[str, Any] = context.fingerprints | {"teacher": spec.answers.sha256}
    metadata = {
        "task": task,
        "spec": spec.to_json(),
        "inputs": read,
        "file": answers,
        "teacher_shape": {"width": 0, "depth": 0},  # nothing but its outputs is known
        "widths": {"query": 0},
        "test": {
            "sha256": test.fingerprint,
            "classes": len(table.classes),
            **right_answers(table, test, stream, task, test_images_per_class),
        },
        "bytes": values.nbytes,
        "versions": versions(spec),
    }
    artifacts.save(output, {"values": values[None]}, metadata)
    log.info("wrote %s: answers for %d items and %d classes", output, *values.shape)


def right_answers(
    table: AnswerTable, test: Packed, stream: Stream, task: int, images_per_class: int | None
) -> dict[str, int]:
    """Return the numbers of answers for a task's test items, and of right ones.

    It is empty if an item has no answer.
    """
    indices = stream.indices(test, task, images_per_class)
    names = test.names[indices.numpy()].tolist()
    if table.missing(names):
        return {}
    chosen = table.of(names, table.classes).argmax(1)
    labels: list[int] = test.labels[indices].tolist()
    pairs = zip(chosen, labels, strict=True)
    right = [table.classes[column] == test.classes[label] for column, label in pairs]
    return {"teacher_answers": len(right), "teacher_answers_right": right.count(True)}
