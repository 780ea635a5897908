"""Runs the product's own modules on golden vectors.

`run_case(kind, config, tensors)` takes a case's `hyper` and its tensors under their own keys
(`param.`, `in.`, and those of shared files), and returns `out.` tensors and every scalar by its
dotted path in the case's `scalars`, e.g. `prompt_loss_per_layer.0` or `steps.1.soft_loss.3`.
Nothing is computed here but the stated objectives of gradients; a kind that is not in `KINDS`
raises `KeyError`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.vit import Injection, encode
from cdl.data.batches import Batch
from cdl.distillers.base import BackboneShape, DistillerContext, Output, TeacherOutput
from cdl.distillers.dkd import DKD, dkd_terms
from cdl.distillers.fitnets import FeatureDistiller, FitNets
from cdl.distillers.kd import KD
from cdl.distillers.kd_token import KDToken
from cdl.distillers.mappings import AttentionMapping, SelfAttention
from cdl.distillers.none import NoDistillation
from cdl.distillers.reviewkd import ReviewKD
from cdl.evaluation.metrics import metrics
from cdl.learning.factory import build
from cdl.learning.learner import Learner
from cdl.learning.loop import learning_rate, train_task
from cdl.learning.teacher import Teacher
from cdl.prompts.apt import APT
from cdl.prompts.base import PromptContext, PromptMethod
from cdl.prompts.coda_prompt import CodaPrompt
from cdl.prompts.dual_prompt import DualPrompt
from cdl.prompts.heads import LinearHead, NormalisedHead
from cdl.prompts.l2p import L2P

Config = dict[str, Any]
Tensors = dict[str, Tensor]
Result = dict[str, Tensor | float]


def run_case(kind: str, config: Config, tensors: Tensors) -> Result:
    """Return outputs and scalars of a case; raise `KeyError` for an unknown kind."""
    if kind not in KINDS:
        raise KeyError(f"no golden case of kind {kind!r} is known; known are {sorted(KINDS)}")
    return KINDS[kind](config, tensors)


# ---------------------------------------------------------------------------------- helpers


def _float(tensors: Tensors) -> Tensors:
    """Cast half-precision storage to float32; keep everything else."""
    return {k: t.float() if t.dtype == torch.float16 else t for k, t in tensors.items()}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_(True)


def _load(module: nn.Module, state: Tensors) -> None:
    """Set parameters and buffers by name; every given name must exist."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected, unexpected


def _context(
    width: int, depth: int, teacher: BackboneShape | None = None, head: Any = None
) -> DistillerContext:
    return DistillerContext(
        student=BackboneShape(width, depth),
        teacher=teacher,
        teacher_prompts=None,
        n_tasks=1,
        head=head or (lambda generator: nn.Identity()),
        generator=torch.Generator(),
    )


def _output(logits: Tensor, tokens: Tensor | None = None) -> Output:
    return Output(logits, tokens if tokens is not None else logits[:, None], (), {})


def _prompt_setting(config: Config) -> PromptContext:
    return PromptContext(
        width=config["dim"],
        depth=config.get("depth", 1 + max(config.get("layers", [0]))),
        query_width=config["d_query"],
        n_tasks=config["n_tasks"],
        generator=torch.Generator(),
    )


# ---------------------------------------------------------------------------------- prompts


def _l2p(config: Config) -> L2P:
    return L2P(
        _prompt_setting(config),
        pool=config["pool"],
        length=config["length"],
        top_k=config["top_k"],
        layers=tuple(config["layers"]),
    )


def _dual(config: Config) -> DualPrompt:
    return DualPrompt(
        _prompt_setting(config),
        pool=config["pool"],
        length=config["length"],
        g_length=config["g_length"],
        top_k=config["top_k"],
        g_layers=tuple(config["g_layers"]),
        e_layers=tuple(config["e_layers"]),
        dual_candidates="all",
    )


