"""Cases of complete training runs of teacher and student on given batches."""

from collections.abc import Callable
from typing import Any

import torch
from common import Config, Kinds, Result, Tensors, below, floats, load, vit
from loss_cases import dkd_weights
from torch import Tensor

from cdl.backbones.images import FrozenViT
from cdl.backbones.shape import BackboneShape
from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.distillers.none import NoDistillation
from cdl.models.build import build
from cdl.models.learner import Learner
from cdl.models.teacher import Teacher
from cdl.spec import Distiller, Method
from cdl.training.loop import train_task

_METHODS: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "L2P": ("l2p", lambda c: {k: c[k] for k in ("pool", "length", "top_k", "layers")}),
    "DualPrompt": (
        "dual_prompt",
        lambda c: {
            **{k: c[k] for k in ("pool", "length", "top_k", "g_length", "g_layers", "e_layers")},
            "dual_candidates": "all",
        },
    ),
    "CODAPrompt": (
        "coda_prompt",
        lambda c: {
            **{k: c[k] for k in ("pool", "length", "layers")},
            "ortho_weight": c["ortho_mu"],
            "coda_growth": "gram_schmidt",
        },
    ),
    "APT": ("apt", lambda c: {"ema": c["ema_coeff"]}),
}
_DISTILLERS = {
    "none": "none",
    "KD": "kd",
    "DKD": "dkd",
    "FitNets": "fitnets",
    "ReviewKD": "reviewkd",
    "KD_Token": "kd_prompt",
}


def _distiller_options(config: Config) -> dict[str, Any]:
    name = _DISTILLERS[config["distillation"]]
    options: dict[str, Any] = {"name": name}
    if name != "none":
        options["alpha"] = config["alpha"]
    if name not in ("none", "dkd"):  # dkd has its own temperature
        options["temperature"] = config["temperature"]
    if name == "dkd":
        options |= dkd_weights(config)
    if name in ("fitnets", "reviewkd") and "feature_factor" in config:
        options["feature_weight"] = config["feature_factor"]
    if name == "kd_prompt":
        options |= {k: config[k] for k in ("kd_layers", "kd_length")}
    return options


_EXTRAS = {  # golden name: name in the product
    "head.": "head.linear.",
    "kd_head.": "distiller.kd_head.linear.",
    "kd_token": "distiller.kd_token",
    "kd_prompts": "distiller.kd_prompts",
    "feature_proj.": "distiller.proj.",
    "review.": "distiller.units.",
}


def _product_name(golden: str, method: str) -> str:
    for start, ours in _EXTRAS.items():
        if golden.startswith(start):
            return ours + golden[len(start) :]
    return ("prompts.pool." if method == "coda_prompt" else "prompts.") + golden


def _learner(
    role: str, config: Config, tensors: Tensors, backbones: dict[str, FrozenViT]
) -> Learner:
    name, options = _METHODS[config["method"]]
    student = role == "student"
    learner = build(
        backbone=backbones[role],
        query_width=config["d_query"],
        method=Method(name, options(config)),
        distiller=Distiller.from_json(_distiller_options(config) if student else {"name": "none"}),
        n_classes=config["classes_total"],
        n_tasks=config["n_tasks"],
        keys=("golden",),
        teacher=BackboneShape(backbones["teacher"].width, backbones["teacher"].depth)
        if student
        else None,
    )
    golden = below(tensors, f"param.{role}.")
    missing = {_product_name(k, name) for k in golden} - set(learner.state())
    deepest = f"distiller.units.{backbones['student'].depth - 1}."
    unused = {f"{deepest}norm2.weight", f"{deepest}norm2.bias"}
    assert missing <= unused, missing
    state = {_product_name(k, name): t for k, t in golden.items()}
    load(learner, {k: t for k, t in state.items() if k not in unused})
    return learner


def _redraw(learner: Learner, drawn: Tensors, task: int) -> None:
    """Use given components instead of those drawn by `start_task`."""
    for name, rows in drawn.items():
        pool = learner.prompts.pool
        start = task * pool.per_task
        with torch.no_grad():
            getattr(pool, name)[:, start : start + pool.per_task] = rows


