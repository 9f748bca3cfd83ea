"""A teacher in this process: any transformers causal LM, scored without gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from opd.needs import Needs, Provides
from opd.protocols import ModelSource
from opd.teachers.quantized import Bits, load_quantized
from opd.teachers.reading import Reading, rendering_notes
from opd.teaching import Pupil, Scorer
from opd.text.vocabulary import check_shared
from opd.types import Judgement, Pretrained, Prompt, Reads, Rollout

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from opd.models.heads import SplitModel

FLOOR = -100.0
"""Log-prob (nats) of a token beyond the teacher's output head: a padding row of the student's that got sampled."""
WHOLE = 1_000_000
"""Top-k that a teacher gives which has its whole distribution: any."""


@dataclass(frozen=True, kw_only=True)
class LocalTeacher(Reading):
    """Settings of a local teacher."""

    model: str | ModelSource
    """Hub name, folder, or a `_target_` that makes one."""
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    """`auto` is what the device is fast in."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Its distribution is taken at this temperature."""
    micro_tokens: Annotated[int, Field(ge=1)] = 8192
    """Positions that go through it at once."""
    attention: str = "auto"
    """transformers' attention implementation: `auto` is its choice; `flash_attention_2` where it is installed."""
    device: str = "auto"
    """A torch device; `auto` is `cuda` where there is one, else `cpu`."""
    trust_remote_code: bool = False
    """Run the code that comes with the model's files."""
    quantization: Bits | None = None
    """Weights of the body's linear layers in 8 bits (one scale per row) or 4 (NF4, in blocks of 64); embedding and head
    stay as they are. Saves memory, and costs accuracy: compare its log-probs with the full ones."""
    offload: bool = False
    """Keep the body on the CPU while it does not score, to leave the GPU to the student; the head stays."""

    def __post_init__(self) -> None:
        """Refuse to move packed weights."""
        super().__post_init__()
        if self.offload and self.quantization is not None:
            raise ValueError(f"offload=true: with quantization={self.quantization} weights stay where they are packed")

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, and its whole distribution through its hidden states."""
        return Provides(logprobs=True, distribution=True, top_k=WHOLE)

    def checkpoint(self) -> Pretrained:
        """Where its weights are."""
        return Pretrained(self.model if isinstance(self.model, str) else self.model.path(), self.trust_remote_code)

    def check(self, pupil: Pupil) -> None:
        """Raise UserError where it cannot read so much, or no chats, or does not share the student's vocabulary."""
        self._compared(pupil)

    def _compared(self, pupil: Pupil) -> tuple[Any, list[str]]:
        """Its tokenizer, and how that differs from the student's without harm."""
        from opd.models.facts import check_reach
        from opd.models.loading import tokenizer_of

        model = self.checkpoint()
        check_reach("teacher.model", model, pupil.longest)
        tokenizer = tokenizer_of(model)
        self.check_template(tokenizer, pupil.chat)
        return tokenizer, check_shared(pupil.tokenizer, tokenizer)

    def start(self, pupil: Pupil) -> LocalScorer:
        """Load it; UserError where it does not share the student's vocabulary."""
        import torch

        from opd.devices.compute import pick_device, pick_dtype
        from opd.models.heads import split_model
        from opd.models.loading import load_causal_lm
        from opd.models.shards import loading_place, sharded

        model, device, team = self.checkpoint(), pick_device(self.device), pupil.team
        dtype = pick_dtype(self.dtype, device)
        tokenizer, differences = self._compared(pupil)
        away = self.offload and device.type != "cpu" and team.mesh is None
        if self.offload and not away:
            why = (
                "the teacher computes on the CPU"
                if device.type == "cpu"
                else "a rank's shard of it stays on its device"
            )
            differences.append(f"teacher.offload does nothing: {why}")
        if self.quantization is None:
            at = torch.device("cpu") if away else loading_place(team, device, self.attention)
            loaded = load_causal_lm(model, dtype, self.attention, at)
        else:
            loaded = load_quantized(model, self.quantization, dtype, self.attention, device)
        loaded.requires_grad_(False).eval()
        split = split_model(loaded)
        if self.quantization is None:  # packed weights cannot be cut into shards: each rank has them all
            split = sharded(split, team)
        if away:
            split = own_head(split, device=device)
            pin(split.body)
        rows = split.head.weight.shape[0]
        if rows != pupil.size:
            differences.append(f"output heads of {pupil.size} and {rows} rows: {min(pupil.size, rows)} are used")
        return LocalScorer(self, tokenizer, split, min(pupil.size, rows), tuple(differences))

    def share(self, scorer: Scorer) -> LocalScorer | None:
        """A scorer for these settings over the weights that another one holds; None where they are not the same."""
        if not isinstance(scorer, LocalScorer) or self._weights() != scorer.settings._weights():
            return None
        return replace(scorer, settings=self)

    def _weights(self) -> tuple[object, ...]:
        """All settings but those of how it reads and how it is asked."""
        from opd.devices.compute import dtype_name

        where = (self.attention, self.device, self.offload)
        return (self.checkpoint(), dtype_name(self.dtype, self.device), self.quantization, *where)


