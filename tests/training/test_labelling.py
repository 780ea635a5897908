"""Classes of images without a label, in heads that are computed in closed form."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lab import make_grid
from torch.nn import functional as F

from cdl.data.labels import UNLABELLED
from cdl.data.stream import Stream
from cdl.methods.heads import PrototypeHead
from cdl.reporting.runs import results_of
from cdl.runtime import artifacts
from cdl.spec import Labelling
from cdl.study.configuration import ConfigError
from cdl.study.inputs import Inputs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row
from cdl.training import align_task, solving
from cdl.training.answers import TeacherAnswers
from cdl.training.features import Features

FEW = {"datasets": {"digits": {"labels": {"per_class": 3}}}}
QUICK = {"preset": "slca", "statistic": "centroid", "epochs": 2, "samples": 8}
SIZES, WIDTH, RIDGE = (3, 2), 4, 8  # RIDGES[8] is 1
WORDS = ["own", "self", "nearest", "teacher"]


class Task:
    """Overlapping classes of a task; a third of the images has a label."""

    def __init__(self, task):
        source = torch.Generator().manual_seed(task)
        self.classes = Stream(tuple(range(5)), SIZES).classes(task)
        self.true = torch.arange(self.classes.start, self.classes.stop).repeat_interleave(12)
        self.seen, n = self.classes.stop, len(self.true)
        centres = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(9))
        self.rows = centres[self.true] + 0.8 * torch.randn(n, WIDTH, generator=source)
        self.known = torch.arange(n) % 3 == 0
        self.labels = torch.where(self.known, self.true, UNLABELLED)
        logits = F.one_hot(self.true, self.seen) + torch.randn(n, self.seen, generator=source)
        self.teacher = logits


def learnt(monkeypatch, how, ridge, labels=None):
    """Solve for both tasks; return the head and what is returned for each task."""
    head = PrototypeHead(WIDTH, 0, torch.Generator(), None, "ridge" if ridge else "mean")
    memory, found, stream = {}, [], Stream(tuple(range(5)), SIZES)
    monkeypatch.setattr(solving, "best_ridge", lambda *_: RIDGE)
    for number, size in enumerate(SIZES):
        task = Task(number)
        given = task.labels if labels is None else getattr(task, labels)
        context = SimpleNamespace(
            spec=SimpleNamespace(labelling=how, seed=0),
            task=number,
            stream=stream,
            labels=given,
            true_labels=task.true,
            indices=lambda _, task=task: (torch.arange(len(task.true)), torch.arange(0)),
        )

        def read(context, learner, images, rows=task.rows, given=given):
            return Features({0: rows[images]}, given[images])

        monkeypatch.setattr(solving, "read_features", read)
        head.grow(size, torch.Generator())
        columns = stream.columns(number, how.columns)
        teacher = TeacherAnswers(lambda t=task, c=columns: t.teacher[:, c], len(task.true))
        answers = teacher if how.by == "teacher" else None
        learner = SimpleNamespace(head=head)
        found.append(solving.solve_task(context, learner, None, answers, memory))
        memory = found[-1].memory
    return head.weight, found


def weights(rows, labels, seen, ridge):
    targets = F.one_hot(labels, seen).double()
    if ridge:
        return torch.inverse(rows.T @ rows + torch.eye(WIDTH)) @ rows.T @ targets
    return (targets / targets.sum(0)).T.matmul(rows).T


def expected(how, ridge):
    """Weights, and counts of assigned and right classes of both tasks, all images kept in lists."""
    rows, labels = torch.zeros(0, WIDTH).double(), torch.zeros(0, dtype=torch.int64)
    sure, counts = (rows, labels), []
    for task in map(Task, range(len(SIZES))):
        new, known = task.rows.double(), task.known
        sure = torch.cat([sure[0], new[known]]), torch.cat([sure[1], task.true[known]])
        if how.by == "nearest":
            scores = -(new[:, None] - weights(*sure, task.seen, False).T).norm(dim=2)
        elif how.by == "teacher":
            scores = task.teacher.clone()
        else:
            seen = torch.cat([rows, new[known]]), torch.cat([labels, task.true[known]])
            scores = new @ F.normalize(weights(*seen, task.seen, ridge), dim=0)
            if ridge:
                scores = new @ weights(*seen, task.seen, ridge)
        if how.columns is None:
            scores[:, : task.classes.start] = -torch.inf
        answers = torch.where(known, task.true, scores.argmax(1))
        used = known if how.by == "own" else torch.ones_like(known)
        counts.append((int((used & ~known).sum()), int(((answers == task.true) & ~known).sum())))
        used = used & (answers >= task.classes.start)
        rows, labels = torch.cat([rows, new[used]]), torch.cat([labels, answers[used]])
    return weights(rows, labels, task.seen, ridge).T, counts, len(rows)


@pytest.mark.parametrize("ridge", [True, False], ids=["ridge", "means"])
@pytest.mark.parametrize("columns", [None, "seen"])
@pytest.mark.parametrize("by", WORDS)
def test_images_without_a_label_count_for_the_class_that_the_option_names(
    monkeypatch, by, columns, ridge
):
    how = Labelling(by, columns)
    weight, found = learnt(monkeypatch, how, ridge)
    wanted, counts, used = expected(how, ridge)
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-4, atol=1e-4)
    for task, (given, right) in zip(found, counts, strict=True):
        own = {"pseudo_labels": given, "pseudo_labels_right": right if by != "own" else 0}
        assert task.assigned == own
    assert sum(task.solves[-1] for task in found) == used
    assert (used < 60) == (by == "own" or columns == "seen")  # some are left out
    kept = "feature.mean" in found[-1].memory
    assert kept == (by == "nearest" and columns == "seen")


@pytest.mark.parametrize("by", WORDS)
def test_nothing_changes_if_every_image_has_a_label(monkeypatch, by):
    plain, _ = learnt(monkeypatch, Labelling("own"), True, "true")
    for columns in (None, "seen"):
        weight, found = learnt(monkeypatch, Labelling(by, columns), True, "true")
        assert torch.equal(weight, plain)
        assert found[-1].assigned["pseudo_labels"] == 0


def entry(labels, method="ranpac", classes="task"):
    options = {"labels": labels, "label_classes": classes}
    variant = f"{labels}_{classes}"
    return {"block": "none", "variant": variant, "methods": {method: options}}


def solved(*entries, method="ranpac", **changes):
    own = {"ranpac": {"projection": 64, "logit_scale": 10.0}} if method == "ranpac" else {}
    grid = {"methods": [method], "distillers": ["none", *entries]}
    return FEW | {"methods": own, "grid": grid} | changes


def variant(here, name):
    return next(run for run in here.grid.runs if run.distiller.variant == name)


def test_a_ridge_learns_the_teachers_classes_from_a_cache_or_from_the_teacher_itself(lab):
    weights, accuracies = [], []
    taught = entry("teacher", classes="seen")
    for name, compute in (
        ("cached", {"targets": "cached", "targets_dtype": "float32"}),
        ("online", {"targets": "online"}),
    ):
        here = lab(solved(taught, name=name, compute=compute))
        run = variant(here, "teacher_seen")
        here.learn_all(run)
        state, record = artifacts.load(here.checkpoint(run, 1))
        weights.append(state["head.weight"])
        teacher = artifacts.load(here.checkpoint(here.grid.teacher_of(run), 1))[1]
        assert record["inputs"]["teacher"] == teacher["sha256"]
        assert (record["work"]["answers"] > 0) == (name == "cached")
        results, _ = here.evaluate(run)
        table, _ = results_of([row(here.grid, run) | {"protocol": {}}], [results])
        accuracies.append(float(table["pseudo_label_accuracy"][0]))
        assert results["seen"]["pseudo_labels"] == results["seen"]["unlabelled"] == 10 * (16 - 3)
    assert torch.equal(*weights)
    assert accuracies[0] == accuracies[1] and 0 < accuracies[0] < 100


def test_a_teacher_that_labels_images_has_no_part_in_the_first_session(lab):
    session = {"first_session": "ssf", "projection": 16}
    here = lab(solved(entry("teacher"), methods={"ranpac": session}))
    states = []
    for run in (here.student("none"), variant(here, "teacher_task")):
        teacher = here.grid.teacher_of(run)
        for learner in filter(None, (teacher, run)):
            here.learn(learner, 0)
        states.append(artifacts.load(here.checkpoint(run, 0))[0])
    modules = [name for name in states[0] if name.startswith("prompts.module")]
    assert modules and all(torch.equal(states[0][name], states[1][name]) for name in modules)
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def aligned_entry(labels, **more):
    own = {"labels": labels, "label_classes": "seen", **more}
    return {"block": "none", "variant": labels, "alignment": own}


def test_aligned_heads_choose_among_all_classes_seen(lab, monkeypatch):
    captured, choose = [], align_task.labels_of

    def labels_of(*given, **more):
        captured.append((given[2], choose(*given, **more)))
        return captured[-1][1]

    monkeypatch.setattr(align_task, "labels_of", labels_of)
    entries = [aligned_entry("self"), aligned_entry("nearest")]
    entries.append(aligned_entry("teacher", answers="test"))
    method = {"block": "head_only", "variant": "aligned", "alignment": QUICK}
    here = lab(FEW | {"grid": {"methods": [method], "distillers": ["none", *entries]}})
    for task in (0, 1):
        here.learn(here.run(role="teacher"), task)
        here.learn(here.student("none"), task)
    trained = artifacts.load(here.trained(here.student("none"), 1))[0]
    for name in ("self", "nearest", "teacher"):
        run = variant(here, name)
        for task in (0, 1):
            here.align(run, task)
        features, found = captured[-1]
        tokens, known = features.tokens[0], features.labels != UNLABELLED
        first, last = (artifacts.load(here.checkpoint(run, task)) for task in (0, 1))
        if name == "self":
            scores = tokens @ trained["head.linear.weight"].T + trained["head.linear.bias"]
        elif name == "nearest":
            own = [tokens[features.labels == c].mean(0) for c in range(6, 10)]
            means = torch.cat([first[0]["memory.feature.mean"], torch.stack(own)])
            scores = -(tokens[:, None] - means).norm(dim=2)
        else:
            targets = here.align_inputs(run, 1)["targets"]
            assert Path(targets).name == "targets_test_seen.safetensors"
            scores = artifacts.load(targets)[0]["values"][0].float()
        assert scores.shape[1] == 10
        assert torch.equal(found, torch.where(known, features.labels, scores.argmax(1)))
        kept = found[found >= 6]
        assert len(kept) < len(found)  # some get a class of an earlier task
        assert last[1]["counts"] == kept.bincount(minlength=10)[6:].tolist()
        assert last[1]["seen"]["pseudo_labels"] == int((~known).sum())
        earlier, mean = first[0]["memory.feature.mean"], last[0]["memory.feature.mean"]
        assert torch.equal(mean[:6], earlier)
        own = [tokens[found == c].double().mean(0) for c in range(6, 10)]
        torch.testing.assert_close(mean[6:], torch.stack(own).float())


def test_a_solve_reads_the_teachers_logits_that_its_options_name():
    entries = [entry("teacher"), entry("teacher", classes="seen"), entry("nearest"), "kd"]
    made = make_grid(solved(*entries))
    runs = {run.distiller.label: run for run in made.runs if run.role == "student"}
    assert runs["none+nearest_task"].teacher is None and runs["none"].teacher is None
    assert all(made.trained(run) == run for run in runs.values())
    assert {label: run.rule for label, run in runs.items() if run.teacher} == {
        "none+teacher_task": "distil",
        "none+teacher_seen": "distil",
        "kd": "distil",
    }
    read = {
        job.key["learner"].split("-")[0]: Path(job.inputs["targets"]).name
        for job in LearningJobs(made)
        if "targets" in job.inputs
    }
    assert read == {
        "none+teacher_task": "targets.safetensors",
        "none+teacher_seen": "targets_seen.safetensors",
        "kd": "targets.safetensors",
    }
    inputs = Inputs(made).learning(runs["none+teacher_task"], 0)
    assert list(inputs["backbones"]) == ["vit_nano"] and "teacher" not in inputs


@pytest.mark.parametrize("method", ["ranpac", "simple_cil", "fecam"])
def test_labels_that_a_distiller_would_overrule_are_refused(method):
    options = {"block": method, "variant": "near", "labels": "nearest"}
    with pytest.raises(ConfigError) as error:
        make_grid(FEW | {"grid": {"methods": [options], "distillers": ["none", "kd"]}})
    assert str(error.value) == (
        f"methods.{method}+near.labels: invalid value 'nearest'; expected null: distillers.kd "
        "gives the targets; list the combination in grid.exclude"
    )
    changes = FEW | {"grid": {"methods": [options], "distillers": ["none"]}}
    assert make_grid(changes).runs
    assert make_grid(changes | {"datasets": {"digits": {}}}).runs  # every image has a label
    wide = {"block": method, "variant": "wide", "label_classes": "seen"}
    with pytest.raises(ConfigError, match=r"label_classes: invalid value 'seen'; expected task: "):
        make_grid(FEW | {"grid": {"methods": [wide], "distillers": ["kd"]}})


def test_teachers_have_no_labels_of_a_teacher_and_a_pair_without_one_neither():
    options = {"block": "ranpac", "variant": "taught", "labels": "teacher"}
    right = r"methods\.ranpac\+taught\.labels: invalid value 'teacher', since teachers have no "
    with pytest.raises(ConfigError, match=right + r".*methods: {ranpac: {labels: teacher}} in an"):
        make_grid(FEW | {"grid": {"methods": [options], "distillers": ["none"]}})
    alone = solved(entry("teacher"))
    alone["grid"]["pairs"] = [{"teacher": None, "student": "vit_nano"}]
    with pytest.raises(ConfigError, match=r"grid\.pairs\.teacher: invalid value null"):
        make_grid(alone)
