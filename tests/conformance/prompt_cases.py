"""Cases of prompt methods with given queries and of the ViT with given injections."""

import torch
from common import Config, Kinds, Result, Tensors, below, floats, leaf, load, prompt_context, vit
from torch import nn

from cdl.backbones.images import FrozenViT
from cdl.backbones.vit import Injection, encode
from cdl.methods.apt import APT
from cdl.methods.base import PromptMethod
from cdl.methods.coda_prompt import CodaPrompt
from cdl.methods.dual_prompt import DualPrompt
from cdl.methods.l2p import L2P
from cdl.methods.one_prompt import OnePrompt
from cdl.methods.vq_prompt import VQPrompt


def _l2p(config: Config) -> L2P:
    return L2P(
        prompt_context(config),
        pool=config["pool"],
        length=config["length"],
        top_k=config["top_k"],
        layers=tuple(config["layers"]),
    )


def _dual(config: Config) -> DualPrompt:
    return DualPrompt(
        prompt_context(config),
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
        prompt_context(config),
        pool=config["pool"],
        length=config["length"],
        ortho_weight=config["ortho_mu"],
        layers=tuple(config["layers"]),
    )


def _apt(config: Config) -> APT:
    return APT(prompt_context(config), ema=config["ema_coeff"])


def _one(config: Config) -> OnePrompt:
    names = ("length", "g_length", "g_layers", "e_layers")
    return OnePrompt(prompt_context(config), **{name: config[name] for name in names})


def _vq(config: Config) -> VQPrompt:
    return VQPrompt(
        prompt_context(config),
        pool=config["pool"],
        length=config["length"],
        temperature=config["temperature"],
        commitment_weight=config["vq_coef"],
        codebook_weight=config["commit_coef"],
        layers=config["layers"],
    )


def _holder(method: PromptMethod) -> nn.Module:
    """Return the module with the parameters named `key`, `prompt`, ... in the golden files."""
    return method.pool if isinstance(method, CodaPrompt) else method


def _prompt_case(method: PromptMethod, config: Config, tensors: Tensors) -> Result:
    load(_holder(method), below(tensors, "param."))
    method.train(config["train"])
    query = tensors["in.query"]
    prompts = method(query, config.get("task_id", 0))
    total = sum(prompts.losses.values(), query.new_zeros(()))
    result: Result = {"prompt_loss": total.item()}
    for layer in config["layers"]:
        result[f"prompt_loss_per_layer.{layer}"] = torch.as_tensor(
            prompts.losses.get(layer, 0.0)
        ).item()
    objective = total
    for layer, pair in prompts.prefixes.items():
        keys, values = (half.expand(len(query), -1, -1) for half in pair)
        result[f"out.k_{layer}"], result[f"out.v_{layer}"] = keys.detach(), values.detach()
        if f"in.weight_k_{layer}" not in tensors:  # the case has no gradients
            continue
        objective = objective + (keys * tensors[f"in.weight_k_{layer}"]).sum()
        objective = objective + (values * tensors[f"in.weight_v_{layer}"]).sum()
    if not objective.requires_grad:
        return result
    objective.backward()
    result["objective"] = objective.item()
    for name, parameter in _holder(method).named_parameters():
        grad = parameter.grad
        result[f"out.grad_{name}"] = torch.zeros_like(parameter) if grad is None else grad
    return result


def _prompt_vq(config: Config, tensors: Tensors) -> Result:
    method = _vq(config)
    result = _prompt_case(method, config, tensors)
    _, index = method.select(tensors["in.query"])
    chosen = zip(config["layers"], index, strict=True)
    return result | {f"out.index_{layer}": rows for layer, rows in chosen}


def _prompt_apt(config: Config, tensors: Tensors) -> Result:
    method = _apt(config).train(config["train"])
    result: Result = {"prompt_loss": 0.0}
    if config["train"]:
        load(method, below(tensors, "param."))
    for task in range(config.get("n_merges", 0)):
        load(method, {"prompt_tokens": tensors[f"param.prompt_tokens_after_task{task}"]})
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


def _vit_forward(config: Config, tensors: Tensors) -> Result:
    parameters = below(tensors, "param.")
    learnt = ("kd_token", "kd_prompt_", "prompt_tokens")
    frozen = {k: t for k, t in parameters.items() if not k.startswith(learnt)}
    backbone = FrozenViT(vit(config, config, frozen), [0.0] * 3, [1.0] * 3, "golden")
    leaves = {k: leaf(t) for k, t in parameters.items() if k.startswith(learnt)}
    leaves |= {k: leaf(t) for k, t in below(tensors, "in.").items() if k.startswith("prefix_")}
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
    encoded = encode(backbone.model, tensors["in.images"], injection)
    objective = (encoded.tokens * tensors["in.weight_tokens"]).sum()
    if leaves:
        objective.backward()
    result: Result = {"out.tokens": encoded.tokens.detach(), "objective": objective.item()}
    return result | {f"out.grad_{name}": leaf.grad for name, leaf in leaves.items()}


KINDS: Kinds = {
    "prompt_l2p": lambda c, t: _prompt_case(_l2p(c), c, t),
    "prompt_dual": lambda c, t: _prompt_case(_dual(c), c, t),
    "prompt_coda": lambda c, t: _prompt_case(_coda(c), c, t),
    "prompt_apt": _prompt_apt,
    "prompt_one": lambda c, t: _prompt_case(_one(c), c, t),
    "prompt_vq": _prompt_vq,
    "vit_forward": lambda c, t: _vit_forward(c, floats(t)),
}