@dataclass
class LocalScorer:
    """A loaded local teacher."""

    settings: LocalTeacher
    tokenizer: Any
    split: SplitModel | None
    vocabulary: int
    """Columns of its head that the student has too."""
    differences: tuple[str, ...] = ()
    """Between the two vocabularies, harmless ones."""
    shared: tuple[Tensor, Tensor] | None = None

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every completion token after the teacher's own rendering of the prompt."""
        assert self.split is not None, "score() after close()"
        prompts = self.read([r.prompt for r in rollouts])
        completions = [r.tokens for r in rollouts]
        s = self.settings
        with lent(self.split.body, self.split.head.weight.device):
            return score_sequences(
                self.split, prompts, completions, needs, s.micro_tokens, s.temperature, self.vocabulary
            )

    def logits(self, state: Tensor) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H], without a graph."""
        import torch

        assert self.split is not None, "logits() after close()"
        # The student may be inside its own autocast: the teacher computes in the dtype that it was loaded in.
        with torch.no_grad(), torch.autocast(state.device.type, enabled=False):
            return self.split.logits(state, self.vocabulary) / self.settings.temperature

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt in its own template."""
        return self.settings.read(self.tokenizer, prompts)

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """Its own model."""
        return [Reads.of(rollouts, self.read([r.prompt for r in rollouts]), self.split)]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """Harmless differences of vocabulary, and whether it reads the prompts through another template."""
        return [*self.differences, *rendering_notes(self.read(prompts), prompts)]

    def close(self) -> None:
        """Free the weights."""
        self.split = None


def score_sequences(
    split: SplitModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    needs: Needs,
    micro_tokens: int,
    temperature: float,
    vocabulary: int,
) -> list[Judgement]:
    """Judge completions with a model that is split into body and head, packed by length, in the order given.

    Tokens at or beyond `vocabulary` get FLOOR. The judgements' state is the model's hidden state.
    """
    import torch

    from opd.batch import pack_sequences
    from opd.models.scoring import score_packed

    def none(*shape: int) -> Tensor:
        return torch.zeros(shape)

    nothing = Judgement(
        none(0),
        none(0, split.head.weight.shape[1]).to(split.head.weight.dtype) if needs.distribution else None,
        none(0, needs.top_k).long() if needs.top_k else None,
        none(0, needs.top_k) if needs.top_k else None,
    )
    out = [nothing] * len(completions)  # what empty completions get
    known = [[min(t, vocabulary - 1) for t in c] for c in completions]
    packs = pack_sequences(list(zip(prompts, known, strict=True)), 0, micro_tokens, shared=split.shared)
    for packed in split.passes(packs):
        values, hidden, top = score_packed(split, packed, temperature, vocabulary, needs.top_k)
        sizes = [len(known[i]) for i in packed.sequences]
        columns = [values.cpu(), *((hidden.cpu(),) if needs.distribution else ()), *(t.cpu() for t in top)]
        for i, *rows in zip(packed.sequences, *(c.split(sizes) for c in columns), strict=True):
            logprobs = rows.pop(0).masked_fill(torch.tensor(completions[i]) >= vocabulary, FLOOR)
            state = rows.pop(0).clone() if needs.distribution else None
            out[i] = Judgement(logprobs, state, *rows)
    return out


def own_head(split: SplitModel, dtype: torch.dtype | None = None, device: torch.device | None = None) -> SplitModel:
    """The same body under a frozen copy of the head: later steps of a learner, or a move, leave it as it is."""
    import torch

    from opd.models.shards import whole

    weight, bias = split.head.weight, split.head.bias
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None:
            copy = whole(value).detach().to(device or value.device, dtype or value.dtype, copy=True)
            setattr(head, name, torch.nn.Parameter(copy, requires_grad=False))
    return replace(split, head=head)


def pin(body: nn.Module) -> None:
    """Put its tensors, which lie on the CPU, where a GPU copies them from quickly."""
    for tensor in (*body.parameters(), *body.buffers()):
        tensor.data = tensor.data.pin_memory()


@contextmanager
def lent(body: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the body's tensors are on `device`. They do not change there, so that nothing has to be copied back."""
    home = [(t, t.data) for t in (*body.parameters(), *body.buffers()) if t.device != device]
    try:
        for tensor, data in home:
            tensor.data = data.to(device, non_blocking=True)
        yield
    finally:
        for tensor, data in home:
            tensor.data = data