def _coda(config: Config) -> CodaPrompt:
    return CodaPrompt(
        _prompt_setting(config),
        pool=config["pool"],
        length=config["length"],
        ortho_weight=config["ortho_mu"],
        layers=tuple(config["layers"]),
    )


def _apt(config: Config) -> APT:
    return APT(_prompt_setting(config), ema=config["ema_coeff"])


def _holder(method: PromptMethod) -> nn.Module:
    """Return the module whose parameters carry the golden names `key`, `prompt`, ..."""
    return method.pool if isinstance(method, CodaPrompt) else method


def _prompt_case(method: PromptMethod, config: Config, tensors: Tensors) -> Result:
    _load(_holder(method), _part(tensors, "param."))
    method.train(config["train"])
    query = tensors["in.query"]
    prompts = method(query, config["task_id"])
    total = sum(prompts.losses.values(), query.new_zeros(()))
    result: Result = {"prompt_loss": total.item()}
    for layer in config["layers"]:
        result[f"prompt_loss_per_layer.{layer}"] = torch.as_tensor(
            prompts.losses.get(layer, 0.0)
        ).item()
    objective = total
    for layer, (keys, values) in prompts.prefixes.items():
        result[f"out.k_{layer}"], result[f"out.v_{layer}"] = keys.detach(), values.detach()
        objective = objective + (keys * tensors[f"in.weight_k_{layer}"]).sum()
        objective = objective + (values * tensors[f"in.weight_v_{layer}"]).sum()
    objective.backward()
    result["objective"] = objective.item()
    for name, parameter in _holder(method).named_parameters():
        grad = parameter.grad
        result[f"out.grad_{name}"] = torch.zeros_like(parameter) if grad is None else grad
    return result


def _prompt_apt(config: Config, tensors: Tensors) -> Result:
    method = _apt(config).train(config["train"])
    result: Result = {"prompt_loss": 0.0}
    if config["train"]:
        _load(method, _part(tensors, "param."))
    for task in range(config.get("n_merges", 0)):
        _load(method, {"prompt_tokens": tensors[f"param.prompt_tokens_after_task{task}"]})
        method.end_task(task)
        result[f"out.merged_after_task{task}"] = method.merged.clone()
    prompts = method(None, 0)
    objective = torch.zeros(())
    for layer, (key, value) in prompts.additions.items():
        for name, vector in (("k", key), ("v", value)):
            expanded = vector.expand(config["batch"], 1, -1)
            result[f"out.{name}_{layer}"] = expanded.detach()
            if config["train"]:
                objective = objective + (expanded * tensors[f"in.weight_{name}_{layer}"]).sum()
    if config["train"]:
        objective.backward()
        result["objective"] = objective.item()
        result["out.grad_prompt_tokens"] = method.prompt_tokens.grad
    return result


# ---------------------------------------------------------------------------------- backbone


def _vit(shape: Config, config: Config, state: Tensors) -> VisionTransformer:
    vit = VisionTransformer(
        img_size=config["img_size"],
        patch_size=config["patch_size"],
        embed_dim=shape["dim"],
        depth=shape["depth"],
        num_heads=shape["heads"],
        mlp_ratio=shape.get("mlp_ratio", 4),
        qkv_bias=shape.get("qkv_bias", True),
        norm_layer=partial(nn.LayerNorm, eps=shape.get("layer_norm_eps", 1e-6)),
        num_classes=0,
    )
    vit.load_state_dict(state)
    return vit


