"""Modules that grow with the tasks; loading a state sets their size."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Growing(nn.Module):
    """A module with tensors that gain rows with every task.

    Loading a state resizes these tensors to the sizes in the state; all other sizes must match.

    Attributes:
        grows: the dimension in which each parameter or buffer grows, by its name.
    """

    grows: Mapping[str, int] = {}

    @torch.no_grad()
    def append(self, n: int, **rows: Tensor) -> None:
        """Truncate the named tensors to `n` rows and append new rows, from any device."""
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
