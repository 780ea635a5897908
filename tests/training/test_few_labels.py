"""Learning from few labels: unlabelled images are used in the soft loss, without labels."""

import pytest
import torch
from torch.nn import functional as F
from toys import TASKS, batch, pair

from cdl.data.labels import UNLABELLED, learnt_from
from cdl.data.packed import Packed
from cdl.data.stream import Stream
from cdl.distillers.base import TeacherOutput
from cdl.distillers.dkd import dkd_terms
from cdl.distillers.kd import kd_loss
from cdl.runtime import artifacts
from cdl.training import context as task_context

LABELLED = 2


def losses(toy_backbone, distiller, **options):
    """Return losses of a batch with two labelled images, task and soft logits, labels, teacher."""
    student, teacher = pair(toy_backbone, "l2p", distiller, options.items())
    images, labels = batch(5)
    query = student.backbone.query(images)
    taught = teacher(images, query, 0, TASKS[0])
    output = student(images, query, 0, taught.query)
    found = student.losses(output, taught, labels[:LABELLED], TASKS[0])
    soft = student.distiller.soft_logits(output)[:, TASKS[0]]
    return found, output.logits[:, TASKS[0]], soft, labels, taught.logits


@pytest.mark.parametrize("distiller", ["kd", "kd_prompt", "cdl_prompt"])
def test_cross_entropy_counts_labelled_images_and_the_soft_loss_all(toy_backbone, distiller):
    found, logits, soft, labels, teacher = losses(toy_backbone, distiller)
    cross_entropy = F.cross_entropy(logits[:LABELLED], labels[:LABELLED])
    torch.testing.assert_close(found["ce"], 0.5 * cross_entropy)
    torch.testing.assert_close(found["soft"], 0.5 * kd_loss(soft, teacher, 2.0))


def test_dkd_takes_the_teachers_class_where_there_is_no_label(toy_backbone):
    found, _, soft, labels, teacher = losses(toy_backbone, "dkd")
    targets = torch.cat([labels[:LABELLED], teacher[LABELLED:].argmax(1)])
    assert not torch.equal(targets, labels)
    target, others = dkd_terms(soft, teacher, targets, 4.0)
    torch.testing.assert_close(found["soft"], 0.5 * (target + 4 * others))


@pytest.mark.parametrize("distiller", ["kd", "dkd", "kd_prompt"])
@pytest.mark.parametrize("standardize", [False, True])
def test_the_soft_loss_counts_what_the_teacher_is_sure_of(toy_backbone, distiller, standardize):
    student, _ = pair(toy_backbone, "l2p", distiller, {"standardize": standardize}.items())
    images, labels = batch(5)
    output = student(images, student.backbone.query(images), 0)
    logits = torch.randn(5, 4, generator=torch.manual_seed(1))
    sure = logits.softmax(1).amax(1) > 0.5
    assert 0 < sure.sum() < 5

    def soft(rows, given):
        chosen = type(output)(output.logits[rows], output.tokens[rows], (), {})
        taught = TeacherOutput(given[rows], None)
        return student.losses(chosen, taught, labels[rows], TASKS[0])["soft"]

    expected = soft(sure, logits) * sure.sum() / 5
    student.distiller.confidence = 0.5
    torch.testing.assert_close(soft(torch.ones(5, dtype=torch.bool), logits), expected)


def few(**options):
    return {"datasets": {"digits": {"labels": {"per_class": 2}, **options}}}


UNLABELLED_DATA = {"source": {"digits": {"test_images": 1767}}}  # leaves 30 training images
ALIGNED = {"coda_prompt": {"alignment": {"preset": "slca"}}}
RANPAC = {"ranpac": {"projection": 64, "logit_scale": 10.0}}
SEEN = {"label_classes": "seen"}
HEADS = {"preset": "slca", "statistic": "centroid", "epochs": 2, "samples": 8, **SEEN}


def solved(labels):
    options = {"ranpac": {"labels": labels, **SEEN}}
    return {"block": "none", "variant": labels, "methods": options}


def aligned(labels):
    return {"block": "none", "variant": labels, "alignment": {"labels": labels, **SEEN}}


OPEN = {**few(), "methods": RANPAC}
ALIGNED_OPEN = {**few(), "methods": {"head_only": {"alignment": HEADS}}}
CASES = {
    "taught": (few(), "dkd", "coda_prompt"),
    "unlabelled images": (
        few(unlabelled={**UNLABELLED_DATA, "tasks": "cut"}),
        "kd",
        "coda_prompt",
    ),
    "aligned": ({**few(teacher_labels="all"), "methods": ALIGNED}, "kd_prompt", "coda_prompt"),
    "aligned alone": ({**few(), "methods": ALIGNED}, "none", "coda_prompt"),
    "solved": ({**few(unlabelled=UNLABELLED_DATA), "methods": RANPAC}, "kd", "ranpac"),
    "solved alone": (OPEN, "none", "ranpac"),
    **{f"solved by {by}": (OPEN, solved(by), "ranpac") for by in ("self", "nearest", "teacher")},
    **{
        f"aligned by {by}": (ALIGNED_OPEN, aligned(by), "head_only")
        for by in ("self", "nearest", "teacher")
    },
}


