"""Cases of adapters, low-rank branches, first sessions and class means, whole tiny ViTs."""

from collections.abc import Iterator
from typing import Any

import torch
from common import Config, Kinds, Result, Tensors, below, load, vit
from torch import Tensor
from torch.nn import functional as F

from cdl.backbones.images import FrozenViT
from cdl.backbones.inside import merged
from cdl.backbones.vit import Injection, Inside
from cdl.data.batches import Batch
from cdl.device.aligning import mean_factors
from cdl.device.closed import DIAGONAL
from cdl.methods.adapters import Adapters
from cdl.methods.ease import complete, reweighted
from cdl.methods.heads import CosineHead
from cdl.methods.inf_lora import InfLoRA, update_memory
from cdl.methods.sd_lora import SDLoRA
from cdl.methods.ssf import SSF
from cdl.models.build import build
from cdl.models.learner import Learner
from cdl.spec import Distiller, Method, SampledAlignment, Sgd
from cdl.training.alignment import align, shifted_means, statistics_of
from cdl.training.loop import train_task
from cdl.training.ranpac import (
    RIDGES,
    accumulate,
    mean_weights,
    ridge_weights,
    validation_losses,
)

MODULES = {"adapter": "adapter", "ssf": "ssf", "vpt": "vpt"}
ADAPTERS = ("bottleneck", "scale", "dropout")


def _backbone(config: Config, tensors: Tensors) -> FrozenViT:
    shape = {"img_size": config["image"], "patch_size": config["patch"]}
    state = below(tensors, "param.backbone.")
    return FrozenViT(vit(config, shape, state), [0.0] * 3, [1.0] * 3, "golden")


def _learner(
    config: Config, tensors: Tensors, name: str, options: dict[str, Any], classes: int
) -> Learner:
    return build(
        backbone=_backbone(config, tensors),
        query_width=0,
        method=Method(name, options),
        distiller=Distiller("none", {}),
        n_classes=classes,
        n_tasks=None,
        keys=("golden",),
    )


def _adapter_options(config: Config) -> dict[str, Any]:
    return {name: config[name] for name in ADAPTERS if name in config}


def _set_module(module: torch.nn.Module, tensors: Tensors) -> None:
    """Load a golden module into adapters, SSF or VPT."""
    with torch.no_grad():
        for golden, parameter in _module_parameters(module).items():
            parameter.copy_(tensors[f"param.{golden}"])


