"""The benchmarks run, promise columns, and compare with what they say they compare with."""

import json
import shutil
from functools import reduce
from itertools import product
from pathlib import Path

import gpu_proof
import grid_cost
import kernels
import load
import methods
import new_classes
import new_classes_inputs
import new_classes_report
import numpy as np
import pandas as pd
import parts
import pytest
import steps
import torch
from bench import Bench
from case import Case, backbone_file, configuration
from meter import Meter
from released_recipe import PillowViews, Unfrozen, batches
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdl.backbones.images import FrozenViT
from cdl.backbones.kernels import kernels as chosen_kernels
from cdl.backbones.vit import Injection
from cdl.data.batches import Batch
from cdl.data.views import Views
from cdl.models.operations import operations
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, merge, read, resolve
from cdl.study.grid import Grid
from cdl.training.step import Step

TINY = {
    "size": 8,
    "batch": 4,
    "tasks": 2,
    "classes": 4,
    "steps": 1,
    "warm_up": 1,
    "test_images": 8,
    "device": "cpu",
}
OPTIONS = ("methods.coda_prompt.pool=4", "distillers.cdl_prompt.pool=4")
METHODS = Path(__file__).parent.parent / "config" / "cifar100_methods.yaml"
ARGUMENTS = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]
ARGUMENTS += [f"--set={option}" for option in OPTIONS]
RATES = {
    "ours.teacher": 10,
    "ours.student": 20,
    "ours.student_online": 8,
    "ours.queries": 50,
    "ours.targets": 25,
    "ours.evaluation": 100,
    "recipe.teacher": 5,
    "recipe.student": 4,
    "recipe.evaluation": 50,
    "recipe.input": 1000,
}


@pytest.fixture
def bench(tmp_path):
    def make(**changes):
        folder = tmp_path / "-".join(["bench", *map(str, changes.values())])
        folder.mkdir()
        return Bench(Case(**TINY | {"options": OPTIONS} | changes), folder)

    return make


def cells(printed):
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return rows[0], rows[2:]


@pytest.mark.nightly
def test_steps_prints_every_stage_of_both_recipes_and_grid_cost_reads_it(capsys, tmp_path):
    output = tmp_path / "steps.json"
    given = [*ARGUMENTS, "--rounds=1", "--workers=1", f"--output={output}"]
    steps.main([*given, "--distiller=fitnets"])
    printed = capsys.readouterr().out
    header, rows = cells(printed)
    columns = "stage,recipe,ms/step,range,img/s,TFLOP/s,peak MiB,ratio,limit,of limit"
    assert header == columns.split(",")
    stages = {(row[0], row[1]) for row in rows}
    both = {"teacher", "student", "evaluation", "input"}
    assert {s for s, r in stages if r == "recipe"} == both
    assert {s for s, r in stages if r == "ours, cached"} == both | {"queries", "targets"}
    assert {s for s, r in stages if r == "ours, online"} == {"teacher", "student"}
    assert all(float(row[2]) > 0 for row in rows)
    assert "Large matrix product on this device: float32" in printed
    assert "nothing to hold the recipe against" in printed
    written = json.loads(output.read_text())
    assert written["case"]["batch"] == 4
    found = {(row["stage"], row["recipe"]): row for row in written["stages"]}
    for stage in ("teacher", "student"):
        ours, theirs = found[stage, "ours, cached"], found[stage, "recipe"]
        assert ours["limit"] > 1 == theirs["limit"]
        reached = ours["TFLOP/s"] / theirs["TFLOP/s"]  # equal where only fewer products help
        assert ours["of limit"] == pytest.approx(reached)
    assert found["input", "ours, cached"]["limit"] is None
    grid_cost.main([str(METHODS), f"--steps={output}"])
    assert "45 rows of a table" in capsys.readouterr().out


def test_without_options_the_pool_fits_the_narrow_student_and_grows_by_task_else(tmp_path):
    paths = {"teacher": backbone_file(Case().teacher, 32, tmp_path)}
    for name, pool in ((Case().student, {"pool": 50}), (Case().teacher, {"pool_per_task": 10})):
        here = paths | {"student": backbone_file(name, 32, tmp_path)}
        for distiller in ("kd_prompt", "cdl_prompt"):
            case = Case(distiller=distiller)
            grid = Grid(resolve(configuration(case, tmp_path, here)))
            assert all(pool.items() <= run.method.options.items() for run in grid.runs)
    case = Case(options=("methods.coda_prompt.pool=20",))
    assert configuration(case, tmp_path, here)["methods"]["coda_prompt"]["pool"] == 20


