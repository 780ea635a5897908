"""Cases of schedules, metrics and mappings."""

import numpy as np
import torch
from common import Config, Kinds, Result, Tensors, distiller_context, load

from cdl.backbones.shape import BackboneShape
from cdl.device.schedules import FLOOR, lagged_cosine
from cdl.distillers.mappings import AttentionMapping, SelfAttention
from cdl.evaluation.metrics import accuracy_by, metrics, own_task_predictions
from cdl.training.loop import learning_rate


def _schedule(config: Config, tensors: Tensors) -> Result:
    n, base = config["epochs"], config["base_lr"]
    rates = [learning_rate(epoch, n, base, "cosine_lagged") for epoch in range(n)]
    scalars = {f"lr.{epoch}": rate for epoch, rate in enumerate(rates)}
    return {"out.lr": torch.tensor(rates, dtype=torch.float64), **scalars}


def _schedule_vq(config: Config, tensors: Tensors) -> Result:
    groups = (config["prompt_factor"] * config["lr"], config["lr"])
    per_epoch, frozen = config["iter_step"], config["freeze_iters"]
    warmup = config["warmup_epochs"] * per_epoch
    left = per_epoch * config["epochs"] - frozen - warmup

    def rate(i: int, base: float) -> float:
        if 0 < i <= frozen:
            return FLOOR
        if frozen < i <= frozen + warmup:
            return base * (i - 1 - frozen) / max(warmup - 1, 1)
        return lagged_cosine(max(0, i - frozen - warmup), base, base, left)

    rates = [[rate(i, base) for base in groups] for i in range(config["iterations"])]
    return {"out.lr": torch.tensor(rates, dtype=torch.float64)}


_METRICS = {
    "final_average_accuracy": "final_average_accuracy",
    "sample_weighted_last_accuracy": "last_accuracy",
    "average_incremental_accuracy": "average_incremental_accuracy",
    "average_incremental_accuracy_sample_weighted": "average_incremental_accuracy_sample_weighted",
    "learning_accuracy": "learning_accuracy",
    "forgetting_released_trainer": "forgetting_published",
    "forgetting_max_past": "forgetting_max",
    "forgetting_max_including_final": "forgetting_max_including_final",
    "forgetting_coda_stepwise": "forgetting_stepwise",
}


def _metrics(config: Config, tensors: Tensors) -> Result:
    found = metrics(tensors["in.R"].numpy(), np.array(config["test_samples_per_task"]))
    numbers = {golden: found[ours] for golden, ours in _METRICS.items()}
    return {**numbers, "forgetting_first_minus_last": -found["backward_transfer"]}


def _task_incremental(config: Config, tensors: Tensors) -> Result:
    scores, labels = tensors["in.logits"].numpy(), tensors["in.targets"].numpy()
    sizes, n = config["task_sizes"], config["tasks_seen"]
    owner = np.repeat(np.arange(len(sizes)), sizes)[labels]
    predicted = {
        "task_incremental": own_task_predictions(scores, owner, sizes),
        "class_incremental": scores[:, : sum(sizes[:n])].argmax(1),
    }
    result: Result = {}
    for name, classes in predicted.items():
        correct = classes == labels
        by_task = accuracy_by(owner, correct, n)
        result |= {f"{name}.{task}": accuracy for task, accuracy in enumerate(by_task)}
        result[f"out.pred_{name}"] = torch.from_numpy(classes)
        result[f"{name}_mean"] = float(np.mean(by_task))
        result[f"{name}_all"] = accuracy_by(np.zeros_like(owner), correct, 1)[0]
    return result


def _mapping_attention(config: Config, tensors: Tensors) -> Result:
    layers = tuple(range(config["layers"]))
    context = distiller_context(config["d_student"], 1, BackboneShape(config["d_teacher"], 1))
    mapping = AttentionMapping(
        layers, context, config["length"], "exact", config["components"], None
    )
    mapping = mapping.double().train()
    names = ("attention", "key", "prompt")
    load(
        mapping.pool,
        {n: torch.stack([tensors[f"param.{n}_{layer}"] for layer in layers]) for n in names},
    )
    prompts = {i: (tensors[f"in.teacher_k_{i}"], tensors[f"in.teacher_v_{i}"]) for i in layers}
    result: Result = {}
    objective = torch.zeros((), dtype=torch.float64)
    weights = mapping.weights(prompts, 0)
    for layer, pair in mapping(prompts, 0).items():
        result[f"out.weights_{layer}"] = weights[layer].detach()
        for name, tensor in zip("kv", pair, strict=True):
            result[f"out.{name}_{layer}"] = tensor.detach()
            objective = objective + (tensor * tensors[f"in.weight_{name}_{layer}"]).sum()
    objective.backward()
    for name in names:
        for layer in layers:
            result[f"out.grad_{name}_{layer}"] = getattr(mapping.pool, name).grad[layer]
    return result | {"objective": objective.item()}


def _mapping_self_attention(config: Config, tensors: Tensors) -> Result:
    module = SelfAttention(config["d_teacher"], config["d_student"], torch.Generator()).double()
    names = {
        f"{part}.{kind}": f"{golden}_{part}"
        for part in "qkv"
        for kind, golden in (("weight", "W"), ("bias", "b"))
    }
    load(module, {ours: tensors[f"param.{golden}"] for ours, golden in names.items()})
    keys, values = module(tensors["in.teacher_k"]), module(tensors["in.teacher_v"])
    objective = (keys * tensors["in.weight_k"]).sum() + (values * tensors["in.weight_v"]).sum()
    objective.backward()
    gradients = {
        f"out.grad_{golden}": module.get_parameter(ours).grad for ours, golden in names.items()
    }
    return {
        "out.k": keys.detach(),
        "out.v": values.detach(),
        "objective": objective.item(),
        **gradients,
    }


KINDS: Kinds = {
    "schedule": _schedule,
    "schedule_vq": _schedule_vq,
    "metrics": _metrics,
    "task_incremental": _task_incremental,
    "mapping_attention": _mapping_attention,
    "mapping_self_attention": _mapping_self_attention,
}
