"""Toy learners: every method that trains, every distiller, at sizes that run in milliseconds."""

import torch

from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Injection
from cdl.models.build import build
from cdl.models.teacher import Teacher
from cdl.spec import Distiller, Method

N_CLASSES, TASKS = 7, (slice(0, 4), slice(4, 7))

METHODS = {
    "l2p": {"pool": 6, "length": 4, "top_k": 2},
    "dual_prompt": {"pool": 3, "length": 4, "g_length": 2},
    "coda_prompt": {"pool": 6, "length": 4, "ortho_weight": 0.1},
    "apt": {},
    "one_prompt": {"length": 6, "g_length": 4},
    "vq_prompt": {"pool": 3, "length": 4},
    "lora": {"rank": 2},
    "adapter": {"bottleneck": 3},
    "inf_lora": {"rank": 2},
    "sd_lora": {"ranks": [3, 2]},
    "ssiat": {"bottleneck": 3},
    "head_only": {},
}
DISTILLERS = {
    "none": {},
    "kd": {},
    "tf_kd": {},
    "dkd": {},
    "dist": {},
    "lwf": {},
    "se2d": {},
    "fitnets": {},
    "cls_feature": {},
    "reviewkd": {},
    "kd_token": {},
    "kd_prompt": {},
    "cdl_prompt": {"pool": 4, "length": 4},
}
MAPPABLE = ("l2p", "dual_prompt", "coda_prompt", "one_prompt", "vq_prompt")


def possible(method, distiller):
    return distiller != "cdl_prompt" or method in MAPPABLE


def learner(
    backbone, method, distiller="none", teacher=None, query=None, options=(), seed=0, inputs=None
):
    """A learner at the start of task 0; `inputs` are read before training, by default images."""
    made = build(
        backbone=backbone,
        query_width=(query or backbone).width,
        method=Method(method, METHODS[method]),
        distiller=Distiller(distiller, {**DISTILLERS[distiller], **dict(options)}),
        n_classes=N_CLASSES,
        n_tasks=len(TASKS),
        keys=(seed, "student" if teacher else "any"),
        teacher=None if teacher is None else BackboneShape(teacher.width, teacher.depth),
        teacher_query_width=None if teacher is None else (query or backbone).width,
    )
    made.start_task(0, 0, seed)
    made.prompts.before_training(0, reading(made, inputs))
    return made


def reading(made, inputs=None, n=6):
    """The `read` of `PromptMethod.before_training` for inputs, by default `n` random images."""
    inputs = batch(n)[0] if inputs is None else inputs

    def read(inside):
        with torch.no_grad():
            return made.backbone.encode(inputs, Injection(inside=inside)).features[:, 0]

    return read


def pair(toy_backbone, method, distiller, options=()):
    """A student and its frozen teacher, which is wider and deeper; query from the student."""
    large, small = toy_backbone(24, 7, seed=1), toy_backbone(12, 6)
    tutor = learner(large, method, query=small, seed=1)
    student = learner(small, method, distiller, teacher=large, options=options)
    student.distiller.read_teacher(tutor.prompts.state_dict())
    return student, Teacher(tutor)


def batch(n=5, task=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 8, 8, generator=generator)
    classes = TASKS[task]
    return images, torch.randint(classes.start, classes.stop, (n,), generator=generator)