@pytest.mark.nightly
def test_methods_prints_a_row_per_method(capsys):
    methods.main([*ARGUMENTS, "--rounds=1", "--methods", "coda_prompt", "sd_lora", "adapter"])
    header, rows = cells(capsys.readouterr().out)
    assert header[:4] == ["method", "ms/step", "range", "steps/s"]
    assert [row[0] for row in rows] == ["coda_prompt", "sd_lora", "adapter"]
    assert float(rows[0][header.index("of the first")]) == 1
    assert all(float(row[1]) > 0 for row in rows)


@pytest.mark.parametrize("distiller", ["kd_prompt", "cdl_prompt", "fitnets", "none"])
def test_the_recipe_computes_the_same_losses_the_wasteful_way(bench, distiller, monkeypatch):
    made = bench(distiller=distiller)
    recipe, batch = steps.recipe_of(made), made.ready[0]
    weights = {k: v.clone() for k, v in recipe.student.backbone.state_dict().items()}
    queried = []
    original = FrozenViT.query
    monkeypatch.setattr(FrozenViT, "query", lambda *a: queried.append(a[0]) or original(*a))
    taught = recipe.student_step(batch)
    assert len(queried) == 2  # once for each learner's prompts
    query, taught_by = made.queries("student", False)(batch), made.teacher_outputs(False)
    learner = made.learners["student"].train()
    step = Step(learner, task=made.task, classes=made.classes, lr=1e-3, betas=(0.9, 0.999))
    losses = step(batch, query, taught_by(batch, query) if taught_by else None)
    torch.testing.assert_close(taught, losses.sum(), rtol=1e-4, atol=1e-5)
    backbone = recipe.student.backbone
    assert isinstance(backbone, Unfrozen)
    for name, parameter in backbone.model.named_parameters():
        assert parameter.grad is not None and parameter.dtype == torch.float32, name
    assert all(torch.equal(weights[k], v) for k, v in backbone.state_dict().items())
    assert all(p.grad is None for p in learner.backbone.parameters())
    queried.clear()
    recipe.teacher_step(batch)
    assert len(queried) == 1
    assert all(p.grad is not None for p in recipe.teacher.backbone.model.parameters())