def _vit_forward(config: Config, tensors: Tensors) -> Result:
    parameters = _part(tensors, "param.")
    learnt = ("kd_token", "kd_prompt_", "prompt_tokens")
    frozen = {k: t for k, t in parameters.items() if not k.startswith(learnt)}
    backbone = Backbone(_vit(config, config, frozen), [0.0] * 3, [1.0] * 3, "golden")
    leaves = {k: _leaf(t) for k, t in parameters.items() if k.startswith(learnt)}
    leaves |= {k: _leaf(t) for k, t in _part(tensors, "in.").items() if k.startswith("prefix_")}
    tokens = leaves.get("prompt_tokens")
    additions = {}
    if tokens is not None:
        additions = dict(enumerate(zip(tokens[::2], tokens[1::2], strict=True)))
    injection = Injection(
        prefixes={
            layer: (leaves[f"prefix_k_{layer}"], leaves[f"prefix_v_{layer}"])
            for layer in config.get("prefix_layers", [])
        },
        suffixes={
            layer: tuple(leaves[f"kd_prompt_{layer}"].chunk(2))
            for layer in range(1, config.get("kd_layers", 1))
        },
        additions=additions,
        token=leaves.get("kd_token"),
    )
    encoded = encode(backbone.vit, tensors["in.images"], injection)
    objective = (encoded.tokens * tensors["in.weight_tokens"]).sum()
    if leaves:
        objective.backward()
    result: Result = {"out.tokens": encoded.tokens.detach(), "objective": objective.item()}
    return result | {f"out.grad_{name}": leaf.grad for name, leaf in leaves.items()}


# ---------------------------------------------------------------------------------- losses


def _loss_kd(config: Config, tensors: Tensors) -> Result:
    logits = _leaf(tensors["in.student_logits"])
    distiller = KD(_context(1, 1), alpha=config["alpha"], temperature=config["temperature"])
    teacher = TeacherOutput(tensors["in.teacher_logits"], None)
    labels = torch.zeros(len(logits), dtype=torch.int64)
    soft = distiller(_output(logits), teacher, labels, slice(0, logits.shape[1]))["soft"]
    soft.backward()
    return {"loss": soft.item(), "out.grad_student_logits": logits.grad}


def _dkd_weights(config: Config) -> dict[str, float]:
    names = {"target_weight": "alpha_dkd", "non_target_weight": "beta_dkd"}
    return {ours: config[golden] for ours, golden in names.items() if golden in config}


def _loss_dkd(config: Config, tensors: Tensors) -> Result:
    logits, labels = _leaf(tensors["in.student_logits"]), tensors["in.targets"]
    teacher, temperature = tensors["in.teacher_logits"], config["temperature"]
    distiller = DKD(_context(1, 1), temperature=temperature, **_dkd_weights(config))
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
        _context(config["d_student"], 1, BackboneShape(config["d_teacher"], 1)),
        feature_weight=config["factor"],
    )
    _load(distiller, _part(tensors, "param."))
    student = _leaf(tensors["in.student_feature"])
    loss = distiller.feature_loss((student,), (tensors["in.teacher_feature"],))
    loss.backward()
    gradients = {f"out.grad_{n}": p.grad for n, p in distiller.named_parameters()}
    return {"loss": loss.item(), "out.grad_student_feature": student.grad, **gradients}


def _loss_reviewkd(config: Config, tensors: Tensors) -> Result:
    distiller = ReviewKD(
        _context(
            config["d_student"],
            config["student_blocks"],
            BackboneShape(config["d_teacher"], config["teacher_blocks"]),
        ),
        feature_weight=config["factor"],
    )
    units = distiller.units
    unused = {f"{len(units) - 1}.norm2.{kind}" for kind in ("weight", "bias")}
    _load(units, {k: t for k, t in _part(tensors, "param.").items() if k not in unused})
    student = _leaf(tensors["in.student_features"])
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
    if kind is DKD:  # at its own temperature, whatever the case says of the others'
        options = {"alpha": config["alpha"], **_dkd_weights(config)}
    distiller = kind(_context(1, 1, BackboneShape(1, 1)), **options)
    logits = _leaf(tensors["in.logits"])
    leaves = {"logits": logits}
    prompt = torch.tensor(config["prompt_loss"], requires_grad=True)
    feature = torch.tensor(config["feature_loss"], requires_grad=True)
    extra = {"feature": feature}
    if kind is KDToken:
        leaves["kd_logits"] = _leaf(tensors["in.kd_logits"])
        tokens = leaves["kd_logits"][:, None]  # the KD head is the identity here
    if issubclass(kind, FeatureDistiller):  # the case gives the loss, not the features
        distiller.feature_loss, extra = lambda student, teacher: feature, {}
    learner = Learner(nn.Identity(), nn.Identity(), nn.Identity(), distiller)
    output = Output(logits, _output(logits, tokens).tokens, (), {0: prompt})
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


