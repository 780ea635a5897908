"""Caches of frozen models' outputs: equal to online outputs, validated, limited in size."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from cdl.distillers import DISTILLERS
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError, Interrupted
from cdl.runtime.jobs import Execution
from cdl.study.inputs import Inputs, caches_in
from cdl.training.checkpointing import State
from cdl.training.context import TaskContext

pytestmark = pytest.mark.slow  # each trains

ALL = {"grid": {"distillers": ["none", "kd", "cdl_prompt", "fitnets"]}}
OWN = {"teacher": "vit_nano", "student": "vit_nano"}
SELF = {"grid": {"pairs": [OWN], "distillers": ["none", "kd", "cdl_prompt", "fitnets"]}}
APT = {"grid": {"methods": ["apt"], "distillers": ["none", "kd"]}}


def taught_by(teacher, method):
    pair = {"teacher": "vit_micro", "student": "vit_nano", "teacher_method": teacher}
    grid = {"methods": [method], "distillers": ["none", "kd", "fitnets"], "pairs": [pair]}
    return {"grid": grid, "methods": {"ranpac": {"projection": 32, "logit_scale": 10.0}}}


def losses(lab, run, task):
    return pd.read_csv(Path(lab.checkpoint(run, task)).parent / "losses.csv")


def learnt(lab, changes, kd, **compute):
    """Return the last state, the loss curves and the accuracy matrix of a student."""
    here = lab({**changes, "name": "_".join(map(str, compute.values())), "compute": compute})
    run = here.student(kd)
    here.learn_all(run)
    results, _ = here.evaluate(run)
    curves = pd.concat([losses(here, run, task) for task in range(run.n_tasks)])
    return artifacts.load(here.checkpoint(run, 1))[0], curves, results["matrix"]


@pytest.mark.parametrize(
    ("changes", "kd"),
    [
        (ALL, "kd"),
        (SELF, "kd"),
        (ALL, "none"),
        (ALL, "fitnets"),
        (ALL | {"protocol": {"query": "self"}}, "cdl_prompt"),
        (ALL | {"protocol": {"query": "self", "student_views": "fresh"}}, "kd"),
        (APT | {"protocol": {"apt_teacher": "previous"}}, "kd"),
        (taught_by("ranpac", "coda_prompt"), "kd"),
        (taught_by("coda_prompt", "head_only"), "fitnets"),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (
                (SELF, "fitnets"),
                (SELF | {"protocol": {"query": "self"}}, "cdl_prompt"),
            )
        ),
    ],
)
def test_cached_equals_online(lab, changes, kd):
    online = learnt(lab, changes, kd, targets="online")
    exact = learnt(lab, changes, kd, targets="cached", targets_dtype="float32")
    assert online[0].keys() == exact[0].keys()
    assert all(torch.equal(online[0][k], exact[0][k]) for k in online[0])  # bit by bit
    pd.testing.assert_frame_equal(online[1], exact[1], check_exact=True)
    assert online[2] == exact[2]
    _, curves, _ = learnt(lab, changes, kd, targets="cached", targets_dtype="float16")
    pd.testing.assert_frame_equal(online[1], curves, rtol=2e-3, atol=1e-4)


def test_fresh_views_are_the_students_alone_and_the_same_for_all_of_them(lab):
    here = lab(ALL | {"protocol": {"student_views": "fresh"}})
    teacher, kd = here.run(role="teacher"), here.student("kd")
    taught, none, theirs = (
        here.planned.learning(run, 0) for run in (kd, here.student("none"), teacher)
    )
    read_for_targets = here.planned.of(taught["targets"])
    assert taught["queries"] == read_for_targets["queries"] == none["queries"]
    assert taught["queries"] != theirs["queries"]
    first = {}
    for run in (teacher, kd):
        paths = {"backbones": {}, "data": here.data, "execution": here.execution}
        context = TaskContext.open(here.spec(run), 0, **paths)
        first[run.role] = next(context.batches()(0))
    a, b = first["teacher"].positions.tolist(), first["student"].positions.tolist()
    assert a != b  # another order, and another view of an image in both
    shared = next(p for p in a if p in b)
    views = (first["teacher"].views[a.index(shared)], first["student"].views[b.index(shared)])
    assert not torch.equal(*views)


def test_a_job_with_targets_opens_neither_the_teachers_vit_nor_a_query_backbone(lab):
    here = lab(ALL)
    for kd, backbones, teacher in (
        ("none", ["vit_nano"], False),
        ("kd", ["vit_nano"], False),
        ("cdl_prompt", ["vit_nano"], True),
        ("fitnets", ["vit_micro", "vit_nano"], True),
    ):
        inputs = here.planned.learning(here.student(kd), 0)
        assert list(inputs["backbones"]) == backbones
        assert ("teacher" in inputs) == teacher
        assert ("targets" in inputs) == (kd in ("kd", "cdl_prompt"))
    assert list(here.planned.learning(here.run(role="teacher"), 0)["backbones"]) == ["vit_micro"]
    online = lab(ALL | {"compute": {"targets": "online"}})
    for run in online.grid.runs:
        for inputs in (online.planned.learning(run, 0), online.planned.evaluating(run)):
            assert not [*caches_in(inputs)]


def test_what_the_same_views_share_is_one_folder(lab):
    grid = lab(ALL | {"grid": {"methods": ["coda_prompt", "l2p"]}}).grid
    inputs = Inputs(grid)
    for task in (0, 1):
        assert len({inputs.learning(run, task)["queries"].folder for run in grid.runs}) == 1
    other = lab({"training": {"teacher": {"epochs": 3}}}).grid
    student, teacher = (
        next(run for run in other.runs if run.role == role) for role in ("student", "teacher")
    )
    own, theirs = (Inputs(other).learning(run, 0)["queries"].folder for run in (student, teacher))
    assert own != theirs


def test_targets_that_do_not_belong_are_refused(lab):
    here = lab({"grid": {"seeds": [0, 1], "distillers": ["kd"]}})
    one, two = (here.run(role="student", seed=seed) for seed in (0, 1))
    for run in (one, two):
        here.learn(here.grid.teacher_of(run), 0)
    paths = [Path(here.task_inputs(run, 0)["targets"]) for run in (one, two)]
    kept = {p: p.read_bytes() for path in paths for p in (path, path.with_suffix(".json"))}
    for suffix in (".safetensors", ".json"):
        paths[0].with_suffix(suffix).write_bytes(kept[paths[1].with_suffix(suffix)])
    with pytest.raises(CdlError, match=r"targets.*was made with spec.*seed = 1, expected 0"):
        here.learn(one, 0)
    for path, content in kept.items():
        path.write_bytes(content)
    paths[0].write_bytes(kept[paths[0]][:-1] + b"\x55")
    with pytest.raises(CdlError, match="targets.safetensors has sha256"):
        here.learn(one, 0)
    paths[0].write_bytes(kept[paths[0]])
    metadata = artifacts.read_json(paths[0].with_suffix(".json"))
    metadata["inputs"]["backbones"]["vit_nano"] = "changed"
    artifacts.write_json(paths[0].with_suffix(".json"), metadata)
    with pytest.raises(CdlError, match=r"targets.*vit_nano = \"changed\""):
        here.learn(one, 0)
    assert not Path(here.checkpoint(one, 0)).exists()


def test_the_disk_is_bounded_before_any_work(lab, monkeypatch):
    from cdl.training import targets

    here = lab()
    run = here.student("kd")
    cache = here.planned.learning(run, 0)["queries"]
    monkeypatch.setattr(targets, "over_views", lambda *_: pytest.fail("work began"))
    with pytest.raises(
        CdlError, match=r"targets_max_gb: 1e-06, but the queries of tasks 1 to 1 need"
    ):
        targets.write_queries(
            cache.spec,
            0,
            str(here.folder / "q.safetensors"),
            data=here.data,
            backbone=here.backbone(cache.backbone),
            execution=Execution(limit_gb=1e-6),
        )
    assert not here.folder.exists()


def test_numbers_that_do_not_fit_the_cache_are_refused():
    from cdl.training.targets import _rounded

    with pytest.raises(CdlError, match="float16 cannot hold values up to 7e"):
        _rounded(torch.tensor([1.0, 7e4]), SimpleNamespace(cache_dtype="float16"))
    assert _rounded(torch.tensor([7e4]), SimpleNamespace(cache_dtype=None)).dtype == torch.float32


def test_devices_that_do_not_exist_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Compute.select("auto").name == "cpu"
    with pytest.raises(CdlError, match="compute.device: invalid value 'cuda:3'; torch .* 0 CUDA"):
        Compute.select("cuda:3")


@pytest.fixture
def bf16_units():
    """Skip if the CPU does not support bf16."""
    try:
        Compute.select("cpu", "bf16")
    except CdlError as error:
        pytest.skip(str(error))


def test_bf16_on_the_cpu_gives_the_same_bits_twice_and_others_than_fp32(lab, bf16_units):
    first, again = (
        learnt(lab, ALL, "cdl_prompt", precision="bf16", save_minutes=m) for m in (0.0, 1.0)
    )
    exact = learnt(lab, ALL, "cdl_prompt", precision="fp32")
    assert all(torch.equal(first[0][k], again[0][k]) for k in first[0])
    assert all(tensor.dtype == exact[0][k].dtype for k, tensor in first[0].items())
    pd.testing.assert_frame_equal(first[1], again[1], check_exact=True)
    assert first[2] == again[2]
    assert any(not torch.equal(first[0][k], exact[0][k]) for k in first[0])
    pd.testing.assert_frame_equal(first[1], exact[1], rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("kd", "query"),
    [
        ("kd", "student"),
        pytest.param("cdl_prompt", "self", marks=pytest.mark.nightly),
        pytest.param("fitnets", "self", marks=pytest.mark.nightly),
    ],
)
def test_each_cache_is_computed_in_the_precision_of_its_model(lab, bf16_units, query, kd):
    changes, found = ALL | {"protocol": {"query": query}}, {}
    for teacher, student in (("bf16", "fp32"), ("fp32", "bf16")):
        for how in ({"targets": "online"}, {"targets": "cached", "targets_dtype": "float32"}):
            roles = {"teacher": teacher, "student": student}
            name = f"{teacher}_{how['targets']}"
            given = {**changes, "name": name, "compute": {"precision": roles, **how}}
            here = lab(given)
            run = here.student(kd)
            here.learn_all(run)
            matrix = here.evaluate(run)[0]["matrix"]
            found[name] = [artifacts.load(here.checkpoint(run, 1))[0], matrix]
    for teacher in ("bf16", "fp32"):
        online, cached = found[f"{teacher}_online"], found[f"{teacher}_cached"]
        assert all(torch.equal(online[0][k], cached[0][k]) for k in online[0])  # bit by bit
        assert online[1] == cached[1]
    states = [found[f"{teacher}_online"][0] for teacher in ("bf16", "fp32")]
    assert any(not torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_gpu_named_by_its_index_is_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    first, second = Compute.select("cuda"), Compute.select("cuda:1", "bf16", capture=True)
    assert first.device == torch.device("cuda")
    assert second.dtype == torch.bfloat16
    assert current == []  # selecting a device does not change it
    for compute in (first, second):
        compute.apply()
    assert current == [0, 1]
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32
    Compute.select("cpu").apply()
    assert torch.are_deterministic_algorithms_enabled()


def test_frozen_weights_in_bf16_leave_tokens_in_fp32(toy_backbone):
    images = torch.rand(3, 3, 8, 8)
    exact = toy_backbone().encode(images, keep_blocks=2)
    half = toy_backbone().place(Compute(torch.device("cpu"), torch.bfloat16))
    rounded = half.encode(images, keep_blocks=2)
    assert rounded.tokens.dtype == torch.float32 == rounded.blocks[0].dtype
    assert half.mean.dtype == torch.float32
    torch.testing.assert_close(rounded.tokens, exact.tokens, rtol=0.1, atol=0.1)
    assert not torch.equal(rounded.tokens, exact.tokens)


GPU = pytest.mark.gpu


@GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("method", "kd"),
    [("coda_prompt", kd) for kd in DISTILLERS]
    + [(method, "kd_prompt") for method in ("l2p", "dual_prompt", "apt")],
)
def test_a_captured_step_learns_what_an_eager_one_learns(lab, method, kd, precision):
    changes = {
        "training": {"epochs": 3},  # the rate changes after the capture
        "grid": {"methods": [method], "distillers": list(dict.fromkeys(["none", kd]))},
    }
    eager, captured = (
        learnt(lab, changes, kd, device="cuda", precision=precision, capture=capture)
        for capture in (False, True)
    )
    pd.testing.assert_frame_equal(eager[1], captured[1], rtol=1e-2, atol=1e-3)
    for name, tensor in eager[0].items():
        torch.testing.assert_close(captured[0][name], tensor, rtol=2e-2, atol=2e-2)


@GPU
@pytest.mark.parametrize("capture", [False, True])
def test_a_task_stopped_on_a_gpu_goes_on(lab, monkeypatch, capture):
    changes = {"training": {"epochs": 3}}
    compute = {"device": "cuda", "capture": capture}
    undisturbed = learnt(lab, changes, "none", **compute)
    here = lab(changes | {"name": "stopped", "compute": compute})
    run, save = here.student("none"), State.save

    def stopping(self, tensors, metadata):
        save(self, tensors, metadata)
        if metadata["at"] == (1, 2):
            raise Interrupted("stopped")

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(State, "save", stopping)
        here.learn(run, 0)
    here.learn_all(run)
    curves = pd.concat([losses(here, run, task) for task in range(run.n_tasks)])
    pd.testing.assert_frame_equal(undisturbed[1], curves, rtol=1e-2, atol=1e-3)