def test_the_recipe_has_torchs_tf32_and_leaves_the_setting_as_it_was(bench, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as on our GPU
    made, seen = bench(), []
    recipe = steps.recipe_of(made)
    embed = recipe.student.backbone.model.patch_embed.proj
    embed.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    embed.weight.register_hook(lambda _: seen.append(torch.backends.cudnn.allow_tf32))
    recipe.student_step(made.ready[0])
    assert seen == [True] * 4  # two queries, the prompted pass, and its backward
    assert not torch.backends.cudnn.allow_tf32


def test_the_recipes_views_come_from_pillow_in_workers(bench):
    made = bench()
    index = made.batches.indices
    data = PillowViews(made.pixels, index, made.batches.labels, Views(8))
    image, label = data[3]
    assert (image.shape, image.dtype) == ((3, 8, 8), torch.float32)
    assert label == made.batches.labels[3]
    found = list(batches(data, 4, 1, torch.device("cpu")))
    assert [len(batch.labels) for batch in found] == [4, 4]


@pytest.mark.parametrize("case", ["plain", "prefix", "prefix and suffix", "addition", "token"])
@pytest.mark.parametrize("weights", [False, True])
def test_the_formula_counts_what_torch_counts(toy_backbone, case, weights):
    backbone, n = toy_backbone(), 2
    backbone.model.requires_grad_(weights)

    def pair(*shape):
        return tuple(torch.zeros(*shape, backbone.width, requires_grad=True) for _ in range(2))

    injection = {
        "plain": Injection(),
        "prefix": Injection({1: pair(n, 4), 3: pair(n, 2)}),
        "prefix and suffix": Injection({0: pair(n, 4)}, {2: pair(3)}),
        "addition": Injection(additions={4: pair()}),
        "token": Injection({1: pair(n, 4)}, token=pair(1)[0]),
    }[case]
    forward, backward = operations(backbone, injection, weights)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tokens = backbone.encode(torch.rand(n, 3, 8, 8), injection).tokens
        assert counter.get_total_flops() == n * forward
        if tokens.requires_grad:
            tokens.sum().backward()
    assert counter.get_total_flops() == n * (forward + backward)


def test_the_meter_times_what_follows_the_warm_up():
    meter = Meter(torch.device("cpu"), 1)
    made = [Batch(torch.rand(n, 1), torch.zeros(n), 0, torch.empty(0)) for n in (4, 4, 3)]
    kept = [torch.ones(2**22) for _ in meter.watch(made)]
    assert (meter.result.steps, meter.result.images, len(kept)) == (2, 7, 3)
    assert meter.result.peak > 2 * 2**24  # three tensors of 16 MiB, the first perhaps reused
    with pytest.raises(CdlError, match="--warm-up: 1 steps, but there are only 1 batches"):
        list(meter.watch(made[:1]))


def test_a_cpu_clock_that_would_miss_work_is_refused(bench):
    with pytest.raises(CdlError, match="--clock: cpu sees this process only"):
        steps.main([*ARGUMENTS, "--clock=cpu", "--workers=2"])
    with pytest.raises(CdlError, match="--clock: cpu counts the CPU seconds of one thread"):
        bench(clock="cpu", threads=2)
    torch.set_num_threads(1)


def test_hours_of_a_grid_by_hand(lab):
    distillers = ["none", "kd", "fitnets"]
    changes = {"grid": {"distillers": distillers, "bounds": ["head_only"]}}
    grid = lab(changes | {"training": {"epochs": 3}}).grid
    images = grid_cost.Images(grid, 10, 999, 999)  # 16 and 8 per class, as configured
    made, jobs = grid_cost.ours(grid, images)
    views, test = 10 * 16 * 3, (6 + 10) * 8
    assert made == {
        "teachers": views,
        "students": 3 * views,
        "students, teacher online": views,
        "queries": views + 80,
        "teacher targets": views,
        "evaluation": 5 * test,
    }
    assert jobs == 5 * 3 + 2 + 1 + 2
    theirs = grid_cost.released(grid, images)
    assert theirs == {"students": 4 * views, "teachers": 3 * views, "evaluation": 4 * test}
    frame = grid_cost.table(grid, images, RATES, 1.0).set_index("stage")
    mine = views / 10 + 3 * views / 20 + views / 8 + (views + 80) / 50 + views / 25
    assert frame.loc["all", "ours, h"] * 3600 == pytest.approx(mine + 5 * test / 100 + jobs)
    theirs = 3 * views / 5 + 4 * views / 4 + 4 * test / 50
    assert frame.loc["all", "recipe, h"] * 3600 == pytest.approx(theirs)
    slow = grid_cost.table(grid, images, RATES | {"recipe.input": 1}, 1.0).set_index("stage")
    assert slow.loc["teachers", "recipe, h"] * 3600 == pytest.approx(3 * views)
    with pytest.raises(ConfigError, match="--rate ours.targets=IMAGES_PER_SECOND is needed"):
        grid_cost.table(grid, images, {k: v for k, v in RATES.items() if "targets" not in k}, 1.0)


def test_the_recipe_is_held_against_the_released_code_where_that_was_timed():
    import pandas as pd

    case = Case("vit_base_patch16_224", "vit_small_patch16_224", 224)
    rows = [("teacher", 210.0), ("student", 120.0)]
    frame = pd.DataFrame(rows, columns=["stage", "ms/step"]).assign(recipe="recipe")
    said = steps.verdict(frame, case, "NVIDIA H100 80GB HBM3")
    assert "teacher step of the recipe: 210 ms, of the released code 204 ms: within" in said
    assert "120 ms, of the released code 172 ms: NOT within" in said


def test_backbones_by_name_of_an_architecture(tmp_path):
    path = backbone_file("vit_tiny_patch16_224", 32, tmp_path)
    from cdl.backbones.fetch import fetch

    fetch(tmp_path / "b.safetensors", "file", path)
    assert FrozenViT.load(tmp_path / "b.safetensors", 32, "backbone").width == 192
    with pytest.raises(CdlError, match="'resnet50' is no embedded backbone"):
        backbone_file("resnet50", 32, tmp_path)


@pytest.mark.nightly
def test_the_study_of_new_classes_reports_pairs_and_intervals(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    study = new_classes_inputs.Study(tmp_path, None, tmp_path)
    for learner, (_, settings) in new_classes_inputs.SETTINGS.items():
        for setting in settings:
            for (n, k), seed in product(new_classes_inputs.conditions(), range(3)):
                before, old = rng.random((2, 40)) < 0.8
                found = new_classes_inputs.Outcome(before, old, rng.random(10 * n) < 0.5)
                for split in ("test", "validation"):
                    found.write(study.file(split, learner, setting, n, k, seed), seconds=1.0)
    plain = np.load(study.file("test", "aligned", "aligned", 20, 1, 0))
    worse = new_classes_inputs.Outcome(plain["before"], plain["old"], np.zeros(200, bool))
    worse.write(study.file("choices", "aligned", "unlabelled", 20, 1, 0))
    figure = tmp_path / "figure.svg"
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path), "--figure", str(figure)])
    new_classes_report.main()
    lines = capsys.readouterr().out.splitlines()
    ridge = next(line for line in lines if line.startswith("| ridge, all, balanced | 20 | 10 | 3"))
    files = [study.file("test", "ridge", "all, balanced", 20, 10, seed) for seed in range(3)]
    mean = 100 * np.mean([np.load(file)["new"].mean() for file in files])
    assert f"| {mean:.1f} (" in ridge
    gain = next(line for line in lines if line.startswith("| aligned, unlabelled | 20 | 1 | 1 |"))
    assert f"| {-100 * plain['new'].mean():.1f} (" in gain and "| 0.0 (0.0 to 0.0) |" in gain
    table = pd.read_csv(tmp_path / "new_classes.csv")
    assert len(table) == 2 * 3 * 7 * 7 + 1 and table["new"].between(0, 100).all()
    assert "<svg" in figure.read_text()


