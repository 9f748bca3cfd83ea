"""What an export can be: safetensors, whole or packed, an adapter, or GGUF; written, and read back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from opd.commands.export.order import DTYPES, Order
from opd.commands.subject import Subject, load_adapter
from opd.learner.lora import merged_weights
from opd.models.ggufs import read_gguf, write_gguf
from opd.models.loading import load_causal_lm, stop_ids, tokenizer_of
from opd.models.naming import remade
from opd.teachers.quantized import load_quantized
from opd.text.modelfile import modelfile
from opd.text.script import Script
from opd.types import Pretrained

PLAIN = ".plain"


@dataclass(frozen=True)
class Written:
    """An export that has no name yet."""

    folder: Path
    order: Order
    file: Path
    """Of a GGUF export; else its folder."""

    def readable(self, subject: Subject) -> Pretrained:
        """What tokenizer and config are read from: the export; beside a GGUF file, which holds its own, the base."""
        return subject.base if self.order.format == "gguf" else replace(subject.base, path=str(self.folder))


def write(subject: Subject, learner: Any, folder: Path, order: Order) -> Written:
    """Write the learner's model to a folder, with its tokenizer."""
    tokenizer = tokenizer_of(subject.base)
    if order.format == "gguf":
        return _write_gguf(subject, merged(subject, learner, tokenizer), tokenizer, folder, order)
    if order.adapter:
        learner.save_pretrained(folder)
    elif order.quantize:
        _write_packed(subject, merged(subject, learner, tokenizer), folder, order.quantize)
    else:
        merged(subject, learner, tokenizer).to(getattr(torch, order.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Written(folder, order, folder)


def merged(subject: Subject, learner: Any, tokenizer: Any) -> Any:
    """The learner's model in float32, an adapter merged into it, and every end of a completion in its settings."""
    inner = learner.get_base_model() if hasattr(learner, "peft_config") else learner
    model = remade(inner, merged_weights(learner))
    model.generation_config.eos_token_id = list(stop_ids(subject.base, tokenizer))
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def read_back(subject: Subject, written: Written) -> Any:
    """The export in transformers, as it is read by others; GGUF in float32, as its weights are packed."""
    order, cpu = written.order, torch.device("cpu")
    if order.adapter:
        found = load_adapter(subject.config, written.folder)
    elif order.format == "gguf":
        found = read_gguf(written.file)
    elif order.quantize:
        found = load_causal_lm(written.readable(subject), torch.bfloat16, device_map={"": cpu})
    else:
        found = load_causal_lm(written.readable(subject), getattr(torch, order.dtype), device=cpu)
    return found.eval().requires_grad_(False)


def _write_packed(subject: Subject, model: Any, folder: Path, bits: Any) -> None:
    """Packed by what packs teachers; transformers writes what the libraries' tensors hold as safetensors."""
    plain = folder / PLAIN
    model.to(torch.bfloat16).save_pretrained(plain)
    packed = load_quantized(
        replace(subject.base, path=str(plain)), bits, torch.bfloat16, "auto", torch.device("cpu"), "--quantize"
    )
    packed.generation_config = model.generation_config
    packed.save_pretrained(folder)
    shutil.rmtree(plain)


def _write_gguf(subject: Subject, model: Any, tokenizer: Any, folder: Path, order: Order) -> Written:
    cfg, kind = subject.config, order.quantize or DTYPES[order.dtype]
    file = folder / f"{cfg.name}-{kind.upper()}.gguf"
    stop = stop_ids(subject.base, tokenizer)
    begins = write_gguf(model, tokenizer, stop, file, kind.upper(), cfg.name)
    script = Script(tokenizer, cfg.data.template, cfg.data.template_kwargs)
    text = modelfile(
        script, file.name, begins=begins, stop=stop, temperature=cfg.sampling.temperature,
        context=model.config.max_position_embeddings, longest=cfg.longest, system=cfg.data.system,
    )  # fmt: skip
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return Written(folder, order, file)
