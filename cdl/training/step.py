"""One optimisation step of a learner, run eagerly or as a CUDA graph."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.models.learner import Learner
from cdl.runtime.errors import CdlError
from cdl.spec import Sgd

_WARM_UP = 3  # eager steps create lazy buffers, workspaces and Adam's moments before a capture


class Step:
    """Forward, backward and Adam (Kingma and Ba, 2015) or SGD, for batches of one shape.

    With `capture` the first steps run eagerly on a side stream. Then one step is captured without
    being executed; every later step copies its inputs and replays the captured kernels, which
    avoids the launch overhead of Python.

    Attributes:
        parts: names of the losses, set by the first step.
        optimizer: a new Adam without weight decay, or SGD.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        task: int,
        classes: slice,
        lr: float,
        betas: tuple[float, float],
        sgd: Sgd | None = None,
        capture: bool = False,
    ) -> None:
        """Create the step of a task.

        Args:
            learner: in training mode, with `start_task` done.
            task: counted from 0.
            classes: columns of the task.
            lr: initial learning rate.
            betas: betas of Adam.
            sgd: options of SGD; None uses Adam.
            capture: replay the step as a CUDA graph; the learner must be on a GPU.
        """
        self.learner, self.task, self.classes = learner, task, classes
        self.parts: list[str] = []
        parameters = learner.learnables()
        on_gpu = parameters[0].is_cuda
        rate = torch.tensor(lr, device=parameters[0].device) if capture else lr
        self.optimizer: torch.optim.Optimizer
        if sgd is None:
            self.optimizer = torch.optim.Adam(
                parameters, lr=rate, betas=betas, fused=on_gpu, capturable=capture
            )
        else:
            self.optimizer = torch.optim.SGD(
                parameters, rate, sgd.momentum, weight_decay=sgd.weight_decay, fused=on_gpu
            )
        self._capture, self._steps = capture, 0
        self._side = torch.cuda.Stream() if capture else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._losses = torch.empty(0)

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors, by parameter index and name."""
        state = self.optimizer.state_dict()["state"]
        named = {f"{i}.{name}": t for i, own in state.items() for name, t in own.items()}
        return {name: t for name, t in named.items() if t is not None}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a result of `state`."""
        nested: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            i, name = key.split(".", 1)
            nested.setdefault(int(i), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": nested, "param_groups": groups})

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the following steps."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(
        self, batch: Batch, query: Tensor | None, teacher_output: TeacherOutput | None
    ) -> Tensor:
        """Train on one batch; return its losses `[len(parts)]` before the update."""
        self._steps += 1
        batch = replace(batch, views=self.learner.backbone.prepare(batch.views))
        if not self._capture:
            return self._step(batch.views, batch.labels, query, teacher_output)
        if self._steps <= _WARM_UP:
            assert self._side is not None
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                losses = self._step(batch.views, batch.labels, query, teacher_output)
            torch.cuda.current_stream().wait_stream(self._side)
            return losses
        inputs = _tensors(batch, query, teacher_output)
        if self._graph is None:
            self._graph = self._record(batch, query, teacher_output)
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        self._graph.replay()
        return self._losses.clone()

    def _step(
        self,
        inputs: Tensor,
        labels: Tensor,
        query: Tensor | None,
        teacher_output: TeacherOutput | None,
    ) -> Tensor:
        teacher_query = teacher_output.query if teacher_output else None
        keep_blocks = self.learner.compared_blocks
        output = self.learner(inputs, query, self.task, teacher_query, keep_blocks)
        losses = self.learner.losses(output, teacher_output, labels, self.classes)
        self.parts = list(losses)
        self.optimizer.zero_grad(set_to_none=True)
        first, *others = losses.values()
        sum(others, first).backward()
        self.optimizer.step()
        return torch.stack([loss.detach() for loss in losses.values()])

    def _record(
        self, batch: Batch, query: Tensor | None, teacher_output: TeacherOutput | None
    ) -> torch.cuda.CUDAGraph:
        """Capture a step on copies of its inputs."""
        static = Batch(batch.views.clone(), batch.labels.clone(), batch.epoch, batch.positions)
        query = None if query is None else query.clone()
        if teacher_output is not None:
            teacher_query = None if teacher_output.query is None else teacher_output.query.clone()
            teacher_output = TeacherOutput(
                teacher_output.logits.clone(),
                teacher_query,
                tuple(b.clone() for b in teacher_output.blocks),
                None if teacher_output.past is None else teacher_output.past.clone(),
            )
        self._inputs = _tensors(static, query, teacher_output)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._losses = self._step(static.views, static.labels, query, teacher_output)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise CdlError(
                f"compute.capture: capturing the step as a CUDA graph failed ({error}); set "
                "compute.capture to false"
            ) from error
        return graph


def _tensors(
    batch: Batch, query: Tensor | None, teacher_output: TeacherOutput | None
) -> tuple[Tensor, ...]:
    given = [batch.views, batch.labels, query]
    if teacher_output is not None:
        given += [teacher_output.logits, teacher_output.query, teacher_output.past]
        given += teacher_output.blocks
    return tuple(tensor for tensor in given if tensor is not None)