def _predict(config: Config, tensors: Tensors) -> Result:
    kind = NormalisedHead if config["method"] == "apt" else LinearHead
    names = {"linear.": "head.", "norm.": "clf_norm."}

    def head(prefix: str) -> nn.Module:
        module = kind(config["dim"], config["classes_total"], torch.Generator())
        state = {}
        for ours, golden in names.items():
            part = _part(tensors, f"param.{prefix}{golden}")
            state |= {ours + k: t for k, t in part.items()}
        _load(module, state)
        return module

    context = _context(config["dim"], 2, head=lambda generator: head("kd_"))
    if config["kd_method"] == "KD_Token":
        distiller = KDToken(context, alpha=config["alpha"])
    else:
        distiller = KD(context, alpha=config["alpha"])
    learner = Learner(nn.Identity(), nn.Identity(), head(""), distiller)
    tokens = tensors["in.tokens"]
    with torch.no_grad():
        output = Output(learner.head(tokens[:, 0]), tokens, (), {})
        logits = learner.predict(output, config["seen"])
    return {"out.logits": logits, "out.prediction": logits.argmax(1)}


# ---------------------------------------------------------------------------------- the rest


def _schedule(config: Config, tensors: Tensors) -> Result:
    n, base = config["epochs"], config["base_lr"]
    rates = [learning_rate(epoch, n, base, "cosine_lagged") for epoch in range(n)]
    scalars = {f"lr.{epoch}": rate for epoch, rate in enumerate(rates)}
    return {"out.lr": torch.tensor(rates, dtype=torch.float64), **scalars}


_METRICS = {
    "final_average_accuracy": "final_average_accuracy",
    "sample_weighted_last_accuracy": "last_accuracy",
    "average_incremental_accuracy": "average_incremental_accuracy",
    "average_incremental_accuracy_sample_weighted": "average_incremental_accuracy_sample_weighted",
    "learning_accuracy": "learning_accuracy",
    "forgetting_first_minus_last": "forgetting",
    "forgetting_released_trainer": "forgetting_published",
    "forgetting_max_past": "forgetting_max",
    "forgetting_max_including_final": "forgetting_max_including_final",
    "forgetting_coda_stepwise": "forgetting_stepwise",
}


def _metrics(config: Config, tensors: Tensors) -> Result:
    found = metrics(tensors["in.R"].numpy(), np.array(config["test_samples_per_task"]))
    return {golden: found[ours] for golden, ours in _METRICS.items()}


