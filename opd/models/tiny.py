"""Character-level models made from a seed: small enough to be trained on a task within a minute or two on a CPU.

The teacher and the student of `conf/quickstart.yaml` are two of them. Both learn from the task's own solutions; the
student is narrower, and its training ends while it still makes mistakes, so that there is something left to distil.
A model is the same every time on one machine, but another processor rounds otherwise and makes another: those two ship
(`opd.commands.ship`). Any change of a setting, or of what the task writes, makes a new one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from opd.models import cache
from opd.types import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_FORMAT = 1  # counts changes to what is written
_HEAD_DIM = 32  # the smallest that vLLM's attention on CPUs takes
_SPECIAL = ("<pad>", "<eos>", "<unk>")
_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
_THREADS = 2  # a fixed number, as sums round differently when they are split differently
_SMOOTH = 5  # batches whose mean loss is compared with `until_loss`
_MERGED = 2048  # items that merges are learned from
_IGNORED = -100  # cross entropy leaves these targets out


@dataclass(frozen=True)
class Tiny:
    """A Qwen3-shaped model over single characters, trained on what `task.solution` writes."""

    task: Any
    """A task with `alphabet`, the characters that it is written with, and `solution(example)`, a whole completion."""
    hidden_size: Annotated[int, Field(ge=_HEAD_DIM, multiple_of=_HEAD_DIM)] = 96
    """Width; there is one attention head per 32."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Decoder layers."""
    intermediate_size: Annotated[int, Field(ge=1)] = 256
    """Width of the feed-forward part."""
    context: Annotated[int, Field(ge=8)] = 256
    """Longest prompt and completion together, in tokens."""
    steps: Annotated[int, Field(ge=0)] = 450
    """Optimizer steps at most."""
    until_loss: Annotated[float, Field(ge=0)] = 0.0
    """Training ends when the mean loss of five batches in a row is below this many nats per token."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Solutions per optimizer step, drawn with replacement."""
    lr: Annotated[float, Field(gt=0)] = 5e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear"] = "linear"
    """After the warm-up: stay, or fall to zero at the last step."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Steps over which the learning rate rises."""
    seed: int = 0
    """Of weights and training data."""
    merges: Annotated[int, Field(ge=0)] = field(default=0, repr=False)
    """So many pairs of tokens are merged into one (BPE learned from the task's own text): another tokenizer."""

    def path(self) -> str:
        """Folder of the trained model; UserError where the task has no solutions to learn from."""
        missing = [name for name in ("examples", "solution", "alphabet") if not hasattr(self.task, name)]
        if missing:
            raise UserError(
                f"task: {type(self.task).__name__} has no {', '.join(missing)}; a task to learn from needs it"
            )
        first = "\n".join(f"{prompt}{solution}" for prompt, solution in _pairs(self.task, range(64)))
        if self.merges:  # not part of repr, so that models over characters keep their name in the cache
            first = f"{self.merges} merges\n{first}"
        title = f"training a {self.layers}x{self.hidden_size} model on {type(self.task).__name__}"
        return cache.checkpoint(self, f"{_FORMAT} {self.task.alphabet} {first}", title, self._write)

    def _write(self, folder: Path, progress: cache.Progress) -> None:
        texts = [text for pair in _pairs(self.task, range(_MERGED)) for text in pair] if self.merges else []
        tokenizer = character_tokenizer(self.task.alphabet, learn_merges(texts, self.task.alphabet, self.merges))
        with _own_randomness(self.seed):
            model = self._network(len(tokenizer))
            self._train(model, tokenizer, progress)
        with cache.quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    def _network(self, vocabulary: int) -> PreTrainedModel:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        heads = self.hidden_size // _HEAD_DIM
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=_HEAD_DIM,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            pad_token_id=_SPECIAL.index("<pad>"),
            bos_token_id=None,
            eos_token_id=_SPECIAL.index("<eos>"),
            dtype="float32",
        )
        return Qwen3ForCausalLM(config)

    def _train(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, progress: cache.Progress) -> None:
        import torch

        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, betas=(0.9, 0.98), weight_decay=0.0)
        recent: deque[float] = deque(maxlen=_SMOOTH)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self._factor(step)
            loss = self._loss(model, step, tokenizer)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent.append(loss.item())
            progress((step + 1) / self.steps)
            if len(recent) == _SMOOTH and sum(recent) / _SMOOTH < self.until_loss:
                return

    def _factor(self, step: int) -> float:
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        return rise * (1 - step / self.steps if self.schedule == "linear" else 1.0)

    def _loss(self, model: PreTrainedModel, step: int, tokenizer: PreTrainedTokenizerFast) -> Tensor:
        """Mean cross entropy, in nats per token, of the solutions of one batch."""
        import torch

        places = np.random.default_rng([self.seed, step]).integers(
            len(self.task.examples("train")), size=self.batch_size
        )
        inputs_BL, targets_BL = _padded(_pairs(self.task, places.tolist()), tokenizer)
        logits_BLV = model(input_ids=inputs_BL).logits
        return torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), ignore_index=_IGNORED)


def character_tokenizer(alphabet: str, merges: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """One token per character and per merge, and `<pad>`, `<eos>` and `<unk>`; its chat template only joins the turns.

    So a prompt reads the same as chat and as plain text; an assistant's turn ends with `<eos>`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*_SPECIAL, *alphabet, *map("".join, merges)]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    pad, eos, unk = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=eos,
        unk_token=unk,
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def learn_merges(texts: Sequence[str], alphabet: str, count: int) -> list[tuple[str, str]]:
    """The first `count` pairs of tokens that byte-pair encoding over characters would merge in the texts."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    size = len(set(alphabet)) + count
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=[*alphabet], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]][:count]


def _pairs(task: Any, places: Sequence[int]) -> list[tuple[str, str]]:
    """Prompt and solution of the items at `places` of the train split, as plain text."""
    items = task.examples("train")
    chosen = [items[i] for i in places if i < len(items)]
    return [("".join(turn["content"] for turn in item.messages), task.solution(item)) for item in chosen]


def _padded(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Inputs and next-token targets, int64 [B, L]; prompt and padding are no targets, the EOS is one."""
    import torch

    pad, eos = _SPECIAL.index("<pad>"), _SPECIAL.index("<eos>")
    prompts, solutions = (tokenizer(list(texts))["input_ids"] for texts in zip(*pairs, strict=True))
    width = max(len(prompt) + len(solution) for prompt, solution in zip(prompts, solutions, strict=True))
    inputs_BL = torch.full((len(pairs), width), pad)
    targets_BL = torch.full((len(pairs), width), _IGNORED)
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        tokens = torch.tensor([*prompt, *solution, eos])
        inputs_BL[row, : len(tokens) - 1] = tokens[:-1]
        targets_BL[row, len(prompt) - 1 : len(tokens) - 1] = tokens[len(prompt) :]
    return inputs_BL, targets_BL


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed torch and fix its number of threads, and leave both afterwards as they were."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
