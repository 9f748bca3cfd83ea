"""Accelerators by name: memory, peaks and links, as their makers' data sheets give them."""

from __future__ import annotations

from dataclasses import dataclass

from opd.hints import among
from opd.types import UserError

MIB, GIB = 2**20, 2**30
CONTEXT = GIB
"""Bytes of a GPU that its driver's context, loaded kernels and their workspaces take; approximate."""
SPARE = 0.05
"""Share of what is left that allocators lose to gaps, on a GPU."""
NODE = 8
"""GPUs of one machine, where there are more than it has."""
NETWORK = 50e9
"""Bytes a second and GPU between machines, each way: one 400 Gbit/s adapter for each GPU."""


@dataclass(frozen=True)
class Card:
    """One device. Rates are of dense products, a second; links count one way."""

    name: str
    memory: int
    """Bytes, as the driver lists them."""
    bfloat16: float
    """FLOP/s, sums in float32."""
    float32: float
    """FLOP/s without TF32, which torch leaves off unless it is told otherwise."""
    bandwidth: float
    """Bytes a second of its own memory."""
    link: float
    """Bytes a second to another one in the same machine."""
    host: float = 50e9
    """Bytes a second from pinned memory of the host: PCIe 5 x16, less what protocols take."""
    launch: float = 5e-6
    """Seconds of one small operation that has next to nothing to compute."""
    source: str = ""

    @property
    def cpu(self) -> bool:
        """Whether it is a processor with the machine's own memory."""
        return self.name == "cpu"

    @property
    def usable(self) -> int:
        """Bytes that a run can have."""
        return self.memory if self.cpu else int((self.memory - CONTEXT) * (1 - SPARE))

    def flops(self, dtype: str) -> float:
        """Peak FLOP/s of products in a number type, by its name; 16 bits are all alike."""
        return self.float32 if dtype == "float32" else self.bfloat16


def _card(name: str, mib: int, bfloat16: float, float32: float, bandwidth: float, link: float, source: str) -> Card:
    return Card(name, mib * MIB, bfloat16 * 1e12, float32 * 1e12, bandwidth * 1e9, link * 1e9, source=source)


CARDS = {
    card.name: card
    for card in (
        _card("b200", 183_359, 2250, 75, 7700, 900, "NVIDIA HGX B200 data sheet; NVLink 5"),
        _card("h200", 143_771, 989, 67, 4800, 450, "NVIDIA H200 SXM data sheet; NVLink 4"),
        _card("h100", 81_559, 989, 67, 3350, 450, "NVIDIA H100 SXM data sheet; NVLink 4"),
        _card("a100-80", 81_251, 312, 19.5, 2039, 300, "NVIDIA A100 80GB SXM data sheet; NVLink 3"),
        _card("a100-40", 40_536, 312, 19.5, 1555, 300, "NVIDIA A100 40GB SXM data sheet; NVLink 3"),
        _card("l40s", 46_068, 362, 91.6, 864, 32, "NVIDIA L40S data sheet; PCIe 4 x16"),
        _card("l4", 23_034, 121, 30.3, 300, 32, "NVIDIA L4 data sheet; PCIe 4 x16"),
        _card("a10", 23_028, 125, 31.2, 600, 32, "NVIDIA A10 data sheet; PCIe 4 x16"),
        _card("4090", 24_564, 165.2, 82.6, 1008, 32, "NVIDIA Ada GPU architecture; PCIe 4 x16"),
        _card("5090", 32_607, 209.5, 104.8, 1792, 64, "NVIDIA RTX Blackwell GPU architecture; PCIe 5 x16"),
    )
}
"""Data sheets give sparse peaks; these are the dense halves. Memory is what `nvidia-smi` lists."""


def card(name: str) -> Card:
    """One of `CARDS`; UserError where there is none of that name."""
    found = CARDS.get(name.lower())
    if found is None:
        raise UserError(f"--gpu {name}: no such card{among(name.lower(), list(CARDS))}, or cpu for this machine")
    return found
