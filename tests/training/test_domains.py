"""Domain-incremental streams: every task is a domain with the same classes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lab import Lab, make_grid
from PIL import Image

from cdl.data.packing import prepare
from cdl.deployment.learn import _check_learnable
from cdl.deployment.new_classes import NewClasses
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.spec import Domains, Stream
from cdl.study.configuration import ConfigError, read, resolve
from cdl.study.contents import hashes, images_contents
from cdl.study.grid import Grid
from cdl.study.specifications import specification

DOMAINS = ("photo", "sketch", "toy")
CLASSES = ("ant", "bee", "cow")


def draw(root, domains=DOMAINS):
    """Write four training and two test images per class: striped by class, coloured by domain."""
    for d, domain in enumerate(domains):
        for c, name in enumerate(CLASSES):
            for i in range(6):
                noise = np.random.default_rng((d, c, i)).integers(0, 60, (16, 16, 3))
                noise[:: c + 2, :, d % 3] += 180
                file = root / ("train" if i < 4 else "test") / domain / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.astype(np.uint8)).save(file)


def configured(root, tasks, **more):
    block = {
        "source": {"folder": {"path": str(root), "domains": True}},
        "tasks": tasks,
        "images_per_class": None,
        "test_images_per_class": None,
    }
    return make_grid({"datasets": {"digits": block}, "training": {"batch_size": 4}, **more})


@pytest.fixture
def root(tmp_path):
    draw(tmp_path / "raw")
    return tmp_path / "raw"


class OwnLab(Lab):
    """A lab with data packed from its own source."""

    def __init__(self, grid, inputs, folder):
        super().__init__(grid, inputs, folder / "made")
        prepare(self.data, grid.source("digits")["source"])

    @property
    def data(self):
        return str(self.folder / "data")


def test_every_domain_is_a_task_of_all_classes(root, tmp_path, inputs):
    grid = configured(root, {"by": "domain"}, grid={"distillers": ["cdl_prompt"]})
    here = OwnLab(grid, inputs, tmp_path)
    run = here.student("cdl_prompt")
    assert here.spec(run).stream.domains == tuple(DOMAINS)
    here.learn_all(run)
    states = [artifacts.load(here.checkpoint(run, task))[0] for task in range(3)]
    assert [len(state["head.linear.bias"]) for state in states] == [3, 3, 3]
    assert [len(state["distiller.kd_head.linear.bias"]) for state in states] == [3, 3, 3]
    rows = [state["prompts.pool.key"].shape[1] for state in states]
    assert rows == [4, 8, 12]  # prompts grow also without new classes
    results, predictions = here.evaluate(run)
    assert results["test_images"] == [6, 6, 6]
    matrix, within = results["matrix"], results["task_incremental_matrix"]
    for row, own in zip(matrix, within, strict=True):  # every domain has all classes
        assert row == pytest.approx(own)
    numbers = results["metrics"]
    assert numbers["task_incremental_accuracy"] == pytest.approx(numbers["final_average_accuracy"])
    assert numbers["backward_transfer"] == pytest.approx(
        np.mean([matrix[2][t] - matrix[t][t] for t in range(2)])
    )
    assert results["task_confusion"] == [[6, 0, 0], [0, 6, 0], [0, 0, 6]]
    in_domain = predictions.groupby("task")["file"].agg(
        lambda names: {n.split("/")[1] for n in names}
    )
    assert in_domain.tolist() == [{domain} for domain in DOMAINS]


def test_a_domain_more_leaves_those_learnt_as_they_are(root, tmp_path):
    before, after = (
        configured(root, {"by": "domain", "domains": domains}, compute={"targets": "cached"})
        for domains in (["toy", "photo"], ["toy", "photo", "sketch"])
    )
    for one, two in zip(before.runs, after.runs, strict=True):
        assert (one.n_tasks, two.n_tasks) == (2, 3)
        specs = [[specification(g, r, t) for t in (0, 1)] for g, r in ((before, one), (after, two))]
        assert specs[0] == specs[1]
    source, stream = before.source("digits")["source"], specs[0][1].stream
    files = sorted(root.rglob("*.png"))
    contents = images_contents(source, stream, 1, hashes(files, tmp_path / "memory"))
    draw(root, (*DOMAINS, "zoo"))
    files = sorted(root.rglob("*.png"))
    assert contents == images_contents(source, stream, 1, hashes(files, tmp_path / "memory"))
    (root / "train" / "photo" / "ant" / "0.png").unlink()
    files = sorted(root.rglob("*.png"))
    assert contents != images_contents(source, stream, 1, hashes(files, tmp_path / "memory"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"digits": {"tasks": {"by": "domain"}}}}, "with the source 'digits'"),
        ({"datasets": {"digits": {"tasks": {"by": "colour"}}}}, "'colour' is not one of"),
    ],
)
def test_domains_that_are_not_there_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(changes)


def test_what_needs_classes_of_a_task_is_refused(root):
    for option in ({"joint": True}, {"alignment": {"preset": "slca"}}):
        method = {"block": "coda_prompt", "variant": "v", **option}
        with pytest.raises(ConfigError, match="invalid value 'tasks by domain'"):
            configured(root, {"by": "domain"}, grid={"methods": [method]})


def test_a_domain_without_images_is_named(root, tmp_path, inputs):
    grid = configured(root, {"by": "domain", "domains": ["photo", "oil"]})
    here = OwnLab(grid, inputs, tmp_path)
    cache = here.planned.learning(here.run(role="teacher"), 1)["queries"]
    with pytest.raises(CdlError, match="'oil' has no example; expected one of .*'photo'"):
        here.cache(cache)


def test_domainnet_is_planned_before_its_images_are_there():
    config = Path(__file__).parents[2] / "config" / "paper" / "domainnet.yaml"
    grid = Grid(resolve(read(config)))
    assert {run.n_tasks for run in grid.runs} == {6}
    assert {run.dataset for run in grid.runs} == {"domainnet"}


def test_new_classes_are_no_task_of_a_domain_learner():
    spec = SimpleNamespace(stream=Stream(Domains("domain", ("photo",)), "natural"))
    with pytest.raises(CdlError, match="a run whose tasks are domains"):
        _check_learnable(spec, NewClasses(("dog",), (), ()), Path("new"))
