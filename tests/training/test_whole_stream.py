"""Unlabelled images of the whole stream in every task, and few labels without other images."""

import pytest
import torch
from lab import make_grid

from cdl.data.labels import UNLABELLED, UNUSED, known_labels, learnt_from
from cdl.spec import Labels
from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import specification
from cdl.training.context import TaskContext

ALIGNED = {
    "block": "coda_prompt",
    "variant": "a",
    "alignment": {"preset": "slca", "statistic": "centroid", "epochs": 1},
}
ONLY = {
    "block": "digits",
    "variant": "only",
    "labels": {"per_class": 2, "others": "unused"},
    "teacher_labels": "all",
}
STREAM = {**ONLY, "variant": "stream", "unlabelled": {"source": {"digits": {}}, "tasks": "every"}}


def grid(*datasets, **changes):
    entries = {"datasets": list(datasets), "distillers": ["none", "kd"], **changes}
    return {"grid": entries}


def test_images_that_are_not_used_are_neither_labelled_nor_unlabelled():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    known = known_labels(labels, Labels(per_class=1, others="unused"), 0, range(2))
    assert sorted(known.tolist()) == [UNUSED] * 4 + [0, 1]
    known = torch.cat([known, torch.tensor([UNLABELLED])])
    assert learnt_from(known, taught=True).tolist() == torch.nonzero(known != UNUSED)[:, 0].tolist()
    assert learnt_from(known, taught=False).tolist() == torch.nonzero(known >= 0)[:, 0].tolist()


def open_task(made, run, task):
    unlabelled = made.unlabelled(run.dataset) if made.spec(run).unlabelled else None
    return TaskContext.open(
        made.spec(run), task, made.data, {}, made.execution, unlabelled=unlabelled
    )


@pytest.mark.slow
def test_every_task_has_its_labels_and_all_images_of_the_stream(lab):
    made = lab(grid(STREAM))
    run = made.student("kd")
    for task in range(run.n_tasks):
        context = open_task(made, run, task)
        n_own, n_all = (len(part) for part in context.indices(task))
        assert n_all == len(context.train)
        assert torch.equal(context.unlabelled.keys, context.train.keys)
        batches = context.batches()
        drawn = list(batches(0))
        size = batches.batch_size
        labelled = torch.cat([batch.positions[:size] for batch in drawn])
        others = torch.cat([batch.positions[size:] for batch in drawn])
        assert len(labelled.unique()) == 2 * context.stream.sizes[task] and (labelled < n_own).all()
        assert (others >= n_own).all()  # none that is known to be of the task
        classes = context.train.labels[others - n_own]
        assert len(classes.unique()) == 10  # of tasks to come, too
    made.learn_all(run)
    seen = made.evaluate(run)[0]["seen"]
    assert seen["labelled"] == 20 and seen["unlabelled"] == 2 * len(context.train)


@pytest.mark.slow
def test_few_labels_alone_give_a_taught_student_no_other_image(lab):
    made = lab(grid(ONLY, methods=[ALIGNED]))
    found, plain = {}, lab(grid({**ONLY, "labels": {"per_class": 2}}) | {"name": "plain"})
    for run in (r for r in made.grid.runs if r.role == "student"):
        made.learn_all(run)
        found[run.distiller.name] = made.evaluate(run)[0]["seen"]
        batches = open_task(made, run, 0).batches()
        positions = torch.cat([batch.positions for batch in batches(0)])
        assert (batches.labels[positions] >= 0).all()
        assert len(batches) == len(open_task(plain, plain.student("kd"), 0).batches())
    assert found["kd"] == found["none"]
    assert (found["kd"]["labelled"], found["kd"]["unlabelled"]) == (20, 0)


def test_the_own_images_are_packed_once_and_without_the_held_out_ones():
    made = make_grid(
        grid(STREAM) | {"datasets": {"digits": {"validation": {"per_class": 5}}}},
    )
    label = "digits+stream"
    assert made.unlabelled_source(label) == made.source(label)
    assert made.unlabelled(label) == made.packed(label)
    assert [job.rule for job in LearningJobs(made)].count("prepare_dataset") == 1
    other = {**STREAM, "unlabelled": {"source": {"cifar20": {}}}}
    assert "validation" not in make_grid(grid(other)).unlabelled_source(label)


def test_the_teacher_with_all_labels_has_neither():
    made = make_grid(grid("digits", ONLY, STREAM))
    teachers = [specification(made, run) for run in made.runs if run.role == "teacher"]
    assert all(teacher == teachers[0] for teacher in teachers)
    specs = [specification(made, run) for run in made.runs if run.teacher]
    assert [spec.labels and spec.labels.others for spec in specs] == [None, "unused", "unused"]


def test_another_word_is_refused():
    wrong = {**ONLY, "labels": {"per_class": 2, "others": "none"}}
    with pytest.raises(ConfigError, match=r"only\.labels\.others: 'none' is not one of"):
        make_grid(grid(wrong))
