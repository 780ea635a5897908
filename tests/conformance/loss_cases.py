"""Cases of the distillers' losses, the student's objective, and predictions."""

from dataclasses import replace

import torch
from common import (
    Config,
    Kinds,
    Result,
    Tensors,
    as_output,
    below,
    distiller_context,
    leaf,
    learner_of,
    load,
)
from torch import Tensor, nn

from cdl.backbones.shape import BackboneShape
from cdl.distillers.base import Output, TeacherOutput
from cdl.distillers.dist import DIST, dist_terms
from cdl.distillers.dkd import DKD, dkd_terms
from cdl.distillers.fitnets import FeatureDistiller, FitNets
from cdl.distillers.kd import KD
from cdl.distillers.kd_token import KDToken
from cdl.distillers.lwf import LwF
from cdl.distillers.reviewkd import ReviewKD
from cdl.distillers.se2d import SE2D
from cdl.methods.heads import LinearHead, NormalisedHead


def _loss_kd(config: Config, tensors: Tensors) -> Result:
    logits = leaf(tensors["in.student_logits"])
    distiller = KD(
        distiller_context(1, 1), alpha=config["alpha"], temperature=config["temperature"]
    )
    teacher = TeacherOutput(tensors["in.teacher_logits"], None)
    labels = torch.zeros(len(logits), dtype=torch.int64)
    soft = distiller(as_output(logits), teacher, labels, slice(0, logits.shape[1]))["soft"]
    soft.backward()
    return {"loss": soft.item(), "out.grad_student_logits": logits.grad}


