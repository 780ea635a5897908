"""Modules that grow with the tasks: what is loaded into them says how far they have grown."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Growing(nn.Module):
    """A module some of whose tensors gain rows with every task.

    Loading a state makes these as long as they are there; all other sizes must fit, as always.

    Attributes:
        grows: by the name of a parameter or buffer, the dimension in which it grows.
    """

    grows: Mapping[str, int] = {}

    @torch.no_grad()
    def append(self, n: int, **rows: Tensor) -> None:
        """Put rows, from any device, behind the first `n` of the tensors that they are named by."""
        for name, new in rows.items():
            old, dim = getattr(self, name), self.grows[name]
            self._replace(name, torch.cat([old.detach().narrow(dim, 0, n), new.to(old)], dim))

    def _replace(self, name: str, value: Tensor) -> None:
        old = getattr(self, name)
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        setattr(self, name, value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for name, dim in self.grows.items():
            old, given = getattr(self, name), state_dict.get(prefix + name)
            if given is None or given.dim() != old.dim() or given.shape == old.shape:
                continue
            shape = list(old.shape)
            shape[dim] = given.shape[dim]
            self._replace(name, old.new_empty(shape))
        super()._load_from_state_dict(state_dict, prefix, *others)
