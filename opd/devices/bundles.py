"""What a run asks a Ray cluster for: cores and GPUs of a node for every rank, with its engines for the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opd.types import UserError

Bundle = dict[str, float]
"""How many of what a node has, by Ray's names for it: CPU, GPU."""


@dataclass(frozen=True)
class Wanted:
    """Room for ranks, and for engines on the first one's node, which share memory with it."""

    ranks: int | None
    """None: one for every GPU of the cluster that is no engine's."""
    cpus: int
    """Cores of each."""
    engines: int = 0
    threads: int = 1
    """Cores of each device of an engine."""
    each: int = 1
    """Devices, GPUs where there are any, of each engine."""

    @property
    def cores(self) -> int | None:
        """Of all together; None: it depends on the cluster."""
        return self.cpus * self.ranks + self.threads * self.engines * self.each if self.ranks else None

    def bundles(self, have: Mapping[str, float]) -> list[Bundle]:
        """What each rank takes of its node, the first one with its engines; GPUs, where the cluster has any.

        Args:
            have: what the cluster has in all.

        Raises:
            UserError: the number of ranks is not given, and there are no GPUs for them.
        """
        gpus = int(have.get("GPU", 0))
        count = self.ranks or max(0, gpus - self.engines * self.each)
        if not count:
            spread = f" devices.tensor_parallel={self.each}" if self.each > 1 else ""
            there = f"{gpus} GPUs, of which devices.engines={self.engines}{spread} leaves none" if gpus else "no GPU"
            raise UserError(f"devices.ranks=null: the cluster has {there}; give their number, as in devices.ranks=2")
        rank = {"CPU": float(self.cpus)} | ({"GPU": 1.0} if gpus else {})
        engine = {"CPU": self.threads * self.each, "GPU": self.each}
        first = {name: own + self.engines * engine[name] for name, own in rank.items()}
        return [first, *[rank] * (count - 1)]

    def refused(self, bundles: Sequence[Bundle], nodes: Sequence[Mapping[str, float]], wait: float) -> str:
        """That there was no room within `wait` seconds on nodes that have so much each, and what to do about it."""
        first, *others = bundles
        asked, takes = [f"devices.ranks={len(bundles)}"], [f"each takes {said(bundle)}" for bundle in others[:1]]
        if self.engines:
            asked.append(f"devices.engines={self.engines}")
            asked += [f"devices.tensor_parallel={self.each}"] if self.each > 1 else []
            takes.append(f"the first one, with its engines on one node, takes {said(first)}")
        return (
            f"{' '.join(asked)}: the cluster had no room for them within {wait:g} s (devices.wait); "
            f"{'; '.join(takes) or f'it takes {said(first)}'}; its nodes: {sizes(nodes)}{self._instead(first, nodes)}"
        )

    def _instead(self, first: Bundle, nodes: Sequence[Mapping[str, float]]) -> str:
        """What to give where no node could ever hold the first rank with its engines; empty where one could."""
        if not self.engines or any(all(node.get(name, 0) >= own for name, own in first.items()) for node in nodes):
            return ""
        most = max((self._engines_on(node, "GPU" in first) for node in nodes), default=0)
        if most > 0:
            return f"; take devices.engines={most}"
        return "; none has room for a rank and one engine: take devices.engines=0, and every rank has its own"

    def _engines_on(self, node: Mapping[str, float], gpus: bool) -> int:
        """How many there is room for beside a rank."""
        cores = int((node.get("CPU", 0) - self.cpus) // (self.threads * self.each))
        return min(cores, (int(node.get("GPU", 0)) - 1) // self.each) if gpus else cores


def ranked(on: Mapping[int, str], here: str, engines: int) -> list[int]:
    """Bundles in the order of ranks: those of one node together, those of the first one's node first.

    Args:
        on: the node of each.
        here: the node that the run was started on.
        engines: how many come with the first bundle, which is then the first rank's, wherever that is.
    """
    first = on[0] if engines else here
    return sorted(on, key=lambda bundle: (on[bundle] != first, on[bundle] != here, on[bundle], bundle))


def said(resources: Mapping[str, float]) -> str:
    """Cores and GPUs, as people are told of them."""
    return ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if name in resources) or "none"


def sizes(nodes: Sequence[Mapping[str, float]]) -> str:
    """How many nodes there are of which size."""
    kinds = Counter(said(node) for node in nodes)
    return " and ".join(f"{count} of {size}" for size, count in kinds.items()) or "none"