def _soft(distiller: KD, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return the soft loss of all classes, a part of the student's objective."""
    given = TeacherOutput(teacher, None)
    return distiller(as_output(logits), given, labels, slice(0, logits.shape[1]))["soft"]


def _loss_kd_std(config: Config, tensors: Tensors) -> Result:
    logits, teacher = leaf(tensors["in.student_logits"]), tensors["in.teacher_logits"]
    distiller = KD(
        distiller_context(1, 1),
        temperature=config["temperature"],
        standardize=config["standardize"],
        soft_weight=1.0,
    )
    loss = _soft(distiller, logits, teacher, torch.zeros(len(logits), dtype=torch.int64))
    loss.backward()
    return {"loss": loss.item(), "out.grad_student_logits": logits.grad}


def _loss_dkd_std(config: Config, tensors: Tensors) -> Result:
    logits, teacher = leaf(tensors["in.student_logits"]), tensors["in.teacher_logits"]
    labels = tensors["in.targets"]

    def loss(**weights: float) -> Tensor:
        how = {name: config[name] for name in ("temperature", "standardize")}
        distiller = DKD(distiller_context(1, 1), soft_weight=1.0, **how, **weights)
        return _soft(distiller, logits, teacher, labels)

    total = loss(**dkd_weights(config))
    total.backward()
    return {
        "loss": total.item(),
        "target_part": loss(target_weight=1.0, non_target_weight=0.0).item(),
        "non_target_part": loss(target_weight=0.0, non_target_weight=1.0).item(),
        "out.grad_student_logits": logits.grad,
    }


def _loss_dist(config: Config, tensors: Tensors) -> Result:
    logits, teacher = leaf(tensors["in.student_logits"]), tensors["in.teacher_logits"]
    distiller = DIST(
        distiller_context(1, 1),
        temperature=config["tau"],
        inter_weight=config["beta"],
        intra_weight=config["gamma"],
        soft_weight=1.0,
    )
    loss = _soft(distiller, logits, teacher, torch.zeros(len(logits), dtype=torch.int64))
    loss.backward()
    inter, intra = dist_terms(logits.detach(), teacher, config["tau"])
    return {
        "loss": loss.item(),
        "inter": inter.item(),
        "intra": intra.item(),
        "out.grad_student_logits": logits.grad,
    }


def dkd_weights(config: Config) -> dict[str, float]:
    names = {"target_weight": "alpha_dkd", "non_target_weight": "beta_dkd"}
    return {ours: config[golden] for ours, golden in names.items() if golden in config}


def _loss_dkd(config: Config, tensors: Tensors) -> Result:
    logits, labels = leaf(tensors["in.student_logits"]), tensors["in.targets"]
    teacher, temperature = tensors["in.teacher_logits"], config["temperature"]
    distiller = DKD(distiller_context(1, 1), temperature=temperature, **dkd_weights(config))
    loss = distiller.soft_loss(logits, TeacherOutput(teacher, None), labels)
    loss.backward()
    target, rest = dkd_terms(logits.detach(), teacher, labels, temperature)
    return {
        "loss": loss.item(),
        "target_part": float(target),
        "non_target_part": float(rest),
        "out.grad_student_logits": logits.grad,
    }


def _loss_fitnets(config: Config, tensors: Tensors) -> Result:
    distiller = FitNets(
        distiller_context(config["d_student"], 1, BackboneShape(config["d_teacher"], 1)),
        feature_weight=config["factor"],
    )
    load(distiller, below(tensors, "param."))
    student = leaf(tensors["in.student_feature"])
    loss = distiller.feature_loss((student,), (tensors["in.teacher_feature"],))
    loss.backward()
    gradients = {f"out.grad_{n}": p.grad for n, p in distiller.named_parameters()}
    return {"loss": loss.item(), "out.grad_student_feature": student.grad, **gradients}


def _loss_reviewkd(config: Config, tensors: Tensors) -> Result:
    distiller = ReviewKD(
        distiller_context(
            config["d_student"],
            config["student_blocks"],
            BackboneShape(config["d_teacher"], config["teacher_blocks"]),
        ),
        feature_weight=config["factor"],
    )
    units = distiller.units
    unused = {f"{len(units) - 1}.norm2.{kind}" for kind in ("weight", "bias")}
    load(units, {k: t for k, t in below(tensors, "param.").items() if k not in unused})
    student = leaf(tensors["in.student_features"])
    blocks, teacher = tuple(student), tuple(tensors["in.teacher_features"])
    loss = distiller.feature_loss(blocks, teacher)
    loss.backward()
    gradients = {f"out.grad_{n}": p.grad for n, p in units.named_parameters()}
    return {
        "loss": loss.item(),
        "out.projected": torch.stack(distiller.project(blocks)).detach(),
        "out.grad_student_features": student.grad,
        **gradients,
    }


_GOLDEN_DISTILLERS = {
    "KD": KD,
    "DKD": DKD,
    "FitNets": FitNets,
    "ReviewKD": ReviewKD,
    "KD_Token": KDToken,
}


def _loss_student_total(config: Config, tensors: Tensors) -> Result:
    kind, tokens = _GOLDEN_DISTILLERS[config["kd_method"]], None
    options = {"alpha": config["alpha"], "temperature": config["temperature"]}
    if kind is DKD:  # dkd has its own temperature, independent of the case's
        options = {"alpha": config["alpha"], **dkd_weights(config)}
    distiller = kind(distiller_context(1, 1, BackboneShape(1, 1)), **options)
    logits = leaf(tensors["in.logits"])
    leaves = {"logits": logits}
    prompt = torch.tensor(config["prompt_loss"], requires_grad=True)
    feature = torch.tensor(config["feature_loss"], requires_grad=True)
    extra = {"feature": feature}
    if kind is KDToken:
        leaves["kd_logits"] = leaf(tensors["in.kd_logits"])
        tokens = leaves["kd_logits"][:, None]  # the KD head is replaced by the identity
    if issubclass(kind, FeatureDistiller):  # the case contains the loss, not the features
        distiller.feature_loss, extra = lambda student, teacher: feature, {}
    learner = learner_of(nn.Identity(), distiller)
    output = Output(logits, as_output(logits, tokens).tokens, (), {0: prompt})
    teacher = TeacherOutput(tensors["in.teacher_current_logits"], None)
    classes = slice(config["seen_before"], config["seen"])
    losses = learner.losses(output, teacher, tensors["in.targets"], classes) | extra
    total = sum(losses.values())
    total.backward()
    return {
        "total": total.item(),
        "soft": losses["soft"].item(),
        "grad_prompt_loss": float(prompt.grad),
        "grad_feature_loss": float(feature.grad),
        **{f"out.grad_{name}": leaf.grad for name, leaf in leaves.items()},
    }


def _loss_lwf(config: Config, tensors: Tensors) -> Result:
    logits, labels, known = (
        leaf(tensors["in.student_logits"]),
        tensors["in.targets"],
        config["known"],
    )
    distiller = LwF(
        distiller_context(1, 1), past_weight=config["lamda"], past_temperature=config["T"]
    )
    given = TeacherOutput(logits.new_zeros(len(logits), 0), None, past=tensors["in.old_logits"])
    losses = distiller(as_output(logits), given, labels, slice(known, logits.shape[1]))
    total = sum(losses.values())
    total.backward()
    return {
        "loss": total.item(),
        "ce": losses["ce"].item(),
        "kd": losses["past"].item() / config["lamda"],
        "out.grad_student_logits": logits.grad,
    }


def _loss_se2d(config: Config, tensors: Tensors) -> Result:
    logits, outside = leaf(tensors["in.student_logits"]), tensors["in.external"].bool()
    whole = config["method"] == "self_distillation"
    distiller = SE2D(
        distiller_context(1, 1),
        temperature=config["temperature"],
        past_weight=config["old_weight"],
        self_distillation=whole,
    )
    order = torch.argsort(outside.long(), stable=True)  # images without a label come last
    given = TeacherOutput(tensors["in.teacher_logits"][order], None)
    if config["has_old"]:
        given = replace(given, past=tensors["in.old_logits"][order])
    labels = torch.zeros(int((~outside).sum()), dtype=torch.int64)
    output = as_output(logits[order])
    losses = distiller(output, given, labels, slice(0, logits.shape[1]))
    total = losses["soft"] + losses["past"]
    total.backward()
    return {
        "loss": total.item(),
        "teacher_loss": losses["soft"].item(),
        "old_loss": losses["past"].item() / config["old_weight"],
        "out.grad_student_logits": logits.grad,
    }


def _predict(config: Config, tensors: Tensors) -> Result:
    kind = NormalisedHead if config["method"] == "apt" else LinearHead
    names = {"linear.": "head.", "norm.": "clf_norm."}

    def head(prefix: str) -> nn.Module:
        module = kind(config["dim"], config["classes_total"], torch.Generator())
        state = {}
        for ours, golden in names.items():
            given = below(tensors, f"param.{prefix}{golden}")
            state |= {ours + k: t for k, t in given.items()}
        load(module, state)
        return module

    context = distiller_context(config["dim"], 2, head=lambda generator: head("kd_"))
    if config["kd_method"] == "KD_Token":
        distiller = KDToken(context, alpha=config["alpha"])
    else:
        distiller = KD(context, alpha=config["alpha"])
    learner = learner_of(head(""), distiller)
    tokens = tensors["in.tokens"]
    with torch.no_grad():
        output = Output(learner.head(tokens[:, 0]), tokens, (), {})
        logits = learner.predict(output, config["seen"])
    return {"out.logits": logits, "out.prediction": logits.argmax(1)}


KINDS: Kinds = {
    "loss_kd": _loss_kd,
    "loss_kd_std": _loss_kd_std,
    "loss_dkd": _loss_dkd,
    "loss_dkd_std": _loss_dkd_std,
    "loss_dist": _loss_dist,
    "loss_fitnets": _loss_fitnets,
    "loss_reviewkd": _loss_reviewkd,
    "loss_lwf": _loss_lwf,
    "loss_se2d": _loss_se2d,
    "loss_student_total": _loss_student_total,
    "predict": _predict,
}
