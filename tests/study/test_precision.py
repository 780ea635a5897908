"""A precision changes the specifications, caches and protocols that it affects, and no others."""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import yaml

from cdl.spec import precision_of
from cdl.study.configuration import ConfigError, merge, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import Inputs, caches_in
from cdl.study.specifications import protocol, specification

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config" / "digits.yaml").read_text())
MIXED = {"teacher": "bf16", "student": "fp32"}


def grid(precision, *changes):
    compute = {"compute": {"precision": precision}}
    return Grid(resolve(reduce(merge, (DEFAULT, compute, *changes))))


def without(spec):
    return replace(spec, precision=None, bf16=None)


def caches(made, run):
    inputs, found = Inputs(made), []
    jobs = [inputs.learning(run, task) for task in range(run.n_tasks)]
    left = [cache for job in (*jobs, inputs.evaluating(run)) for cache in caches_in(job)]
    while left:
        found.append(left.pop())
        left += caches_in(inputs.of(found[-1]))
    return found


@pytest.mark.parametrize("query", ["student", "self"])
def test_one_word_for_both_roles_is_that_word(query):
    changes = {"protocol": {"query": query}}
    for word, expected in (("fp32", None), ("bf16", "bf16")):
        plain, by_role = (
            grid(given, changes) for given in (word, {"teacher": word, "student": word})
        )
        for run in plain.runs:
            spec = specification(plain, run)
            assert spec.precision == expected
            assert spec == specification(by_role, run)
            assert protocol(plain, run) == protocol(by_role, run)
            assert caches(plain, run) == caches(by_role, run)


@pytest.mark.parametrize("query", ["student", "self"])
def test_a_precision_by_role_changes_what_a_model_of_that_role_computes(query):
    changes = {"protocol": {"query": query}}
    exact, mixed = grid("fp32", changes), grid(MIXED, changes)
    words = {"vit_micro": "bf16", "vit_nano": "fp32"}
    for run in mixed.runs:
        spec = specification(mixed, run)
        assert without(spec) == specification(exact, run)
        assert {name: precision_of(spec, name) for name in run.backbones} == {
            name: words[name] for name in run.backbones
        }
        for cache in caches(mixed, run):
            part = cache.spec.teacher if cache.teacher else cache.spec
            assert precision_of(part, cache.backbone) == words[cache.backbone]
        assert protocol(mixed, run)["precision"] == MIXED
        assert "precision" not in protocol(exact, run)


def test_what_no_bf16_model_computes_is_shared_with_a_run_in_fp32():
    exact, mixed = grid("fp32"), grid({"teacher": "bf16"})
    for run in mixed.runs:
        queries = [cache.folder for cache in caches(mixed, run) if not cache.teacher]
        assert queries == [cache.folder for cache in caches(exact, run) if not cache.teacher]
        same = specification(mixed, run) == specification(exact, run)
        assert same == (run.backbones == ["vit_nano"])


@pytest.mark.parametrize("wrong", ["fp16", "bf16\n", {"teacher": "half"}, {"pupil": "bf16"}, 16])
def test_another_precision_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=r"^compute\.precision"):
        grid(wrong)