def _train_trace(config: Config, tensors: Tensors) -> Result:
    tensors = floats(tensors)
    backbones = {
        role: FrozenViT(
            vit(config[role], config, below(tensors, f"{role}.")), [0.0] * 3, [1.0] * 3, role
        )
        for role in ("teacher", "student")
    }
    learners = {role: _learner(role, config, tensors, backbones) for role in backbones}
    query = backbones["student"].query
    test = tensors["in.images_test"]
    result: Result = {"out.query_test": query(test)}
    curves: dict[str, list[list[float]]] = {
        name: [] for name in ("teacher_loss", "student_loss", "soft_loss", "feature_loss")
    }
    apt = config["method"] == "APT"
    for task in range(config["tasks_run"]):
        start = sum(config["task_sizes"][:task])
        classes = slice(start, start + config["task_sizes"][task])
        images, labels = tensors[f"in.images_task{task}"], tensors[f"in.targets_task{task}"]
        steps = config["steps_per_epoch"]

        def batches(epoch: int, images: Tensor = images, labels: Tensor = labels, n: int = steps):
            for x, y in zip(images[:n], labels[:n], strict=True):
                yield Batch(x, y, epoch, torch.empty(0, dtype=torch.int64))

        training = {
            "query": lambda batch: query(batch.views),
            "task": task,
            "classes": classes,
            "epochs": config["epochs"],
            "lr": config["lr"],
            "betas": tuple(config["betas"]),
            "schedule": "constant" if config["lr_schedule"] == "constant" else "cosine_lagged",
        }
        for role, learner in learners.items():
            _redraw(learner, below(tensors, f"param.redraw_task{task}.{role}."), task)
        teacher, student = learners["teacher"], learners["student"]
        teacher.requires_grad_(True).backbone.requires_grad_(False)
        if apt:
            teacher.head.norm.requires_grad_(False)
        history = train_task(teacher, batches, teacher=None, **training)
        curves["teacher_loss"].append(_total(history))
        teacher.end_task(task)
        merged = None
        if apt:
            # as released: the student is distilled from the teacher with the previous merge
            merged = teacher.prompts.merged.clone()
            teacher.prompts.undo_merge()
        guide = Teacher(teacher)
        outputs = [guide(x, query(x), task, classes, False).logits for x in images[:steps]]
        outputs *= config["epochs"]  # every epoch uses the same stored batches
        result[f"out.teacher_current_logits_task{task}"] = torch.stack(outputs)
        distilled = not isinstance(student.distiller, NoDistillation)

        blocks = student.compared_blocks

        def signal(batch: Batch, q: Tensor, read=(guide, task, classes, blocks)) -> TeacherOutput:
            return read[0](batch.views, q, *read[1:])

        history = train_task(student, batches, teacher=signal if distilled else None, **training)
        student.end_task(task)
        if apt:
            teacher.prompts.merged.copy_(merged)
            for role, learner in learners.items():
                result[f"out.{role}_merged_task{task}"] = learner.prompts.merged.clone()
        curves["student_loss"].append(_total(history))
        for part in ("soft", "feature"):
            values = history[part].tolist() if part in history else [0.0] * len(history)
            curves[f"{part}_loss"].append(values)
        for role, learner in learners.items():
            learner.eval()
            with torch.no_grad():
                output = learner(test, query(test), task)
                logits = learner.predict(output, classes.stop)
            result[f"out.eval_logits_{role}_task{task}"] = logits
    for name, values in curves.items():
        result[f"out.{name}"] = torch.tensor(values, dtype=torch.float32)
        for task, line in enumerate(values):
            result |= {f"steps.{task}.{name}.{i}": value for i, value in enumerate(line)}
    return result


def _total(history: Any) -> list[float]:
    return history.drop(columns=["task", "epoch", "learning_rate"]).sum(axis=1).tolist()


KINDS: Kinds = {"train_trace": _train_trace}
