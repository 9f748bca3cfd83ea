"""Hand-written small things: a character tokenizer, random models, rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)  # fmt: skip

from opd.types import Example, Judgement, Prompt, Rollout, Scored

ALPHABET = "0123456789+-*=;: abcdefghijklmnopqrstuvwxyz"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
QWEN3_TEMPLATE = TEMPLATE.replace(
    ":{% endif %}", ":{{ '= =' if enable_thinking is defined and not enable_thinking }}{% endif %}"
)
"""With an empty block for thoughts where they are off, in characters that the tokenizer knows."""


def char_tokenizer(alphabet: str = ALPHABET) -> PreTrainedTokenizerFast:
    """One token per character after `<pad>` and `<eos>`."""
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_model(
    folder: Path, kind: str, *, seed: int, tied: bool, hidden: int = 64, layers: int = 2, vocab: int = 45
) -> Path:
    """A random causal LM with a tokenizer beside it; weights large enough that distributions are far from uniform."""
    torch.manual_seed(seed)
    experts = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": hidden, "mlp_only_layers": [1]}
    shape = {
        "qwen3": (Qwen3Config, {"head_dim": 32}),
        "qwen2": (Qwen2Config, {}),
        "llama": (LlamaConfig, {"head_dim": 32}),
        "gpt2": (GPT2Config, {}),
        "gpt_neox": (GPTNeoXConfig, {}),
        "mixtral": (MixtralConfig, {"num_local_experts": 4}),
        "qwen2_moe": (Qwen2MoeConfig, experts | {"shared_expert_intermediate_size": hidden}),
        "qwen3_moe": (Qwen3MoeConfig, experts | {"head_dim": 32}),
        "opt": (OPTConfig, {"ffn_dim": 2 * hidden, "word_embed_proj_dim": hidden}),
    }
    cls, own = shape[kind]
    grouped = {} if kind in ("gpt2", "opt") else {"intermediate_size": 2 * hidden, "num_key_value_heads": 1}
    config = cls(
        vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        tie_word_embeddings=tied, initializer_range=0.15, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, **grouped, **own,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer = char_tokenizer()
    tokenizer.chat_template = QWEN3_TEMPLATE if kind == "qwen3" else TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def save_config(path: Path, student: Path, teacher: Path) -> Path:
    """The config of a whole run of seconds on the transformers engine."""
    path.write_text(f"""# A run of seconds.
defaults:
  - base
  - override rollout: hf
  - override data: arithmetic
  - _self_
name: tiny
steps: 6
student: {{model: {student}, dtype: float32}}
teacher: {{model: {teacher}, dtype: float32, prompt: student}}
data: {{prompts_per_step: 8}}
sampling: {{max_tokens: 8, n: 2}}
optim: {{lr: 3e-3}}
eval: {{size: 8, every: 3}}
checkpoint: {{every: 2, keep: 2}}
log: {{rollouts_every: 2}}
threads: 1  # or their number, and so the last bit, would depend on what else the machine does
""")
    return path


def rollouts(shapes: Sequence[tuple[int, int]], seed: int = 0, vocab: int = 45) -> list[Rollout]:
    """Random rollouts of (prompt length, completion length), every second one ended by EOS."""
    rng = np.random.default_rng(seed)
    made = []
    for i, (p, c) in enumerate(shapes):
        tokens = [int(t) for t in rng.integers(2, vocab, c)]
        if i % 2 == 0 and tokens:
            tokens[-1] = 1
        prompt = Prompt(
            Example(str(i), ({"role": "user", "content": "1+1"},)), tuple(map(int, rng.integers(2, vocab, p)))
        )
        made.append(Rollout(prompt, tuple(tokens), tuple(-rng.exponential(1.0, c)), truncated=i % 2 == 1))
    return made


def scored(items: Sequence[Rollout], seed: int = 0, hidden: int | None = None) -> list[Scored]:
    """The same rollouts with random teacher log-probs (and hidden states), and rewards 0, 1, 0, 1, ..."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Scored(
            r,
            Judgement(
                -torch.rand(len(r.tokens), generator=generator) * 3,
                None if hidden is None else torch.randn(len(r.tokens), hidden, generator=generator),
            ),
            reward=float(i % 2),
        )
        for i, r in enumerate(items)
    ]


def prompts(tokenizer: Any, texts: Sequence[str]) -> list[Prompt]:
    """Prompts of plain texts."""
    return [
        Prompt(Example(str(i), ({"role": "user", "content": t},)), tuple(tokenizer(t)["input_ids"]))
        for i, t in enumerate(texts)
    ]


def cli_code(arguments: list[str]) -> int:
    """Exit code of a command run in this process."""
    from opd import cli

    try:
        cli.main(arguments)
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def timed(name: str) -> bool:
    """Whether a metric is one of the seconds that a run has cost, which depend on the machine."""
    return name.startswith("cost/") and name.endswith("_s")
