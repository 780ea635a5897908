"""`images_per_class` as a list: a number of training images per class for each task."""

import pytest
import torch
from lab import make_grid

from cdl.runtime import artifacts
from cdl.spec import LearnerSpec
from cdl.study.configuration import ConfigError
from cdl.study.specifications import specification


def study(images, tasks=(4, 3, 3), methods=("simple_cil",), **changes):
    block = {"tasks": tasks if isinstance(tasks, int) else list(tasks), "images_per_class": images}
    grid = {"methods": list(methods), "distillers": ["none"], "bounds": []}
    return {"datasets": {"digits": block | changes}, "grid": grid}


def specifications(images, tasks):
    made = make_grid(study(images, tasks))
    (run,) = (run for run in made.runs if run.role == "student")
    return [specification(made, run, task).to_json() for task in range(run.n_tasks)]


def test_a_task_depends_on_its_own_number_and_earlier_ones():
    whole = specifications([None, 5, 2], (4, 3, 3))
    assert [spec["images_per_class"] for spec in whole] == [None, [None, 5], [None, 5, 2]]
    assert whole[:2] == specifications([None, 5, 9], (4, 3, 3))[:2]
    assert whole[:2] == specifications([None, 5], (4, 3))
    assert whole[:1] == specifications(None, (4,))
    assert LearnerSpec.from_json(whole[2]).to_json() == whole[2]


def test_equal_numbers_are_a_single_one():
    assert specifications([5, 5, 5], (4, 3, 3)) == specifications(5, (4, 3, 3))


def test_each_task_learns_from_the_images_of_its_number(lab):
    means = {}
    for images in ([16, 3, 1], 16, 3, 1):
        here = lab({**study(images), "name": str(images).strip("[]").replace(", ", "_")})
        run = here.student("none")
        here.learn_all(run)
        means[str(images)] = artifacts.load(here.checkpoint(run, 2))[0]["head.weight"]
    by_task = means.pop("[16, 3, 1]")
    for number, rows in (("16", slice(0, 4)), ("3", slice(4, 7)), ("1", slice(7, 10))):
        assert torch.equal(by_task[rows], means[number][rows])
    results, _ = here.evaluate(run)
    assert sum(results["test_images"]) == 10 * here.grid.test_images_per_class("digits")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [5, 5],
            r"images_per_class: invalid value \[5, 5\]; expected one number for all tasks, or 3",
        ),
        (0, "images_per_class: 0 is less than the minimum of 1"),
        (True, "images_per_class: True is not of type 'integer', 'array', 'null'"),
        ([5, 0, 5], r"images_per_class.1: 0 is less than the minimum of 1"),
        ([5, 5, False], r"images_per_class.2: False is not of type 'integer', 'null'"),
    ],
)
def test_numbers_that_no_task_can_have_are_refused(images, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(study(images))


def test_more_labels_than_images_and_joint_training_are_refused():
    message = r"labels\.per_class: invalid value 5; expected at most 2, the training examples of"
    with pytest.raises(ConfigError, match=message):
        make_grid(study([9, 2, None], labels={"per_class": 5}))
    joint = {"block": "l2p", "variant": "bound", "joint": True}
    message = r"l2p\+bound\.joint: invalid value 'images \[9, 2, 3\]'; expected one number"
    with pytest.raises(ConfigError, match=message):
        make_grid(study([9, 2, 3], methods=[joint]))
    assert make_grid(study([9, 9, 9], methods=[joint])).runs


def test_batches_larger_than_a_task_are_refused():
    message = r"batch_size: invalid value 8; expected at most 6, the labelled training examples"
    with pytest.raises(ConfigError, match=message):
        make_grid(study([16, 2, 16], methods=["l2p"]) | {"training": {"batch_size": 8}})
