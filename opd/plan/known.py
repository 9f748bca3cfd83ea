"""Sizes of public models that the shipped configs name, so that a plan needs no hub.

They are the models' published config.json, as far as a plan reads it; nothing of this was fetched for it. A folder of
that name, or any model that is not here, is read as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

QWEN3, QWEN2, GPT2, LLAMA, GEMMA3 = "Qwen3Config", "Qwen2Config", "GPT2Config", "LlamaConfig", "Gemma3TextConfig"
SMOLLM3, GLM4, GPT_OSS = "SmolLM3Config", "Glm4Config", "GptOssConfig"


def _grouped(hidden: int, inner: int, layers: int, heads: int, groups: int, tied: bool, **more: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "tie_word_embeddings": tied, "vocab_size": 151_936, **more,
    }  # fmt: skip


def _qwen3(hidden: int, inner: int, layers: int, heads: int, tied: bool) -> tuple[str, dict[str, Any]]:
    sizes = _grouped(hidden, inner, layers, heads, 8, tied, head_dim=128, max_position_embeddings=40_960)
    return QWEN3, sizes


def _qwen2(
    hidden: int, inner: int, layers: int, heads: int, groups: int, tied: bool, **more: int
) -> tuple[str, dict[str, Any]]:
    return QWEN2, _grouped(hidden, inner, layers, heads, groups, tied, **{"max_position_embeddings": 32_768, **more})


def _gpt2(hidden: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    return GPT2, {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": 50_257, "n_positions": 1024}


def _llama3(hidden: int, inner: int, layers: int, heads: int, head: int, tied: bool) -> tuple[str, dict[str, Any]]:
    more = {"head_dim": head, "vocab_size": 128_256, "max_position_embeddings": 131_072}
    return LLAMA, _grouped(hidden, inner, layers, heads, 8, tied, **more)


def _glm4(hidden: int, inner: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    more = {"head_dim": 128, "vocab_size": 151_552, "max_position_embeddings": 32_768}
    return GLM4, _grouped(hidden, inner, layers, heads, 2, False, **more)


_8B = _qwen3(4096, 12_288, 36, 32, tied=False)
_4B = _qwen3(2560, 9728, 36, 32, tied=True)
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, tied=True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, tied=True),
    "Qwen/Qwen3-4B": _4B,
    "Qwen/Qwen3-4B-Instruct-2507": (QWEN3, _4B[1] | {"max_position_embeddings": 262_144}),
    "Qwen/Qwen3-8B": _8B,
    "Qwen/Qwen3-8B-Base": (QWEN3, _8B[1] | {"max_position_embeddings": 32_768}),
    "Qwen/Qwen3-14B": _qwen3(5120, 17_408, 40, 40, tied=False),
    "Qwen/Qwen3-32B": _qwen3(5120, 25_600, 64, 64, tied=False),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(896, 4864, 24, 14, 2, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(1536, 8960, 28, 12, 2, tied=True),
    "Qwen/Qwen2.5-Math-7B-Instruct": _qwen2(
        3584, 18_944, 28, 28, 4, tied=False, vocab_size=152_064, max_position_embeddings=4096
    ),
    "openai-community/gpt2": _gpt2(768, 12, 12),
    "MiniLLM/init-gpt2-120M": _gpt2(768, 12, 12),
    "MiniLLM/teacher-gpt2-1.5B": _gpt2(1600, 48, 25),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        LLAMA,
        _grouped(576, 1536, 30, 9, 3, tied=True, vocab_size=49_152, max_position_embeddings=8192),
    ),
    "HuggingFaceTB/SmolLM3-3B": (
        SMOLLM3,
        _grouped(2048, 11_008, 36, 16, 4, tied=True, vocab_size=128_256, max_position_embeddings=65_536),
    ),
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(2048, 8192, 16, 32, 64, tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(4096, 14_336, 32, 32, 128, tied=False),
    "zai-org/GLM-4-9B-0414": _glm4(4096, 13_696, 40, 32),
    "zai-org/GLM-4-32B-0414": _glm4(6144, 23_040, 61, 48),
    "openai/gpt-oss-20b": (
        GPT_OSS,
        _grouped(
            2880,
            2880,
            24,
            64,
            8,
            tied=False,
            head_dim=64,
            vocab_size=201_088,
            max_position_embeddings=131_072,
            num_local_experts=32,
            num_experts_per_tok=4,
        ),
    ),
    "google/gemma-3-1b-it": (
        GEMMA3,
        _grouped(
            1152,
            6912,
            26,
            4,
            1,
            tied=True,
            head_dim=256,
            vocab_size=262_144,
            max_position_embeddings=32_768,
            sliding_window=512,
        ),
    ),
    "google/gemma-3-270m": (
        GEMMA3,
        _grouped(
            640,
            2048,
            18,
            4,
            1,
            tied=True,
            head_dim=256,
            vocab_size=262_144,
            max_position_embeddings=32_768,
            sliding_window=512,
        ),
    ),
}
"""By the hub's name: the class of the config in transformers, and its sizes."""


def known_config(name: str) -> Any | None:
    """The transformers config of a public model; None where it is not in the table, or a folder has its name."""
    if name not in KNOWN or Path(name).is_dir():
        return None
    import transformers

    kind, sizes = KNOWN[name]
    return getattr(transformers, kind)(**sizes)
