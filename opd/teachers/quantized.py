"""A causal language model whose linear layers hold packed weights; embedding and output head stay as they are."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from opd.extras import install
from opd.types import Pretrained, UserError

if TYPE_CHECKING:
    import torch

Bits = Literal["int8", "int4"]
LIBRARIES = {"int8": "torchao", "int4": "bitsandbytes"}
"""What packs the weights; both compute on CPUs and GPUs."""
BLOCK = 64
"""Weights that share a scale in 4 bits; the CPU kernel wants rows of whole blocks."""


def need(bits: str, setting: str) -> None:
    """UserError where the library that packs weights is not installed; `setting`: what asked for it."""
    if importlib.util.find_spec(LIBRARIES[bits]) is None:
        raise UserError(f"{setting}={bits}: it needs {LIBRARIES[bits]}, which is not installed:  {install('quant')}")


def load_quantized(
    model: Pretrained, bits: Bits, dtype: torch.dtype, attention: str, device: torch.device,
    setting: str = "teacher.quantization",
) -> Any:  # fmt: skip
    """Load a model and pack its weights: 8 bits with one scale per row, or 4 (NF4; Dettmers et al., 2023) in blocks.

    Raises:
        UserError: the library is not installed, there is no such model, its weights are not what its config says, or a
            CPU cannot compute with its layers.
    """
    need(bits, setting)
    from opd.models.files import check_files
    from opd.models.loading import load_causal_lm

    check_files(model)  # once they are packed nobody can tell
    _check_layers(model, f"{setting}={bits}")
    loaded = load_causal_lm(
        model, dtype, attention, device_map={"": device}, quantization_config=_settings(bits, dtype)
    )
    _check_shapes(loaded, model)
    if bits == "int4" and device.type == "cpu":
        for name, module in loaded.named_modules():
            if "4bit" in type(module).__name__ and module.in_features % BLOCK:
                raise UserError(
                    f"{setting}=int4: on a CPU layers must be a multiple of {BLOCK} wide, and {name} is "
                    f"{module.in_features}; use int8"
                )
    return loaded


def _check_layers(model: Pretrained, asked: str) -> None:
    """Refuse a model of which nothing would be packed: GPT-2's layers are of a class of their own."""
    from torch.nn import Linear

    from opd.models.loading import load_config, skeleton

    config = load_config(model)
    modules = skeleton(model, config)
    head = modules.get_output_embeddings()
    if not any(isinstance(module, Linear) and module is not head for module in modules.modules()):
        raise UserError(f"{asked}: {config.model_type} models have no layers that can be packed; leave it out")


def _check_shapes(loaded: Any, model: Pretrained) -> None:
    """Refuse packed weights of another shape than the config says, which transformers takes as they come."""
    from opd.models.loading import skeleton

    wanted = {name: p.shape for name, p in skeleton(model, loaded.config).named_parameters()}
    for name, p in loaded.named_parameters():
        found = getattr(getattr(p, "quant_state", None), "shape", p.shape)
        if name in wanted and tuple(found) != tuple(wanted[name]):
            raise UserError(
                f"{model.path!r}: its weights have {name} as {list(found)}, and its config asks for "
                f"{list(wanted[name])}; its config.json and its weights are of two models"
            )


def _settings(bits: Bits, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if bits == "int4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())
