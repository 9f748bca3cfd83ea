"""What is asked of an export; brings no torch, so that what cannot be is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from opd.extras import install
from opd.teachers.quantized import need
from opd.types import UserError

if TYPE_CHECKING:
    from opd.commands.subject import Subject

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""What weights can be in, and what GGUF calls it."""
PACKED = {"safetensors": ("int8", "int4"), "gguf": ("q8_0",)}
"""What weights can be packed into, by format."""


@dataclass(frozen=True)
class Order:
    """What is asked of an export."""

    dtype: str = "bfloat16"
    adapter: bool = False
    format: str = "safetensors"
    quantize: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can be exported as; UserError."""
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype={self.dtype}: allowed are {', '.join(DTYPES)}")
        if self.format not in PACKED:
            raise UserError(f"--format={self.format}: allowed are {', '.join(PACKED)}")
        if self.quantize is not None and self.quantize not in PACKED[self.format]:
            raise UserError(
                f"--quantize={self.quantize}: allowed with --format {self.format} are {', '.join(PACKED[self.format])}"
            )
        if self.adapter and (self.format == "gguf" or self.quantize):
            raise UserError("--adapter: an adapter is written as safetensors, in its own dtype; leave the others out")

    @property
    def kind(self) -> str:
        """What the weights are in."""
        return self.quantize or self.dtype

    @property
    def suffix(self) -> str:
        """What tells its folder from that of the plain export."""
        if self.format == "gguf":
            return f"-gguf-{(self.quantize or DTYPES[self.dtype]).lower()}"
        return "-adapter" if self.adapter else f"-{self.quantize}" if self.quantize else ""

    def check_installed(self) -> None:
        """Refuse what needs a library that is not there."""
        if self.format == "gguf":
            if find_spec("gguf") is None:
                raise UserError(f"--format=gguf: it needs gguf, which is not installed:  {install('gguf')}")
        elif self.quantize:
            need(self.quantize, "--quantize")

    def check(self, subject: Subject) -> None:
        """Refuse what this run cannot be exported as, before anything is loaded."""
        self.check_installed()
        if self.adapter and subject.config.student.lora is None:
            raise UserError("--adapter: this run trained all weights, it has no adapter; leave --adapter out")
        if self.format == "gguf":
            from opd.models.ggufs import check_model

            check_model(subject.base)
