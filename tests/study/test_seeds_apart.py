"""Class orders and labelled images with a seed of their own, apart from the seed of the run."""

from dataclasses import replace

import pytest
from lab import make_grid

from cdl.data.stream import Stream
from cdl.inventory.datasets import describe
from cdl.spec import Labels, LearnerSpec, OrderSeed
from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row, specification
from cdl.training.context import TaskContext

CLASSES = [str(i) for i in range(10)]
LABELS = {"per_class": 3, "seed": 7}
ORDERS = [
    {"block": "digits", "variant": f"o{k}", "class_order": {"seed": k}, "labels": LABELS}
    for k in (1, 2)
]


def grid(*datasets, protocol=None, seeds=(0, 5)):
    entries = {"datasets": list(datasets), "distillers": ["none", "kd"], "seeds": list(seeds)}
    return make_grid({"grid": entries, "protocol": protocol or {}})


def test_an_order_with_a_seed_is_that_of_runs_with_this_seed():
    apart = [Stream.build(CLASSES, 2, OrderSeed(3), seed).order for seed in (0, 1)]
    assert apart[0] == apart[1] == Stream.build(CLASSES, 2, "seeded", 3).order
    assert apart[0] != Stream.build(CLASSES, 2, "seeded", 0).order


def test_the_protocols_order_has_a_seed_in_every_specification():
    made = grid("digits", protocol={"class_order": {"seed": 3}})
    specs = [specification(made, run) for run in made.runs]
    assert {spec.stream.class_order for spec in specs} == {OrderSeed(3)}
    for spec in specs:
        assert LearnerSpec.from_json(spec.to_json()) == spec
        assert spec.until(0).stream.class_order == OrderSeed(3)
    plain = grid("digits")
    for run, other in zip(made.runs, plain.runs, strict=True):
        stream = specification(plain, other).stream
        assert replace(specification(made, run), stream=stream) == specification(plain, other)


def test_a_dataset_may_have_an_order_and_labels_of_its_own():
    made = grid("digits", *ORDERS)
    assert made.class_order("digits") == "seeded"
    found = {run.dataset: specification(made, run) for run in made.runs if run.teacher}
    assert [s.stream.class_order for s in found.values()] == ["seeded", OrderSeed(1), OrderSeed(2)]
    assert found["digits+o1"].labels == Labels(per_class=3, seed=7)
    rows = [row(made, run) for run in made.runs if run.teacher and run.seed == 0]
    assert [r["labels"] for r in rows] == ["all", "3", "3"]
    assert len({str(r["protocol"]) for r in rows}) == 3  # never averaged as one
    of_teachers = [job for job in LearningJobs(made) if job.rule == "teacher_targets"]
    assert len({job.key["dataset"] + job.key["seed"] for job in of_teachers}) == 6


def test_equal_classes_have_equal_labelled_images_in_every_order_and_seed(lab):
    made = lab({"grid": {"datasets": ORDERS, "seeds": [0, 5], "distillers": ["none", "kd"]}})
    chosen = []
    for run in made.grid.runs:
        paths = {"backbones": {}, "data": made.data, "execution": made.execution}
        known = set()
        for task in range(run.n_tasks):
            context = TaskContext.open(made.spec(run), task, **paths)
            own, _ = context.indices(task)
            known |= {*own[context.labels >= 0].tolist()}
        chosen.append(known)
    assert len(chosen[0]) == 30 and all(known == chosen[0] for known in chosen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": {"class_order": {}}}, "protocol.class_order: 'seed' is a required property"),
        ({"protocol": {"class_order": {"seeds": 1}}}, r"class_order: .*unknown key 'seeds'"),
        ({"protocol": {"class_order": {"seed": -1}}}, r"protocol\.class_order\.seed: -1"),
        ({"datasets": {"digits": {"class_order": "shuffled"}}}, r"digits\.class_order: 'shuffled'"),
        ({"datasets": {"digits": {"class_order": [0, 10]}}}, r"datasets\.digits\.class_order: inv"),
        ({"datasets": {"digits": {"labels": {"seed": 1}}}}, "labels: invalid value .*per_class or"),
        (
            {"datasets": {"digits": {"labels": {"per_class": 1, "fraction": 0.5}}}},
            r"labels: invalid value .*; expected either per_class or fraction",
        ),
    ],
)
def test_invalid_values_are_reported_in_one_sentence(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(changes)


def test_an_unknown_class_of_an_order_is_reported_with_its_field():
    made = make_grid({"datasets": {"digits": {"class_order": [*"012345678", "ten"]}}})
    (problem,) = describe(made)[1]
    assert problem.startswith("datasets.digits: class_order: 'ten' is not a class")
