"""Evaluation on validation images: no job reads a test image."""

import pytest
from lab import make_grid

from cdl.study.configuration import ConfigError
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import protocol, specification

HELD = {"validation": {"per_class": 20}}


def grid(**options):
    return make_grid({"datasets": {"digits": options}})


def read_by(made):
    """Yield the inputs of all jobs of a grid, with their names in the rules."""
    for job in LearningJobs(made):
        yield from job.inputs.items()


def test_no_input_of_any_job_lies_where_test_images_do():
    plain, tested, checked = grid(), grid(**HELD), grid(**HELD, evaluate_on="validation")
    folders = {made.packed("digits").folder for made in (plain, tested, checked)}
    assert len(folders) == 3
    data = {path for name, paths in read_by(checked) if name == "data" for path in paths}
    assert data and {path.rsplit("/", 1)[0] for path in data} == {checked.packed("digits").folder}
    with_tests = [made.packed("digits").folder for made in (plain, tested)]
    everything = [p for _, v in read_by(checked) for p in ([v] if isinstance(v, str) else v)]
    everything += Jobs(LearningJobs(checked)).targets
    assert not [path for path in everything if path.startswith(tuple(with_tests))]
    queries = [
        {job.key["queried"] for job in LearningJobs(made) if "queried" in job.key}
        for made in (tested, checked)
    ]
    assert all(queries) and not queries[0] & queries[1]


def test_what_is_trained_on_the_same_images_has_one_specification():
    tested, checked = grid(**HELD), grid(**HELD, evaluate_on="validation")
    for one, other in zip(tested.runs, checked.runs, strict=True):
        assert specification(tested, one) == specification(checked, other)
        assert protocol(tested, one) != protocol(checked, other)


def test_without_validation_nothing_is_named_differently():
    plain = grid()
    assert plain.source("digits").keys() == {"source", "short_side"}
    cifar = grid(source={"cifar20": {}}, tasks=[12, 8])
    assert cifar.source("digits")["source"] == {"name": "cifar20", "test": "test", "classes": None}
    own = grid(source={"cifar20": {"test": "validation"}}, tasks=[12, 8])
    assert own.source("digits")["source"]["test"] == "validation"
    assert own.packed_name("digits") != cifar.packed_name("digits")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"evaluate_on": "validation"},
            r"digits.evaluate_on: invalid value 'validation'; expected",
        ),
        ({"validation": {"per_class": 143}}, r"validation.per_class: invalid value 143; .* 142"),
        ({"validation": {}}, "'per_class' is a required property"),
    ],
)
def test_what_cannot_be_held_out_is_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        grid(**options)