def test_the_study_of_new_classes_rounds_to_fp16():
    tensor = np.random.default_rng(0).standard_normal(100).astype(np.float32) * 1e6
    found = new_classes.fp16(tensor)
    assert found.dtype == np.float32 and (found != tensor).any()
    np.testing.assert_allclose(found, tensor, rtol=2**-10)


def test_load_counts_what_snakemake_plans():
    table = load.main(["--jobs", "40"])
    assert table["what"].tolist() == ["grid", "snakemake -n"]
    assert set(table["jobs"]) == {2 * load.PER_SEED + load.SHARED}
    assert (table["CPU ms/job"] >= 0).all()


@pytest.mark.nightly
def test_the_gpu_proof_runs_to_its_end_without_a_card(tmp_path):
    assert gpu_proof.main(["--device=cpu", "--small", f"--output={tmp_path}"]) == 0
    written = json.loads((tmp_path / "report.json").read_text())
    sections = {section["section"]: section for section in written["sections"]}
    assert list(sections) == list(gpu_proof.SECTIONS)
    assert {section["result"] for section in sections.values()} == {"passed"}
    tests = sections["GPU tests"]["rows"]
    assert len(tests) > 20 and {test["result"] for test in tests} == {"skipped"}
    assert [row["apart"] for row in sections["agreement"]["rows"]] == [0, 0]  # eager and eager
    learnt = sections["learning"]["rows"]
    assert [row["learner"] for row in learnt] == ["vit_micro", "vit_nano"]
    assert all(row["fp32 eager, %"] == row["fp32 graph, %"] > 10 for row in learnt)
    printed = (tmp_path / "report.md").read_text()
    assert all(f"## {name}" in printed for name in sections)
    assert "Small: the numbers say nothing" in printed


