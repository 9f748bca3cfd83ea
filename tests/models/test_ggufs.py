"""A GGUF file holds the model and its tokenizer, or what cannot be written is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from opd.models.gguf_tokens import _CUT, cuts
from opd.models.ggufs import check_model, interleaved, read_gguf, write_gguf
from opd.models.loading import load_causal_lm, tokenizer_of
from opd.types import Pretrained, UserError
from tests.tiny import char_tokenizer, save_model

gguf = pytest.importorskip("gguf")
IDS = torch.tensor([[5, 9, 30, 2, 2, 17, 40, 8]])


def byte_level(pre: Any, *, alone: bool = False, bos: bool = False) -> PreTrainedTokenizerFast:
    """BPE over bytes with one merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", "<bos>", *alphabet, "ab"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")], ignore_merges=alone))
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>" if bos else None
    )


def split(number: str) -> Any:
    from tokenizers import Regex

    cut = pre_tokenizers.Split(Regex(_CUT.replace("NUMBER", number)), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_a_file_that_is_read_back_is_the_same_model(family: str, kind: str, tmp_path: Path) -> None:
    model = load_causal_lm(Pretrained(str(save_model(tmp_path / "m", family, seed=3, tied=False))), torch.float32)
    file = tmp_path / "m.gguf"
    assert not write_gguf(model.eval(), char_tokenizer(), (1,), file, kind, "m")
    fresh = read_gguf(file).eval()
    with torch.no_grad():
        gap = (model(IDS).logits.log_softmax(-1) - fresh(IDS).logits.log_softmax(-1)).abs().mean()
    assert gap <= {"F32": 1e-6, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 5e-2}[kind]
    stored = {t.name: t.tensor_type.name for t in gguf.GGUFReader(file).tensors}
    assert {stored["token_embd.weight"], stored["blk.0.ffn_up.weight"]} == {kind}
    assert stored["blk.1.attn_norm.weight"] == "F32"


def test_a_tied_head_is_written_once(tmp_path: Path) -> None:
    model = load_causal_lm(Pretrained(str(save_model(tmp_path / "m", "qwen3", seed=3, tied=True))), torch.float32)
    write_gguf(model, char_tokenizer(), (1,), tmp_path / "m.gguf", "F32", "m")
    assert "output.weight" not in {t.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert torch.equal(read_gguf(tmp_path / "m.gguf")(IDS).logits, model(IDS).logits)


def test_what_a_head_turns_together_stands_together() -> None:
    rows = torch.arange(8)[:, None]  # two heads of four: 0 turns with 2, 1 with 3
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("tokenizer", "word"),
    [
        (byte_level(LEVEL), "gpt-2"),
        (byte_level(pre_tokenizers.Sequence([DIGITS, LEVEL])), "smollm"),
        (byte_level(split(r"\p{N}")), "qwen2"),
        (byte_level(split(r"\p{N}{1,3}"), alone=True), "llama-bpe"),
        (char_tokenizer(), "gpt-2"),
        (byte_level(split(r"\p{N}{1,3}")), None),  # llama.cpp would leave merges aside where a piece is a token
        (byte_level(split(r"\p{N}{1,2}")), None),
        (byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), None),
        (byte_level(pre_tokenizers.Whitespace()), None),
        (char_tokenizer("abcé"), None),
    ],
)  # fmt: skip
def test_only_cuts_that_llama_cpp_knows_have_a_word(tokenizer: Any, word: str | None) -> None:
    assert cuts(tokenizer) == word


@pytest.mark.parametrize("bos", [False, True])
def test_the_tokenizer_is_in_the_file(bos: bool, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_level(LEVEL, bos=bos)
    tokenizer.chat_template = "{{ messages }}"
    if bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
        )
    folder = save_model(tmp_path / "m", "llama", seed=3, tied=False, vocab=270)
    model = load_causal_lm(Pretrained(str(folder)), torch.float32)
    assert write_gguf(model, tokenizer, (1, 0), tmp_path / "m.gguf", "F32", "m") is bos
    told = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "m.gguf").fields.items()}
    assert told["tokenizer.ggml.tokens"][:4] == ["<pad>", "<eos>", "<bos>", "!"]
    assert told["tokenizer.ggml.tokens"][-1] == "[PAD269]"  # the head has more rows than there are tokens
    assert told["tokenizer.ggml.token_type"][:4] == [3, 3, 3 if bos else 1, 1]
    assert told["tokenizer.ggml.merges"] == ["a b"]
    assert (told["tokenizer.ggml.eos_token_id"], told["tokenizer.ggml.eot_token_id"]) == (1, 0)
    assert told["tokenizer.ggml.add_bos_token"] is bos
    assert told["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("family", ["gpt_neox", "mixtral", "opt"])
def test_other_families_are_refused_by_name(family: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m", family, seed=3, tied=False)
    with pytest.raises(UserError, match=rf"{family} models are not written, only llama, .*convert_hf_to_gguf"):
        check_model(Pretrained(str(tmp_path / "m")))


@pytest.mark.parametrize("change", ["rope", "window", "tokens", "cuts"])
def test_what_a_file_could_not_say_is_refused(change: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = save_model(tmp_path / "m", "qwen3", seed=3, tied=False)
    config = AutoConfig.from_pretrained(folder)
    if change == "rope":
        config.rope_parameters = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    if change == "window":
        config.layer_types = ["full_attention", "sliding_attention"]
    if change == "tokens":
        config.vocab_size = 44
    config.save_pretrained(folder)
    if change == "cuts":
        char_tokenizer("ab€").save_pretrained(folder)
    said = {"rope": "linear", "window": "layers that do not see all", "tokens": "of 44, has not", "cuts": "cuts texts"}
    with pytest.raises(UserError, match=said[change]):
        check_model(Pretrained(str(folder)))
    assert tokenizer_of(Pretrained(str(folder))).eos_token == "<eos>"


def test_llama_cpp_reads_the_file_as_torch_does(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from opd.commands.export.llamacpp import LlamaCpp
    from opd.models.heads import split_model
    from opd.models.scoring import score_sequences
    from opd.types import Sampling
    from tests.tiny import prompts

    for family in ("llama", "qwen3", "gpt2"):
        folder = save_model(tmp_path / family, family, seed=3, tied=family != "llama")
        model = load_causal_lm(Pretrained(str(folder)), torch.float32).eval()
        file, tokenizer = tmp_path / f"{family}.gguf", char_tokenizer()
        write_gguf(model, tokenizer, (1,), file, "F32", "m")
        engine = LlamaCpp(file, 64, 1)
        assert engine.tokens("12+3: a") == tokenizer("12+3: a")["input_ids"]
        rollouts = engine.sample(prompts(tokenizer, ["1+2", "abc"]), Sampling(max_tokens=8, n=2, stop=(1,)))
        engine.close()
        ours = score_sequences(split_model(model), [(r.prompt.tokens, r.tokens) for r in rollouts])
        assert len(rollouts) == 4
        for rollout, own in zip(rollouts, ours, strict=True):
            assert rollout.logprobs == pytest.approx(own, abs=1e-2)
            assert rollout.truncated == (rollout.tokens[-1] != 1)