def _module_parameters(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a module by their golden names."""
    if isinstance(module, Adapters):
        return {f"adapter.{k}": p for k, p in module.named_parameters()}
    if not isinstance(module, SSF):
        return dict(module.named_parameters())
    found = {}
    for site, part in zip(module.sites, module.maps, strict=True):
        short = site.removeprefix("blocks.").removesuffix(".proj") if "patch" in site else site
        short = short.removeprefix("blocks.").replace("attn.", "").replace("mlp.", "")
        found |= {f"ssf.{short}.{k}": p for k, p in part.named_parameters()}
    return found


def _keep(module: torch.nn.Module, tensors: Tensors) -> None:
    """Use given dropout masks."""
    if "in.keep" in tensors:
        module.kept = lambda layer, hidden: tensors["in.keep"][layer]


def _batches(images: Tensor, labels: Tensor, size: int) -> Any:
    def batches(epoch: int) -> Iterator[Batch]:
        for x, y in zip(images.split(size), labels.split(size), strict=True):
            yield Batch(x, y, epoch, torch.empty(0, dtype=torch.int64))

    return batches


def _train(
    learner: Learner, config: Config, images: Tensor, labels: Tensor, task: int, classes: slice
) -> Tensor:
    """Train on given batches; return the losses, `[epochs, batches]`."""
    adam = config.get("optimizer") == "adam"
    sgd = None if adam else Sgd(config["momentum"], config.get("weight_decay", 0.0))
    schedules = {True: "cosine_lagged", False: config.get("schedule", "cosine_zero")}
    history = train_task(
        learner,
        _batches(images, labels, config["batch"]),
        query=lambda batch: None,
        teacher=None,
        task=task,
        classes=classes,
        epochs=config["epochs"],
        lr=config["lr"],
        betas=(0.9, 0.999),
        schedule=schedules[adam],
        sgd=sgd,
    )
    return torch.tensor(history["ce"].to_numpy()).float().view(config["epochs"], -1)


@torch.no_grad()
def _predict(learner: Learner, images: Tensor, task: int, seen: int) -> Tensor:
    learner.eval()
    return learner.predict(learner(images, None, task), seen)


@torch.no_grad()
def _features(learner: Learner, images: Tensor, task: int = 0) -> Tensor:
    learner.eval()
    return learner(images, None, task).tokens[:, 0]


def _gradients(learner: Learner, tensors: Tensors, inside: Inside) -> tuple[Any, float]:
    """Back-propagate `sum(features * weight)`; return the encoding and the objective."""
    encoded = learner.backbone.encode(
        tensors["in.images"], Injection(inside=inside), keep_blocks=learner.backbone.depth
    )
    objective = (encoded.features[:, 0] * tensors["in.weight"]).sum()
    objective.backward()
    return encoded, objective.item()


def _adapter_vit(config: Config, tensors: Tensors) -> Result:
    learner = _learner(config, tensors, "adapter", _adapter_options(config), 0)
    module = learner.prompts.adapters
    _set_module(module, tensors)
    _keep(module, tensors)
    learner.train()
    encoded, objective = _gradients(learner, tensors, learner.prompts(None, 0).inside[0])
    grads = {f"out.grad_{k}": p.grad for k, p in _module_parameters(module).items()}
    blocks = {f"out.block_{i}": x.detach() for i, x in enumerate(encoded.blocks)}
    features = encoded.features[:, 0].detach()
    return {"objective": objective, "out.features": features, **blocks, **grads}


def _prototypes(config: Config, tensors: Tensors) -> Result:
    n = sum(config["task_sizes"])
    options = {"logit_scale": config["sigma"]}
    name = {"simplecil": "simple_cil", "aper": "aper"}[config["method"]]
    if name == "aper":
        options |= _adapter_options(config)
    learner = _learner(config, tensors, name, options, n)
    if name == "aper":
        _set_module(learner.prompts.module, tensors)
    sums: Tensors = {}
    result: Result = {}
    for task in range(len(config["task_sizes"])):
        seen = sum(config["task_sizes"][: task + 1])
        features = learner.head.features(_features(learner, tensors[f"in.images_task{task}"]))
        targets = F.one_hot(tensors[f"in.targets_task{task}"], n).to(features.dtype)
        sums = accumulate(sums, features, targets)
        learner.head.weight.copy_(mean_weights(sums))
        result[f"out.prototypes_task{task}"] = learner.head.weight[:seen].clone()
        result[f"out.logits_task{task}"] = _predict(learner, tensors["in.test_images"], task, seen)
    return result


def _ease_complement(config: Config, tensors: Tensors) -> Result:
    sizes = config["task_sizes"]
    weight = complete(tensors["in.weight"], sizes)
    logits = reweighted(tensors["in.features"], weight, sizes, config["alpha"])
    return {"out.weight": weight, "out.logits": logits}


def _session(config: Config, tensors: Tensors) -> Learner:
    """A learner of `ranpac` in its first session, with given start."""
    ridge = config.get("head", "ridge") == "ridge"
    options = {
        "projection": config.get("projection") or None,
        "prototypes": "ridge" if ridge else "mean",
        "first_session": MODULES[config["module"]],
        "dropout": config["dropout"],
    }
    if config["module"] == "adapter":
        options |= _adapter_options(config)
    if config["module"] == "vpt":
        options["tokens"] = tensors["param.prompt"].shape[1]
    n, width = sum(config.get("task_sizes", [0])), config["dim"]
    learner = _learner(config, tensors, "ranpac", options, n)
    _set_module(learner.prompts.module, tensors)
    _keep(learner.prompts.module, tensors)
    learner.own_head = learner.head
    first = len(tensors["param.weight"])
    learner.head = learner.prompts.session_head(width, first, torch.Generator())
    load(learner.head, {"weight": tensors["param.weight"], "scale": tensors["param.sigma"]})
    return learner.train()


def _step_petl(config: Config, tensors: Tensors) -> Result:
    learner = _session(config, tensors)
    output = learner(tensors["in.images"], None, 0)
    losses = learner.losses(output, None, tensors["in.targets"], slice(0, config["classes"]))
    sum(losses.values()).backward()
    module = _module_parameters(learner.prompts.module)
    return {
        "loss": losses["ce"].item(),
        "out.logits": output.logits.detach(),
        "out.grad_weight": learner.head.weight.grad,
        "out.grad_sigma": learner.head.scale.grad,
        **{f"out.grad_{k}": p.grad for k, p in module.items()},
    }


def _trace_petl(config: Config, tensors: Tensors) -> Result:
    learner = _session(config, tensors)
    sizes, n = config["task_sizes"], sum(config["task_sizes"])
    images, labels = tensors["in.images_task0"], tensors["in.targets_task0"]
    result: Result = {"out.loss": _train(learner, config, images, labels, 0, slice(0, sizes[0]))}
    module = _module_parameters(learner.prompts.module)
    result |= {f"out.{k}": p.detach().clone() for k, p in module.items()}
    result["out.sigma"] = learner.head.scale.detach().clone()
    learner.own_head.adopt(learner.head)
    learner.head = head = learner.own_head
    if "in.projection" in tensors:
        head.projection.copy_(tensors["in.projection"])
    sums: Tensors = {}
    for task in range(len(sizes)):
        features = _features(learner, tensors[f"in.images_task{task}"])
        result[f"out.features_task{task}"] = features
        targets = F.one_hot(tensors[f"in.targets_task{task}"], n).to(features.dtype)
        sums = accumulate(sums, head.features(features), targets)
        if head.ridge:
            losses = validation_losses(head.features(features), targets)
            ridge = RIDGES[int(losses.argmin())]
            head.weight.copy_(ridge_weights(sums["gram"], sums["prototypes"], ridge))
            result[f"ridge.{task}"] = ridge
        else:
            head.weight.copy_(mean_weights(sums))
        seen = sum(sizes[: task + 1])
        result[f"out.weight_task{task}"] = head.weight[:seen].clone()
        result[f"out.logits_task{task}"] = _predict(learner, tensors["in.test_images"], task, seen)
    return result


def _ssf_merge(config: Config, tensors: Tensors) -> Result:
    backbone = _backbone(config, tensors)
    module = SSF(config["dim"], config["depth"], torch.Generator())
    _set_module(module, tensors)
    with torch.no_grad():
        injection = Injection(inside=module.inside())
        features = backbone.encode(tensors["in.images"], injection).features[:, 0]
    plain = merged(backbone.model, module.inside()).state_dict()
    return {"out.features": features, **{f"out.merged.{k}": t for k, t in plain.items()}}


def _set_inf_lora(prompts: InfLoRA, tensors: Tensors, task: int) -> None:
    """Load the branches of tasks 0..task."""
    for i in range(task + 1):
        prompts.start_task(i, torch.Generator())
        prompts.down.copy_(torch.stack([tensors[f"param.A_{part}"][i] for part in "kv"]))
        with torch.no_grad():
            ups = [tensors[f"param.B_{part}"][i] for part in "kv"]
            prompts.up.copy_(torch.stack(ups))


def _inf_lora(config: Config, tensors: Tensors, classes: int = 0) -> Learner:
    options = {"rank": config["rank"], "as_released": True}
    names = {"lamb": "first_share", "lame": "last_share", "sessions": "sessions"}
    options |= {own: config[golden] for golden, own in names.items() if golden in config}
    return _learner(config, tensors, "inf_lora", options, classes)


def _merged_parts(learner: Learner, parts: str) -> Result:
    """Return the rows of the merged projections, `[depth, D, D]`."""
    (inside,) = learner.prompts(None, 0).inside
    blocks = merged(learner.backbone.model, inside).blocks
    rows = {part: [b.attn.qkv.weight.chunk(3)["qkv".index(part)] for b in blocks] for part in parts}
    return {f"out.merged_{part}": torch.stack(found) for part, found in rows.items()}


def _inflora_vit(config: Config, tensors: Tensors) -> Result:
    learner = _inf_lora(config, tensors)
    _set_inf_lora(learner.prompts, tensors, config["task"])
    (inside,) = learner.prompts(None, 0).inside
    encoded, objective = _gradients(learner, tensors, inside)
    grads = dict(zip(("out.grad_B_k", "out.grad_B_v"), learner.prompts.up.grad, strict=True))
    features = encoded.features[:, 0].detach()
    merge = _merged_parts(learner, "kv")
    return {"objective": objective, "out.features": features, **grads, **merge}


def _step_inflora(config: Config, tensors: Tensors) -> Result:
    task, per = config["task"], config["classes_per_task"]
    learner = _inf_lora(config, tensors, (task + 1) * per)
    _set_inf_lora(learner.prompts, tensors, task)
    load(
        learner.head.linear, {k: t.flatten(0, 1) for k, t in below(tensors, "param.head.").items()}
    )
    output = learner.train()(tensors["in.images"], None, task)
    classes = slice(task * per, (task + 1) * per)
    losses = learner.losses(output, None, tensors["in.targets"], classes)
    sum(losses.values()).backward()
    head = {
        f"out.grad_head.{k}": p.grad[classes] for k, p in learner.head.linear.named_parameters()
    }
    return {
        "loss": losses["ce"].item(),
        "out.logits": output.logits[:, classes].detach(),
        "out.logits_all": output.logits.detach(),
        **dict(zip(("out.grad_B_k", "out.grad_B_v"), learner.prompts.up.grad, strict=True)),
        **head,
    }


def _reading(learner: Learner, images: Tensor, size: int) -> Any:
    @torch.no_grad()
    def read(inside: Inside) -> Tensor:
        injection = Injection(inside=inside)
        parts = [learner.backbone.encode(x, injection).features[:, 0] for x in images.split(size)]
        return torch.cat(parts)

    return read


def _design(prompts: InfLoRA) -> Tensor:
    return 3 * prompts.down[0].mT @ prompts.down[0]


def _inflora_design(config: Config, tensors: Tensors) -> Result:
    learner, task = _inf_lora(config, tensors), config["task"]
    prompts = learner.prompts
    _set_inf_lora(prompts, tensors, task - 1)
    prompts.start_task(task, torch.Generator())
    prompts.projector.copy_(tensors["in.projector"])
    prompts.retain.copy_(torch.tensor([kind == "retain" for kind in config["types"]]))
    read = _reading(learner, tensors["in.images"], config["batch"])
    prompts.before_training(task, read)
    overlap = (prompts.down[0] @ tensors["in.projector"]).square().sum((1, 2))
    design = _design(prompts)
    return {"out.matrix": prompts.moments(read), "out.design": design, "out.overlap": overlap}


def _memory_scalars(prompts: Any, task: int) -> Result:
    ranks = prompts.projector.diagonal(dim1=1, dim2=2).sum(1).round().long().tolist()
    result: Result = {f"rank.{task}.{layer}": rank for layer, rank in enumerate(ranks)}
    retained = prompts.retain.long().tolist()
    return result | {f"retain.{task}.{layer}": flag for layer, flag in enumerate(retained)}


def _inflora_memory(config: Config, tensors: Tensors) -> Result:
    width, layers = config["dim"], config["layers"]
    memory = [(torch.zeros(width, width), False) for _ in range(layers)]
    result: Result = {}
    for task in range(config["tasks"]):
        share = (config["lame"] - config["lamb"]) * task / config["sessions"] + config["lamb"]
        matrices = tensors[f"in.matrix_task{task}"]
        how = {"first": task == 0, "as_released": True}
        memory = [
            update_memory(h, *old, share, **how) for h, old in zip(matrices, memory, strict=True)
        ]
        result[f"out.projector_task{task}"] = torch.stack([p for p, _ in memory])
        for layer, (p, retain) in enumerate(memory):
            result[f"rank.{task}.{layer}"] = round(float(p.trace()))
            result[f"retain.{task}.{layer}"] = int(retain)
    return result


def _trace_inflora(config: Config, tensors: Tensors) -> Result:
    per = config["per"]
    learner = _inf_lora(config, tensors)
    prompts, linear = learner.prompts, learner.head.linear
    config = {"momentum": 0.9, **config}
    result: Result = {}
    for task in range(config["tasks"]):
        images, labels = tensors[f"in.images_task{task}"], tensors[f"in.targets_task{task}"]
        classes = slice(task * per, (task + 1) * per)
        rows = {name: t[task] for name, t in below(tensors, "param.head.").items()}
        linear.append(classes.start, **rows)
        prompts.start_task(task, torch.Generator())
        read = _reading(learner, images, config["batch"])
        result[f"out.matrix_task{task}"] = prompts.moments(read)
        prompts.before_training(task, read)
        result[f"out.design_task{task}"] = _design(prompts)
        losses = _train(learner, config, images, labels, task, classes)
        result[f"out.loss_task{task}"] = losses
        result[f"out.matrix_end_task{task}"] = prompts.moments(read)
        prompts.after_training(task, read)
        result[f"out.projector_task{task}"] = prompts.projector.clone()
        for part, up in zip("kv", prompts.up.detach(), strict=True):
            result[f"out.delta_{part}_task{task}"] = up @ prompts.down[0]
        logits = _predict(learner, tensors["in.test_images"], task, classes.stop)
        result |= {f"out.logits_task{task}": logits, **_memory_scalars(prompts, task)}
    return result


def _set_sd_lora(prompts: SDLoRA, tensors: Tensors, task: int) -> None:
    """Load the branches of tasks 0..task and all magnitudes."""
    for i in range(task + 1):
        prompts.start_task(i, torch.Generator())
        with torch.no_grad():
            for part, own in (("A", prompts.down), ("B", prompts.up)):
                given = [tensors.get(f"param.{part}_{p}_task{i}") for p in "qv"]
                if given[0] is not None:
                    own.copy_(torch.stack(given))
    if "param.magnitude" in tensors:
        past = tensors.get("param.magnitude_prev", torch.zeros(0))
        with torch.no_grad():
            prompts.magnitudes.copy_(torch.cat([past, tensors["param.magnitude"]]))


def _step_sdlora(config: Config, tensors: Tensors) -> Result:
    task, sizes = config["task"], config["task_sizes"]
    options = {"ranks": config["ranks"], "as_released": True}
    learner = _learner(config, tensors, "sd_lora", options, sum(sizes))
    _set_sd_lora(learner.prompts, tensors, task)
    load(learner.head.linear, below(tensors, "param.head."))
    output = learner.train()(tensors["in.images"], None, task)
    classes = slice(sum(sizes) - sizes[task], sum(sizes))
    losses = learner.losses(output, None, tensors["in.targets"], classes)
    sum(losses.values()).backward()
    prompts = learner.prompts
    result: Result = {"loss": losses["ce"].item(), "out.logits": output.logits.detach()}
    for golden, own in (("A", prompts.down), ("B", prompts.up)):
        parts = zip("qv", own.grad, strict=True)
        result |= {f"out.grad_{golden}_{part}_task{task}": grad for part, grad in parts}
    magnitudes = prompts.magnitudes.grad
    result |= {"out.grad_magnitude": magnitudes[-1:], "out.grad_magnitude_prev": magnitudes[:-1]}
    head = learner.head.linear.named_parameters()
    return result | {f"out.grad_head.{k}": p.grad for k, p in head}


def _trace_sdlora(config: Config, tensors: Tensors) -> Result:
    options = {"ranks": [config["rank"]], "as_released": True}
    learner = _learner(config, tensors, "sd_lora", options, 0)
    prompts, linear, test = learner.prompts, learner.head.linear, tensors["in.test_images"]
    config = {"schedule": "constant", **config}
    result: Result = {}
    for task, size in enumerate(config["task_sizes"]):
        classes = slice(len(linear.weight), len(linear.weight) + size)
        rows = below(tensors, "param.head.")
        linear.append(classes.start, **{k: rows[f"{k}_task{task}"] for k in ("weight", "bias")})
        prompts.start_task(task, torch.Generator())
        with torch.no_grad():
            down = [tensors[f"param.A_{part}_task{task}"] for part in "qv"]
            prompts.down.copy_(torch.stack(down))
        result[f"out.features_start_task{task}"] = _features(learner, test, task)
        images, labels = tensors[f"in.images_task{task}"], tensors[f"in.targets_task{task}"]
        losses = _train(learner, config, images, labels, task, classes)
        result[f"out.loss_task{task}"] = losses
        result[f"out.features_end_task{task}"] = _features(learner, test, task)
        deltas = (prompts.up @ prompts.down).detach()
        result |= {f"out.delta_{p}_task{task}": d for p, d in zip("qv", deltas, strict=True)}
        result[f"out.magnitude_task{task}"] = prompts.magnitudes.detach().clone()
        state = {k: p.detach().clone() for k, p in linear.named_parameters()}
        result |= {f"out.head.{k}_task{task}": t for k, t in state.items()}
    return result | {k: t.detach() for k, t in _merged_parts(learner, "qv").items()}


def _ssiat(config: Config, tensors: Tensors, classes: int) -> Learner:
    options = {**_adapter_options(config), "logit_scale": config["s"], "margin": config["margin"]}
    learner = _learner(config, tensors, "ssiat", options, classes)
    _set_module(learner.prompts.adapters, tensors)
    _keep(learner.prompts.adapters, tensors)
    return learner


def _step_ssiat(config: Config, tensors: Tensors) -> Result:
    sizes = config["task_sizes"]
    learner = _ssiat(config, tensors, sum(sizes)).train()
    load(learner.head, below(tensors, "param.") and {"weight": tensors["param.weight"]})
    output = learner(tensors["in.images"], None, len(sizes) - 1)
    classes = slice(sum(sizes[:-1]), sum(sizes))
    losses = learner.losses(output, None, tensors["in.targets"], classes)
    sum(losses.values()).backward()
    module = _module_parameters(learner.prompts.adapters)
    return {
        "loss": losses["ce"].item(),
        "out.logits": output.logits.detach() / config["s"],
        "out.grad_weight": learner.head.weight.grad,
        **{f"out.grad_{k}": p.grad for k, p in module.items()},
    }


def _ssiat_shift(config: Config, tensors: Tensors) -> Result:
    old, new, mean = (tensors[f"in.{name}"] for name in ("old", "new", "mean"))
    shifted = shifted_means(mean, old, new, config["sigma"] ** 2)
    return {"out.mean": shifted, "out.shift": shifted - mean}


def _aligned(
    head: torch.nn.Module,
    config: Config,
    statistics: Tensors,
    sizes: list[int],
    draws: tuple[Tensor, Tensor],
    epochs: int,
    lr: float,
) -> tuple[Tensor, SampledAlignment]:
    noise, order = draws
    how = SampledAlignment(
        kind="sampled",
        statistic="covariance",
        samples=noise.shape[2],
        steps="seen",
        mean_shrink=0.1,
        logit_norm=0.0,
        optimizer="sgd",
        lr=lr,
        momentum=config["momentum"],
        weight_decay=config["weight_decay"],
        epochs=epochs,
        schedule="cosine",
        next_task="aligned",
        label_classes="task",
        answers="train_views",
        drift="none",
    )
    losses = align(head, statistics, sizes, how, lambda epoch: (noise[epoch], order[epoch]))
    return losses, how


def _ssiat_align(config: Config, tensors: Tensors) -> Result:
    n, width = tensors["param.weight"].shape
    head = CosineHead(width, n, torch.Generator(), scale=config["scale"])
    load(head, {"weight": tensors["param.weight"]})
    statistics = {"mean": tensors["in.mean"], "spread": tensors["in.cov"]}
    sizes, draws = config["task_sizes"], (tensors["in.noise"], tensors["in.permutation"])
    losses, how = _aligned(head, config, statistics, sizes, draws, config["epochs"], config["lr"])
    factors = {f"mean_factor.{i}": f for i, f in enumerate(mean_factors(how.mean_shrink, sizes))}
    return {"out.loss": losses, "out.weight": head.weight.detach(), **factors}


def _trace_ssiat(config: Config, tensors: Tensors) -> Result:
    learner, sizes = _ssiat(config, tensors, 0), config["task_sizes"]
    head, test = learner.head, tensors["in.test_images"]
    statistics: Tensors = {}
    result: Result = {}
    for task, size in enumerate(sizes):
        images, labels = tensors[f"in.images_task{task}"], tensors[f"in.targets_task{task}"]
        first, seen = sum(sizes[:task]), sum(sizes[: task + 1])
        head.append(first, weight=tensors[f"param.weight_task{task}"])
        old = _features(learner, images, task)
        classes = slice(first, seen)
        result[f"out.loss_task{task}"] = _train(learner, config, images, labels, task, classes)
        new = _features(learner, images, task)
        found = statistics_of(new, labels, "covariance")
        more = (1e-3 - DIAGONAL) * torch.eye(new.shape[1])
        found["spread"] = found["spread"] + more
        if task:
            mean = shifted_means(statistics["mean"], old, new, config["sigma"] ** 2)
            statistics = {"mean": mean, "spread": statistics["spread"]}
            found = {k: torch.cat([statistics[k], found[k]]) for k in found}
        statistics = found
        result[f"out.mean_task{task}"] = statistics["mean"]
        result[f"out.cov_task{task}"] = statistics["spread"][-size:]
        if task:
            draws = tensors[f"in.noise_task{task}"], tensors[f"in.permutation_task{task}"]
            how = (sizes[: task + 1], draws, config["ca_epochs"], config["lr"])
            _aligned(head, config, statistics, *how)
        module = _module_parameters(learner.prompts.adapters)
        result |= {f"out.{k}_task{task}": p.detach().clone() for k, p in module.items()}
        result[f"out.weight_task{task}"] = head.weight.detach().clone()
        result[f"out.logits_task{task}"] = _predict(learner, test, task, seen) / config["s"]
    return result


KINDS: Kinds = {
    "adapter_vit": _adapter_vit,
    "prototypes": _prototypes,
    "ease_complement": _ease_complement,
    "step_petl": _step_petl,
    "trace_petl": _trace_petl,
    "ssf_merge": _ssf_merge,
    "inflora_vit": _inflora_vit,
    "step_inflora": _step_inflora,
    "inflora_design": _inflora_design,
    "inflora_memory": _inflora_memory,
    "trace_inflora": _trace_inflora,
    "step_sdlora": _step_sdlora,
    "trace_sdlora": _trace_sdlora,
    "step_ssiat": _step_ssiat,
    "ssiat_shift": _ssiat_shift,
    "ssiat_align": _ssiat_align,
    "trace_ssiat": _trace_ssiat,
}
