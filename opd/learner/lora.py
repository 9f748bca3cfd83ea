"""Low-rank adapters: put on a model, and merged on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from opd.learner.config import Lora
from opd.models.finite import not_finite
from opd.models.naming import checkpoint_names
from opd.models.shards import whole
from opd.types import UserError


@torch.no_grad()
def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under checkpoint names, each LoRA layer's delta added to a copy of its weight."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    yield from checkpoint_names(inner, _merged(inner))


def _merged(inner: Any) -> Iterator[tuple[str, Tensor]]:
    deltas = {f"{name}.base_layer.weight": m for name, m in inner.named_modules() if hasattr(m, "get_delta_weight")}
    for name, value in inner.state_dict().items():
        if ".lora_" in name:
            continue
        if name in deltas:
            value = (value.float() + deltas[name].get_delta_weight("default").float()).to(value.dtype)
        yield name.replace(".base_layer.", "."), whole(value)


def read_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """Put the adapter of a folder on a model; UserError where not all of it finds its place."""
    from peft import PeftModel, get_peft_model_state_dict

    file = folder / "adapter_model.safetensors"
    try:
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
        if file.is_file():  # peft leaves out what has no place, and draws what is missing
            with safe_open(file, framework="pt") as tensors:
                odd = sorted(set(tensors.keys()) ^ set(get_peft_model_state_dict(adapted)))
            if odd:
                raise ValueError(f"{odd[0]} is in one of them only")
        if problem := not_finite((name, p) for name, p in adapted.named_parameters() if ".lora_" in name):
            raise ValueError(f"{problem} is not finite")
    except Exception as e:  # peft's, torch's or JSON's, all of which say why
        why = shorten(str(e) or type(e).__name__, 300, placeholder=" ...")
        raise UserError(
            f"{folder}: this adapter does not fit {model.name_or_path}, or adapter_config.json is not its own ({why}); "
            "put back what was changed, or take another checkpoint"
        ) from e
    return adapted


def with_lora(model: Any, lora: Lora, adapter: str | None) -> Any:
    """Put adapters on a model: new ones, or those of the folder `adapter`; UserError where they cannot be there."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import ParamWrapper

    if adapter is not None:
        return read_adapter(model, Path(adapter), trainable=True)
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    alpha = lora.alpha if lora.alpha is not None else lora.rank
    # peft computes alpha / rank; its type hint asks for an int but the value is only ever divided.
    config = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as e:
        raise UserError(f"student.lora.targets={lora.targets!r}: {str(e).splitlines()[0]}") from e
    base = adapted.get_base_model()
    if any(isinstance(module, ParamWrapper) for module in base.modules()):  # they have no weight of their own to merge
        raise UserError(
            f"student.lora.targets={lora.targets!r}: it names a mixture's experts, which get no adapters here; "
            "allowed are layers by name, such as [q_proj,k_proj,v_proj,o_proj]"
        )
    tops = {"output head": base.get_output_embeddings()}
    if base.config.get_text_config().tie_word_embeddings:  # then an adapter on the one is none on the other
        tops["embedding, which is tied to the output head"] = base.get_input_embeddings()
    for name, module in tops.items():
        if hasattr(module, "lora_A"):
            raise UserError(f"student.lora.targets={lora.targets!r}: it names the {name}; that has to stay as it is")
    return adapted