def with_grid(changes, distiller, method):
    return {**changes, "grid": {"methods": [method], "distillers": [distiller]}}


def learnt(here, distiller, tasks=1):
    """Return a student after its first tasks."""
    run = here.student(distiller)
    for learner in filter(None, (here.grid.teacher_of(run), run)):
        for task in range(tasks):
            here.learn(learner, task)
    return run


@pytest.mark.parametrize("case", CASES)
def test_wrong_labels_of_unlabelled_images_change_nothing(lab, case, monkeypatch):
    """The task's images and known labels are fixed; then all labels on disk are changed."""
    states, known, members, planting = [], {}, {}, False
    known_labels, task_indices = task_context.known_labels, Stream.indices
    open_packed = Packed.__init__

    def choose(labels, given, *keys):
        return known.setdefault((len(labels), given is None), known_labels(labels, given, *keys))

    def indices(self, data, task, n):
        return members.setdefault(task, task_indices(self, data, task, n))

    def plant(self, folder, split):
        open_packed(self, folder, split)
        if planting:
            self.labels = (self.labels + 1) % 10

    monkeypatch.setattr(task_context, "known_labels", choose)
    monkeypatch.setattr(Stream, "indices", indices)
    monkeypatch.setattr(Packed, "__init__", plant)
    changes, distiller, method = CASES[case]
    for planting in (False, True):
        here = lab(with_grid({**changes, "name": f"planted{planting}"}, distiller, method))
        open_labels = isinstance(distiller, dict)  # then earlier classes count, too
        run = learnt(here, distiller["block"] if open_labels else distiller, 1 + open_labels)
        states.append(artifacts.load(here.checkpoint(run, int(open_labels)))[0])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_without_a_teacher_no_image_without_a_label_is_read():
    labels = torch.tensor([3, UNLABELLED, 0, UNLABELLED])
    assert learnt_from(labels, taught=False).tolist() == [0, 2]
    assert learnt_from(labels, taught=True).tolist() == [0, 1, 2, 3]


def test_a_teacher_may_have_seen_all_labels(lab):
    found = {}
    for labels in ("same", "all"):
        changes = few(teacher_labels=labels)
        here = lab(with_grid({**changes, "name": labels}, "kd", "coda_prompt"))
        run = learnt(here, "kd")
        found[labels] = artifacts.load(here.checkpoint(here.grid.teacher_of(run), 0))[0]
    here = lab({"name": "plain"})
    teacher = here.run(role="teacher")
    here.learn(teacher, 0)
    plain = artifacts.load(here.checkpoint(teacher, 0))[0]
    assert all(torch.equal(tensor, plain[name]) for name, tensor in found["all"].items())
    assert not torch.equal(found["same"]["head.linear.weight"], plain["head.linear.weight"])


def test_caches_equal_the_models_outputs(lab):
    heads = []
    for name, compute in (
        ("cached", {"targets": "cached", "targets_dtype": "float32"}),
        ("online", {"targets": "online"}),
    ):
        here = lab(
            with_grid({**few(), "name": name, "compute": compute}, "kd_prompt", "coda_prompt")
        )
        run = learnt(here, "kd_prompt")
        heads.append(artifacts.load(here.checkpoint(run, 0))[0]["head.linear.weight"])
    torch.testing.assert_close(*heads)


@pytest.mark.parametrize("tasks", ["every", "cut"])
def test_only_distilled_students_read_unlabelled_images(lab, tasks):
    unlabelled = {**UNLABELLED_DATA, "tasks": tasks}
    changes = {"datasets": {"digits": {"unlabelled": unlabelled, "teacher_labels": "all"}}}
    here = lab(with_grid(changes, "kd", "coda_prompt"))
    run = learnt(here, "kd")
    targets = artifacts.load(here.task_inputs(run, 0)["targets"])[0]["values"]
    assert targets.shape == (1, 6 * 16 + (30 if tasks == "every" else 15), 6)
    teacher = here.grid.teacher_of(run)
    assert here.spec(teacher).unlabelled is None
    read = artifacts.read_json(here.checkpoint(run, 0).replace(".safetensors", ".json"))["inputs"]
    assert read["unlabelled"] != read["data"]
