"""A learner after a task with the backbones of its queries: from views to logits."""

from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.vit import BlockInputs
from cdl.models.learner import Learner


class Model(nn.Module):
    """A learner after a task, with the frozen backbones that compute its queries."""

    def __init__(
        self,
        learner: Learner,
        task: int,
        n_classes: int,
        query: Backbone | None = None,
        teacher_query: Backbone | None = None,
    ) -> None:
        """Set all modules to eval mode, without gradients.

        Args:
            learner: learner after `task`.
            task: the last task learnt, counted from 0.
            n_classes: number of classes learnt up to `task`, `C`.
            query: the backbone whose query selects the prompts; None for methods without a query.
            teacher_query: the backbone of the teacher's query, which selects mapped teacher
                prompts; None for distillers that map none.
        """
        super().__init__()
        self.learner, self.query, self.teacher_query = learner, query, teacher_query
        self.task, self.n_classes = task, n_classes
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """Return logits `[B, C]` like the evaluation.

        Views are `[B, 3, size, size]` in 0..1, or ids of tokens `[B, N]`.

        If the student's own backbone computes the query, the query pass and the prompted pass share
        all blocks before the first prompted one.
        """
        return self.outputs(views)[0]

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `[B, C]` and the tokens `[B, T, D]` that the heads read."""
        query, teacher_query, block_inputs = self.queries(views)
        output = self.learner(views, query, self.task, teacher_query, resume_from=block_inputs)
        return self.learner.predict(output, self.n_classes), output.tokens

    def queries(self, views: Tensor) -> tuple[Tensor | None, Tensor | None, BlockInputs | None]:
        """Return the queries `[B, Dq]` of student and teacher, and the inputs of shared blocks."""
        if self.query is None:
            return None, None, None
        encoded = self.query.encode(views, keep_inputs=self.query is self.learner.backbone)
        query = teacher_query = encoded.features[:, 0]
        if self.teacher_query is not None and self.teacher_query is not self.query:
            teacher_query = self.teacher_query.query(views)
        return query, teacher_query, encoded.block_inputs

    def predict_from(
        self,
        views: Tensor,
        query: Tensor | None,
        teacher_query: Tensor | None,
    ) -> Tensor:
        """Return logits `[B, C]` of views with given queries."""
        output = self.learner(views, query, self.task, teacher_query)
        return self.learner.predict(output, self.n_classes)
