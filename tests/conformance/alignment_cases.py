"""Cases of classifier alignment and RanPAC, which need only features."""

import torch
from common import Config, Kinds, Result, Tensors, below, load
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.device.aligning import mean_factors
from cdl.methods.heads import LinearHead, PrototypeHead
from cdl.training.alignment import SampledAlignment, align, alignment_loss, statistics_of
from cdl.training.ranpac import (
    RIDGES,
    accumulate,
    mean_weights,
    ridge_weights,
    validation_losses,
)


def _head(tensors: Tensors) -> nn.Module:
    n, width = tensors["param.weight"].shape
    head = LinearHead(width, n, torch.Generator())
    load(head.linear, below(tensors, "param."))
    return head


def _align_stats(config: Config, tensors: Tensors) -> Result:
    statistic = config["statistic"]
    found = statistics_of(tensors["in.features"], tensors["in.targets"], statistic)
    spread = "out.cov" if statistic == "covariance" else "out.var"
    return {"out.mean": found["mean"], spread: found["spread"]}


def _align_loss(config: Config, tensors: Tensors) -> Result:
    head, norm = _head(tensors), config["logit_norm"] or 0.0
    logits = head(tensors["in.samples"])
    seen = logits[:, : config["seen"]]
    loss = alignment_loss(seen, tensors["in.targets"], config["task_sizes"], norm)
    loss.backward()
    gradients = {f"out.grad_{name}": p.grad for name, p in head.linear.named_parameters()}
    return {"loss": loss.item(), "out.logits": logits.detach(), **gradients}


def _align_trace(config: Config, tensors: Tensors) -> Result:
    slca = config["method"] == "slca"
    how = SampledAlignment(
        kind="sampled",
        statistic=config["statistic"],
        samples=config["samples"],
        steps="seen" if slca else "earlier",
        mean_shrink=0.1 if slca else 0.0,
        logit_norm=config.get("logit_norm") or 0.0,
        optimizer=config["optimizer"],
        lr=config["lr"],
        momentum=config.get("momentum", 0.0),
        weight_decay=config["weight_decay"],
        epochs=config["epochs"],
        schedule="lagged_cosine" if config["method"] == "vq" else "cosine",
        next_task="aligned",
        label_classes="task",
        answers="train_views",
        drift="none",
    )
    spread = tensors["in.cov"] if how.statistic == "covariance" else tensors["in.var"]
    head, sizes = _head(tensors), config["task_sizes"]

    def draws(epoch: int) -> tuple[Tensor, Tensor]:
        return tensors["in.noise"][epoch], tensors["in.permutation"][epoch]

    losses = align(head, {"mean": tensors["in.mean"], "spread": spread}, sizes, how, draws)
    factors = {f"mean_factor.{i}": f for i, f in enumerate(mean_factors(how.mean_shrink, sizes))}
    trained = {f"out.{name}": p.detach() for name, p in head.linear.named_parameters()}
    return {"out.loss": losses, "last_loss": losses[-1, -1].item(), **trained, **factors}


def _ranpac(config: Config, tensors: Tensors) -> Result:
    mode, width = config["mode"], config["projection_dim"] or None
    prototypes = "mean" if mode == "ncm" else "ridge"
    n = config["classes_total"]
    head = PrototypeHead(config["dim"], n, torch.Generator(), width, prototypes)
    if width:
        head.projection.copy_(tensors["in.projection"])
    sums: Tensors = {}
    result: Result = {}
    for task in range(len(config["task_sizes"])):
        features = head.features(tensors[f"in.features_task{task}"])
        targets = F.one_hot(tensors[f"in.targets_task{task}"], n).to(features.dtype)
        sums = accumulate(sums, features, targets)
        if prototypes == "mean":
            head.weight.copy_(mean_weights(sums))
        else:
            losses = validation_losses(features, targets)
            ridge = RIDGES[int(losses.argmin())]
            head.weight.copy_(ridge_weights(sums["gram"], sums["prototypes"], ridge))
            result |= {f"out.{k}_task{task}": sums[k] for k in ("gram", "prototypes")}
            result |= {f"out.val_losses_task{task}": losses, f"ridge.{task}": ridge}
        seen = sum(config["task_sizes"][: task + 1])
        result[f"out.weight_task{task}"] = head.weight[:seen].clone()
        result[f"out.logits_task{task}"] = head(tensors["in.test_features"])[:, :seen]
    return result


KINDS: Kinds = {
    "align_stats": _align_stats,
    "align_loss": _align_loss,
    "align_trace": _align_trace,
    "ranpac": _ranpac,
}
