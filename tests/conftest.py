"""Toy models for all tests."""

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from timm.models.vision_transformer import VisionTransformer

from cdl.backbones.fetch import fetch
from cdl.backbones.images import FrozenViT
from cdl.data.packing import prepare

HERE = Path(__file__).parent
sys.path[:0] = [
    str(folder)
    for folder in (HERE / "helpers", HERE / "conformance", HERE.parent, HERE.parent / "benchmarks")
]


LONGEST = (  # first, so that no worker is left with one at the end
    *("workflow", "test_tutorial.py", "test_start.py", "test_contributing.py", "deployment"),
    *("reporting/test_finished.py", "reporting/test_page.py", "training", "cli", "study"),
    *("runtime/test_forkserver.py", "runtime/test_fetch.py"),
)

# fresh examples in every run, also in CI; a failure prints how to repeat it
FRESH = settings(
    deadline=None,
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("fresh", FRESH)
settings.register_profile("nightly", FRESH, max_examples=1000)
settings.load_profile("fresh")

torch.set_num_threads(1)  # as jobs run; pytest-xdist's workers would fight over the cores


def rank(item):
    """The place of a test's file or folder in `LONGEST`; behind all of them if it has none."""
    path = str(item.path.relative_to(HERE))
    return next((i for i, name in enumerate(LONGEST) if path.startswith(name)), len(LONGEST))


def pytest_addoption(parser):
    """Add the option for the tests that only the nightly job runs."""
    parser.addoption("--nightly", action="store_true", help="run the tests marked `nightly` alone")


def pytest_collection_modifyitems(config, items):
    """Mark as slow what starts programs; skip `gpu` where torch sees none; long files first."""
    nightly = config.getoption("nightly")
    chosen, left_out = [], []
    for item in items:
        of_night = item.get_closest_marker("nightly") is not None
        (chosen if of_night == nightly else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen
    items.sort(key=rank)
    for item in items:
        programs = item.path.relative_to(HERE).parts[0] in ("cli", "workflow")
        if programs or {"finished", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_collection_finish():
    """Keep imported modules and collected tests out of the garbage collections that follow."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def stay_here():
    """Return to the current folder after a test, whose own folder is removed."""
    here = Path.cwd()
    yield
    os.chdir(here)


@pytest.fixture
def toy_backbone():
    """A maker of small random backbones for 8x8 images with 4 patches."""

    def make(width=12, depth=6, heads=3, seed=0):
        torch.manual_seed(seed)
        vit = VisionTransformer(
            img_size=8, patch_size=4, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
        )
        return FrozenViT(vit, [0.5] * 3, [0.5] * 3, f"toy{width}x{depth}")

    return make


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with the packed digits and both embedded backbones."""
    folder = tmp_path_factory.mktemp("inputs")
    prepare(folder / "data", {"name": "digits"})
    for name in ("vit_micro", "vit_nano"):
        fetch(folder / f"{name}.safetensors", "embedded", f"{name}_patch4_32")
    return folder


@pytest.fixture
def lab(inputs, tmp_path):
    """A maker of labs (see `lab.py`) from changes to the tiny configuration."""
    from lab import Lab, make_grid

    def make(changes=None):
        grid = make_grid(changes or {})
        return Lab(grid, inputs, tmp_path / grid.config["name"])

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished tiny run, made once for all workers; it is never changed."""
    import runs

    def run(folder):
        process = runs.popen(folder, own_server=True)
        output = process.communicate()[0]
        assert process.returncode == 0, output[-4000:]

    return _made_once(tmp_path_factory, "finished", run)


@pytest.fixture(scope="session")
def statistics(tmp_path_factory):
    """The folder of a finished study of statistics, made once in process; it is never changed."""
    import statistics_study

    def run(folder):
        with contextlib.chdir(folder):
            statistics_study.finish()

    return _made_once(tmp_path_factory, "statistics", run)


def _made_once(tmp_path_factory, name, make):
    """The folder `name`, which the first of all workers to ask for it makes with `make(folder)`."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "whole").touch()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    subprocess.run(["cp", "-a", f"{finished}/.", tmp_path], check=True)
    return tmp_path
