"""Cases of one training step of a learner, up to its gradients."""

from common import Config, Kinds, Result, Tensors, below, load, vit

from cdl.backbones.images import FrozenViT
from cdl.models.build import build
from cdl.spec import Distiller, Method

_OPTIONS = {
    "one_prompt": ("length", "g_length", "g_layers", "e_layers"),
    "vq_prompt": ("pool", "length", "temperature", "layers"),
}
_WEIGHTS = {"vq_coef": "commitment_weight", "commit_coef": "codebook_weight"}


def _step(name: str, config: Config, tensors: Tensors) -> Result:
    shape = {"img_size": config["image"], "patch_size": config["patch"]}
    frozen = vit(config, shape, below(tensors, "param.backbone."))
    backbone = FrozenViT(frozen, [0.0] * 3, [1.0] * 3, "golden")
    options = {option: config[option] for option in _OPTIONS[name]}
    options |= {own: config[golden] for golden, own in _WEIGHTS.items() if golden in config}
    learner = build(
        backbone=backbone,
        query_width=config["dim"],
        method=Method(name, options),
        distiller=Distiller("none", {}),
        n_classes=config["classes"],
        n_tasks=1,
        keys=("golden",),
    ).train()
    head = below(tensors, "param.head.")
    golden = {k: t for k, t in below(tensors, "param.").items() if "." not in k}
    load(learner.prompts, golden)
    load(learner.head.linear, head)
    images, labels = tensors["in.images"], tensors["in.targets"]
    query = backbone.query(images)
    output = learner(images, query if learner.needs_query else None, 0)
    classes = slice(config["class_start"], config["class_end"])
    losses = learner.losses(output, None, labels, classes)
    total = sum(losses.values())
    total.backward()
    own = {f"out.grad_{k}": learner.prompts.get_parameter(k).grad for k in golden}
    return {
        "loss": total.item(),
        "prompt_loss": losses["prompt"].item(),
        "out.logits": output.logits.detach(),
        "out.query": query,
        **own,
        **{f"out.grad_head.{k}": learner.head.linear.get_parameter(k).grad for k in head},
    }


KINDS: Kinds = {
    "step_one": lambda c, t: _step("one_prompt", c, t),
    "step_vq": lambda c, t: _step("vq_prompt", c, t),
}
