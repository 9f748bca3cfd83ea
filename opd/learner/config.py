"""Settings of the model that is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from opd.learner.lora import Lora
from opd.models.loading import resolve_model
from opd.protocols import ModelSource
from opd.types import Pretrained


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
        return Pretrained(resolve_model(self.model), self.trust_remote_code)