def _mapping_attention(config: Config, tensors: Tensors) -> Result:
    layers = tuple(range(config["layers"]))
    context = _context(config["d_student"], 1, BackboneShape(config["d_teacher"], 1))
    mapping = AttentionMapping(layers, context, config["components"], config["length"], "exact")
    mapping = mapping.double().train()
    names = ("attention", "key", "prompt")
    _load(
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
    _load(module, {ours: tensors[f"param.{golden}"] for ours, golden in names.items()})
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


# ---------------------------------------------------------------------------------- traces

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
    if name not in ("none", "dkd"):  # dkd keeps its own temperature
        options["temperature"] = config["temperature"]
    if name == "dkd":
        options |= _dkd_weights(config)
    if name in ("fitnets", "reviewkd") and "feature_factor" in config:
        options["feature_weight"] = config["feature_factor"]
    if name == "kd_prompt":
        options |= {k: config[k] for k in ("kd_layers", "kd_length")}
    return options


_EXTRAS = {  # golden name: where the product keeps it
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
    role: str, config: Config, tensors: Tensors, backbones: dict[str, Backbone]
) -> Learner:
    name, options = _METHODS[config["method"]]
    student = role == "student"
    learner = build(
        backbone=backbones[role],
        query_width=config["d_query"],
        method={"name": name, **options(config)},
        distiller=_distiller_options(config) if student else {"name": "none"},
        n_classes=config["classes_total"],
        n_tasks=config["n_tasks"],
        keys=("golden",),
        teacher=BackboneShape(backbones["teacher"].width, backbones["teacher"].depth)
        if student
        else None,
    )
    golden = _part(tensors, f"param.{role}.")
    missing = {_product_name(k, name) for k in golden} - set(learner.state())
    deepest = f"distiller.units.{backbones['student'].depth - 1}."
    unused = {f"{deepest}norm2.weight", f"{deepest}norm2.bias"}
    assert missing <= unused, missing
    state = {_product_name(k, name): t for k, t in golden.items()}
    _load(learner, {k: t for k, t in state.items() if k not in unused})
    return learner


def _redraw(learner: Learner, drawn: Tensors, task: int) -> None:
    """Put given components in the place of those that `start_task` would draw."""
    for name, rows in drawn.items():
        pool = learner.prompts.pool
        start = task * pool.per_task
        with torch.no_grad():
            getattr(pool, name)[:, start : start + pool.per_task] = rows


def _train_trace(config: Config, tensors: Tensors) -> Result:
    tensors = _float(tensors)
    backbones = {
        role: Backbone(
            _vit(config[role], config, _part(tensors, f"{role}.")), [0.0] * 3, [1.0] * 3, role
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
            "query": lambda batch: query(batch.images),
            "task": task,
            "classes": classes,
            "epochs": config["epochs"],
            "lr": config["lr"],
            "betas": tuple(config["betas"]),
            "schedule": "constant" if config["lr_schedule"] == "constant" else "cosine_lagged",
        }
        for role, learner in learners.items():
            _redraw(learner, _part(tensors, f"param.redraw_task{task}.{role}."), task)
        teacher, student = learners["teacher"], learners["student"]
        teacher.requires_grad_(True).backbone.requires_grad_(False)
        if apt:
            teacher.head.norm.requires_grad_(False)
        history = train_task(teacher, batches, teacher=None, **training)
        curves["teacher_loss"].append(_total(history))
        teacher.end_task(task)
        merged = None
        if apt:
            # as released: while it distils, the teacher is read with the previous merge
            merged = teacher.prompts.merged.clone()
            teacher.prompts.undo_merge()
        guide = Teacher(teacher)
        outputs = [guide(x, query(x), task, classes, False).logits for x in images[:steps]]
        outputs *= config["epochs"]  # stored batches: every epoch sees the same
        result[f"out.teacher_current_logits_task{task}"] = torch.stack(outputs)
        distilled = not isinstance(student.distiller, NoDistillation)

        blocks = student.compared_blocks

        def signal(batch: Batch, q: Tensor, read=(guide, task, classes, blocks)) -> TeacherOutput:
            return read[0](batch.images, q, *read[1:])

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


KINDS: dict[str, Callable[[Config, Tensors], Result]] = {
    "prompt_l2p": lambda c, t: _prompt_case(_l2p(c), c, t),
    "prompt_dual": lambda c, t: _prompt_case(_dual(c), c, t),
    "prompt_coda": lambda c, t: _prompt_case(_coda(c), c, t),
    "prompt_apt": _prompt_apt,
    "vit_forward": lambda c, t: _vit_forward(c, _float(t)),
    "loss_kd": _loss_kd,
    "loss_dkd": _loss_dkd,
    "loss_fitnets": _loss_fitnets,
    "loss_reviewkd": _loss_reviewkd,
    "loss_student_total": _loss_student_total,
    "schedule": _schedule,
    "predict": _predict,
    "train_trace": _train_trace,
    "metrics": _metrics,
    "mapping_attention": _mapping_attention,
    "mapping_self_attention": _mapping_self_attention,
}
