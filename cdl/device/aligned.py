"""Memory of class statistics, for linear heads that are aligned, or solved as a ridge regression.

Its tensors are `counts [C]`, `TOKEN.mean [C, D]` and `TOKEN.spread` of every token with a head;
`HEAD.weight` and `HEAD.bias`, the heads in use, and `HEAD.trained.*`, from which the alignment
starts. `sizes` are the classes of each task, `alignment` those of `cdl.spec.SampledAlignment`.
"""

from typing import Self

import numpy as np

from cdl.device.aligning import Rows, align, head_logits, started
from cdl.device.closed import Statistics, pack, unpack
from cdl.device.memory import How, Memory, Tensors
from cdl.device.sealed import check_json

_STATISTICS = ("covariance", "variance", "centroid")
_HOW = {"statistic": _STATISTICS, "samples": range(1, 10**6), "epochs": range(1, 10**6)}
_ALIGNED = {"sizes": [range(2**31)], "closed": bool, "alignment": _HOW}


class AlignedMemory(Memory, kind="aligned"):
    """Class statistics for linear heads that are aligned, or solved as a ridge regression."""

    updating = ("spread", "trained")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        check_json(self.about, {"heads": [{"name": str, "part": str}], **_ALIGNED})
        sizes, heads, n = self.about["sizes"], self.about["heads"], len(self.tensors["counts"])
        if sum(sizes) != n:
            raise ValueError(f"sizes: the sum of {sizes!r:.50} is not {n}")
        width = self.tensors[f"{heads[0]['name']}.weight"].shape[-1]
        wide = self.about["alignment"]["statistic"] == "covariance"
        spread, found = width * (width + 1) // 2 if wide else width, dict[str, tuple[int, ...]]()
        for head in heads:
            found |= {f"{head['part']}.mean": (n, width), f"{head['part']}.spread": (n, spread)}
            for kind in ("", "trained."):
                own = f"{head['name']}.{kind}"
                found |= {f"{own}weight": (n, width), f"{own}bias": (n,)}
        return found

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        total = np.zeros(())
        for head in self.about["heads"]:
            rows, normalised = self._rows(head["name"]), head["normalised"]
            if self.about["closed"]:
                normalised = False
            own = head_logits(rows, tokens[:, head["token"]], normalised)
            total = total + head["factor"] * own
        return total.astype(np.float32)

    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "AlignedMemory":
        more = n - len(self.tensors["counts"])
        sizes = [*self.about["sizes"], *([more] if more else [])]
        about = {**self.about, "updates": self.about["updates"] + 1, "sizes": sizes}
        about["closed"] = self.about["closed"] if how.head is None else how.head == "ridge"
        about["balance"] = how.balance
        new, found = dict(self.tensors), {}
        for one in self.about["heads"]:
            part = one["part"]
            if part not in found:
                old = self._statistics(part)
                found[part] = old.added(tokens[:, one["token"]], labels, n)
                new |= self._stored(part, found[part])
        for i, one in enumerate(self.about["heads"]):
            name, own = one["name"], found[one["part"]]
            again = self.about["alignment"]["next_task"] == "trained" or self.about["closed"]
            trained = self._rows(f"{name}.trained")
            rows = trained if again else self._rows(name)
            if more:
                rows = started(rows, own, one["normalised"])
                trained = _joined(trained[0], rows[0]), _joined(trained[1], rows[1])
            new |= _named(f"{name}.trained", trained)
            if about["closed"]:
                rows = _ridge(own, about["balance"])
            else:
                key = 2 * about["updates"] + i
                rows = align(rows, own, sizes, self.about["alignment"], key, one["normalised"])
            new |= _named(name, rows)
        return AlignedMemory(about, new)

    def means(self) -> np.ndarray:
        return self.tensors[f"{self.about['heads'][0]['part']}.mean"]

    def features(self, tokens: np.ndarray) -> np.ndarray:
        found: np.ndarray = tokens[:, self.about["heads"][0]["token"]]
        return found

    def forget(self, label: int) -> Self:
        """Return the memory without a class; the other rows of aligned heads stay."""
        found, sizes = super().forget(label), [*self.about["sizes"]]
        sizes[int(np.searchsorted(np.cumsum(sizes), label, side="right"))] -= 1
        found.about["sizes"] = [size for size in sizes if size]
        for one in found.about["heads"] if found.about["closed"] else ():
            rows = _ridge(found._statistics(one["part"]), found.about.get("balance", True))
            found.tensors |= _named(one["name"], rows)
        return found

    def _statistics(self, part: str) -> Statistics:
        kind, spread = self.about["alignment"]["statistic"], self.tensors[f"{part}.spread"]
        spread = unpack(spread) if kind == "covariance" else spread
        return Statistics(self.tensors[f"{part}.mean"], spread, self.tensors["counts"], kind)

    def _stored(self, part: str, found: Statistics) -> Tensors:
        spread = pack(found.spread) if found.kind == "covariance" else found.spread
        named = {f"{part}.mean": found.mean, f"{part}.spread": spread, "counts": found.counts}
        return {name: tensor.astype(np.float32) for name, tensor in named.items()}

    def _rows(self, name: str) -> Rows:
        weight, bias = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias"))
        return weight.astype(np.float64), bias.astype(np.float64)


def _ridge(statistics: Statistics, balance: bool) -> Rows:
    """Return the rows of a ridge regression from class statistics."""
    weight = (statistics.even() if balance else statistics).ridge()
    return weight.astype(np.float64), np.zeros(len(weight))


def _joined(old: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return old rows and the new ones of `rows`."""
    return np.concatenate([old, rows[len(old) :]])


def _named(name: str, rows: Rows) -> Tensors:
    parts = zip(("weight", "bias"), rows, strict=True)
    return {f"{name}.{part}": tensor.astype(np.float32) for part, tensor in parts}
