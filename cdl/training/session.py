"""What a method does with a task's images besides training: reading them, and a first session."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from cdl.backbones.vit import Injection, Inside
from cdl.data.labels import learnt_from
from cdl.methods.base import ReadTask
from cdl.methods.heads import PrototypeHead
from cdl.models.learner import Learner
from cdl.runtime.seeds import generator
from cdl.spec import LearnerSpec
from cdl.training.context import TaskContext
from cdl.training.targets import over_task_images


def images_read(context: TaskContext[LearnerSpec]) -> Tensor:
    """Return the positions of the images that a method reads in a task.

    They are the images that the learner is trained on: those with a label, and all if the others
    have targets; images of `unlabelled` are not among them.
    """
    own = len(context.indices(context.task)[0])
    return learnt_from(context.labels[:own], context.learns_unlabelled)


def reading(context: TaskContext[LearnerSpec], learner: Learner) -> ReadTask:
    """Return the `read` of `PromptMethod.before_training` for the images of a task."""

    def read(inside: Inside) -> Tensor:
        learner.eval()
        injection = Injection(inside=inside)

        def features(images: Tensor, _: Tensor) -> Tensor:
            inputs = learner.backbone.prepare(images)
            return learner.backbone.encode(inputs, injection).features[:, 0]

        return over_task_images(context, features, images_read(context))

    return read


@contextmanager
def session_head(context: TaskContext[LearnerSpec], learner: Learner) -> Iterator[None]:
    """Give a learner the head of a session; afterwards its own head, which adopts the scale."""
    head, task = learner.head, context.task
    assert isinstance(head, PrototypeHead), "methods that solve have this head"
    source = generator(*context.spec.keys, "session", task)
    classes = context.stream.classes(task).stop
    session = learner.prompts.session_head(learner.backbone.width, classes, source)
    learner.head = session.to(learner.backbone.device)
    try:
        yield
    finally:
        learner.head = head
    head.adopt(session)
