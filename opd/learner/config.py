"""Settings of the model that is trained; brings no torch, so that a mistake in a key is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from opd.protocols import ModelSource
from opd.types import Pretrained


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters instead of full fine-tuning (Hu et al., 2021), through peft."""

    rank: Annotated[int, Field(ge=1, le=2**16)] = 32
    """Rows of the two factors that an adapter is made of."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Scale is alpha / rank; None: alpha = rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's input that is left out at random; 0 for policy gradients."""
    targets: str | tuple[str, ...] = "all-linear"
    """Module names, or `all-linear`: every linear layer but the output head."""


@dataclass(frozen=True)
class StudentConfig:
    """The model to train."""

    model: str | ModelSource
    """Hub name, folder, or a `_target_` that makes one."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What forward and backward compute in, `auto`: what the device is fast in; trained weights are float32 always."""
    lora: Lora | None = None
    """Adapters that are trained in the place of all weights; None: all weights."""
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: a third more work, much less memory."""
    attention: str = "auto"
    """transformers' attention implementation: `auto` is its choice; `flash_attention_2` where it is installed."""
    device: str = "auto"
    """A torch device; `auto` is `cuda` where there is one, else `cpu`."""
    trust_remote_code: bool = False
    """Run the code that comes with the model's files."""
    offload: bool = False
    """Keep the weights in the host's memory while the learner does not work, to leave the GPU to engine and teacher."""

    @property
    def pretrained(self) -> Pretrained:
        """What it starts from, made on first use where it is a source."""
        return Pretrained(self.model if isinstance(self.model, str) else self.model.path(), self.trust_remote_code)