def test_a_section_that_fails_is_reported_and_the_others_still_run(tmp_path, monkeypatch, capsys):
    def breaks(proof):
        raise ValueError("broken | pipe")

    def absent(proof):
        raise gpu_proof.Skipped("nothing there")

    sections = {
        "breaks": breaks,
        "absent": absent,
        "wrong": lambda proof: [{"ok": True}, {"ok": False}],
        "grid cost": gpu_proof.whole_grid,  # without the steps
        "last": lambda proof: [{"x": 1234.5, "y": None}],
    }
    given = ["--device=cpu", "--small", f"--output={tmp_path}"]
    monkeypatch.setattr(gpu_proof, "SECTIONS", sections)
    assert gpu_proof.main(given) == 1
    assert "Traceback" in capsys.readouterr().err
    written = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert {section["section"]: section["result"] for section in written} == {
        "breaks": "failed",
        "absent": "skipped",
        "wrong": "failed",
        "grid cost": "failed",
        "last": "passed",
    }
    reasons = [section["reason"] for section in written]
    assert reasons[:3] == ["ValueError: broken | pipe", "nothing there", "1 of 2 rows are not ok"]
    assert "needs the rows of the section 'steps'" in reasons[3]
    _, rows = cells((tmp_path / "report.md").read_text())
    assert rows[0][:3] == ["breaks", "failed", "ValueError: broken pipe"]
    assert "| 1,234 | -   |" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(gpu_proof, "SECTIONS", {"absent": absent, "last": sections["last"]})
    assert gpu_proof.main(given) == 0


def test_the_gpu_proof_wants_a_card_or_small_sizes(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        gpu_proof.main(["--device=cpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CdlError, match="compute.device: invalid value 'cuda'; torch .* 0 CUDA"):
        gpu_proof.main([f"--output={tmp_path / 'none'}"])
    assert not (tmp_path / "none").exists()


def test_the_gpu_proof_learns_real_images_if_they_are_there(tmp_path, monkeypatch):
    proof = gpu_proof.Proof("cuda", small=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gpu_proof.Skipped, match="no train.*.parquet in data/cifar100"):
        gpu_proof._study(proof)
    gpu_proof.CIFAR100.mkdir(parents=True)
    for split in ("train", "test"):
        (gpu_proof.CIFAR100 / f"{split}.parquet").touch()

    def pair():
        files, changes = gpu_proof._study(proof)
        overlay = {"compute": {"precision": "bf16", "capture": True}}
        grid = Grid(resolve(reduce(merge, [*map(read, files), changes, overlay])))
        assert grid.source("cifar100")["source"]["path"] == str(tmp_path / gpu_proof.CIFAR100)
        assert [(run.role, run.distiller.name) for run in grid.runs] == [
            ("teacher", "none"),
            ("student", "none"),
            ("student", "kd_prompt"),
        ]
        return grid.runs[-1].teacher, grid.runs[-1].backbone

    assert pair() == ("vit_micro", "vit_nano")
    for path in gpu_proof.PAIR.values():
        path.parent.mkdir(exist_ok=True)
        shutil.copy(backbone_file("vit_micro_patch4_32", 32, tmp_path), path)
    assert pair() == ("vit_small", "vit_tiny")


def test_a_missed_target_is_told(monkeypatch):
    columns = {"recipe": "ours, cached", "ms/step": 1.0}
    student = columns | {"stage": "student", "ratio": 31.0, "img/s": 9000.0}
    teacher = columns | {"stage": "teacher", "ratio": 14.0, "img/s": 6000.0}
    found = {"steps": [student, teacher], "grid cost": [{"ours, h": 9.0}, {"ours, h": 1.4}]}
    rows = gpu_proof.targets(gpu_proof.Proof("cpu", True, found))
    assert [row.get("reached") for row in rows] == [True, False, False, True, True, None]
    assert "timed on an H100 only" in rows[-1]["target"]


def test_kernels_are_compared_with_the_choice_for_this_cpu(capsys):
    kernels.main(["--small", "--turns", "1"])
    text = capsys.readouterr().out
    assert "fp32 torch" in text and "bf16 products" in text
    assert f"chooses {chosen_kernels().attention}" in text


@pytest.mark.nightly
def test_the_parts_of_a_step_cover_all_of_its_time(capsys):
    parts.main([*ARGUMENTS, "--threads=1"])
    tables = capsys.readouterr().out.split("cached\n")[1:]
    assert len(tables) == 2
    for table in tables:
        rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
        found = {name.strip(): float(share) for name, share, _ in rows}
        assert set(found) == {*parts.KINDS, parts.REST}
        assert sum(found.values()) == pytest.approx(100, abs=1)
        assert found["linear layers"] > 0
