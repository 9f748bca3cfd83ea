"""A causal language model taken apart: the body that gives hidden states, and the output head applied in chunks.

Full `[B, T, V]` logits are never made: only the rows that predict a trained token meet the head, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from opd.batch import nothing
from opd.models.facts import along_rows, check_ids, class_name, context, moving, too_long
from opd.models.mode import evaluating
from opd.tensors import MicroBatch, Packed
from opd.types import UserError

CHUNK_ELEMENTS = 10 * 2**20
"""Logits that exist at once on a CPU: 40 MiB in float32, just above the size from which on glibc gives freed memory
back to the system instead of keeping it."""
ROWS = 8192
"""Rows of a head whose gradient is made at once where it has another dtype than the weights."""
GPU_FACTOR = 16
"""A GPU wants larger products, and has the memory for them: 640 MiB."""


P = TypeVar("P", bound=Packed)


def _nothing(*_: object) -> None:
    """A model that is whole holds nothing that it could let go of, and waits for nobody."""


@dataclass(frozen=True)
class SplitModel:
    """A transformers causal LM as body and head."""

    model: Any
    body: Any
    head: nn.Linear
    scale: float
    """What the architecture multiplies its logits with (Granite, Cohere); 1 for most."""
    softcap: float | None
    """`softcap * tanh(logits / softcap)` where the architecture asks for it (Gemma 2)."""
    shared: bool = True
    """Whether several sequences may lie in one row: attention tells them apart by their positions."""
    longest: int | None = None
    """Positions that it knows; None where nothing limits them."""
    most: Callable[[int], int] = int
    """How many passes all processes take where this one has so many to take: a sharded model gathers in each."""
    last: Callable[[bool], None] = _nothing
    """Told before each pass whether it is the last: copies of a model add their gradients up once, and not before."""
    rest: Callable[[], None] = _nothing
    """Lets go of what a sharded model has gathered, after it was read without a way back."""

    def check(self, packed: Packed) -> None:
        """See, where the ids are still on the CPU, that the model has all of these places and tokens.

        Raises:
            UserError: A sequence is longer than it reads, or an id is none of its own.
        """
        if self.longest is not None and packed.input_ids.shape[1] > self.longest:
            given = int(packed.position_ids.max()) + 1
            if given > self.longest:
                said = too_long(class_name(self.model), self.longest, moving(self.model.config))
                raise UserError(
                    f"prompt and completion are {given} tokens, and {said}; lower sampling.max_tokens or "
                    "data.max_prompt_tokens"
                )
        check_ids(class_name(self.model), int(packed.input_ids.max()), self.head.weight.shape[0])

    def passes(self, packs: Sequence[P]) -> Iterator[P | MicroBatch]:
        """These, and then empty ones, until every process has taken as many."""
        count = self.most(len(packs))  # asked before the first pass, on all
        for i in range(count):
            self.last(i == count - 1)
            yield packs[i] if i < len(packs) else nothing()

    def predicting(self, packed: Packed) -> Tensor:
        """Hidden states [N, H] that the packed tokens are predicted from; UserError as for `check`."""
        device = self.head.weight.device
        if packed.input_ids.device.type == "cpu":  # elsewhere the answer would have to be waited for
            self.check(packed)
        return self.hidden(packed.input_ids.to(device), packed.position_ids.to(device))[packed.rows.to(device)]

    def hidden(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Last hidden states, flattened: [R, L] ids -> [R*L, H]. Sequences packed in a row do not see each other."""
        if str(self.model.config._attn_implementation).startswith("flash"):
            # Flash attention takes packed sequences as one long row.
            input_ids, position_ids = input_ids.view(1, -1), position_ids.view(1, -1)
        out = self.body(input_ids=input_ids, position_ids=position_ids, use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)

    def logits(self, hidden: Tensor, vocabulary: int | None = None) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H], cut to the first `vocabulary` columns."""
        weight: Tensor = self.head.weight
        bias: Tensor | None = self.head.bias
        if vocabulary is not None and vocabulary < weight.shape[0]:
            weight, bias = weight[:vocabulary], None if bias is None else bias[:vocabulary]
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(weight.dtype)
        return self.finish(nn.functional.linear(hidden, weight, bias))

    def finish(self, products: Tensor) -> Tensor:
        """What the architecture makes of the head's products [N, V]: its float32 logits."""
        logits = products.float()
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class ChunkedHead:
    """The output head of a micro-batch, forward and backward one chunk of tokens after the other.

    `logits(c)` gives a chunk's logits with a graph; once a loss on them went backward, `backward(c)` adds the chunk's
    part to `grad` [N, H] and to the head's own gradient, in place: autograd would make a second [V, H] for every chunk.
    """

    def __init__(self, split: SplitModel, hidden: Tensor) -> None:
        self.split, self.head = split, split.head
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.head.weight.dtype
        self.hidden = hidden.detach().to(dtype)
        self.weight: Tensor = self.head.weight.detach().to(dtype)
        self.grad = torch.zeros_like(hidden)

    def logits(self, c: slice) -> Tensor:
        """Float32 logits [n, V] of the tokens `c`."""
        with torch.no_grad():
            bias = None if self.head.bias is None else self.head.bias.to(self.weight.dtype)
            self.products = nn.functional.linear(self.hidden[c], self.weight, bias)
        return self.split.finish(self.products.requires_grad_())

    @torch.no_grad()
    def backward(self, c: slice) -> None:
        """Hand on the gradient that a loss left on the last logits, those of `c`."""
        grad, self.products = self.products.grad, torch.empty(0)
        if grad is None:  # the loss does not depend on the logits
            return
        self.grad[c] = (grad @ self.weight).to(self.grad.dtype)
        weight, bias = self.head.weight, self.head.bias
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            if grad.dtype == weight.dtype:
                weight.grad.addmm_(grad.T, self.hidden[c])
            else:
                for rows in range(0, len(weight), ROWS):  # the products are copies: small ones
                    weight.grad[rows : rows + ROWS] += grad[:, rows : rows + ROWS].T @ self.hidden[c]
        if bias is not None and bias.requires_grad:
            bias.grad = (0 if bias.grad is None else bias.grad) + grad.float().sum(0).to(bias.dtype)


def split_model(model: Any) -> SplitModel:
    """Take a model apart, and check on a few tokens that body and head give the model's own logits, packed too.

    Where sequences in one row see each other (linear attention, state spaces, positions counted along the row), or
    could in longer rows than these few tokens, each gets a row of its own. Raises UserError for an architecture whose
    logits are made in some other way.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = class_name(inner)
    try:
        split = _taken_apart(model, inner)
        with torch.no_grad(), evaluating(model):
            own, ours, behind, padded = _four_ways(model, split)
    except UserError:
        raise
    except Exception as e:
        why = f"{type(e).__name__}: {(str(e).strip() or 'no reason given').splitlines()[0]}"
        raise UserError(
            f"the architecture {name} cannot be taken into body and head ({why}); it is not trained here"
        ) from e
    if not own.isfinite().all():
        raise UserError(f"{name} gives logits that are no numbers: its weights are damaged, or too large for its dtype")
    if (own == own[:, :1]).all():
        raise UserError(f"{name} finds every token as likely as any: its weights are zeros; take a fresh copy of it")
    size = max(1.0, own.abs().max().item())
    if not torch.allclose(own, ours, atol=1e-3 * size):
        raise UserError(
            f"{name} makes its logits in a way that is not known here, or is no causal language model; see "
            "docs/architectures.md for those that work"
        )

    if apart(own, behind, size) and not along_rows(inner.config):
        return split
    if apart(own, padded, size):
        return replace(split, shared=False)
    raise UserError(f"the architecture {name} lets a sequence see what is not its own; no model was changed")


def apart(own: Tensor, beside: list[Tensor], size: float) -> bool:
    """Whether logits [N, V] of up to `size` are the same beside either of two neighbours, and about as without any.

    Beside either it is the same kernel, which rounds alike. Alone it may be another, and in bfloat16 single tokens of a
    sound model are as far off as if they were others. What is counted along the row, though, moves every token.
    """
    off = (own - beside[0]).abs().mean(-1)
    return torch.allclose(beside[0], beside[1], atol=1e-3 * size) and bool(off.median() <= 0.05 * size)


def _taken_apart(model: Any, inner: Any) -> SplitModel:
    config = inner.config.get_text_config()
    scale = 1.0 / _factor(config, "logits_scaling") * _factor(config, "logit_scale")
    body = inner.get_decoder()
    if body is inner:  # an architecture that does not say so; its head's neighbour is the body
        body = inner.model
    caps = (getattr(config, name, None) for name in ("final_logit_softcapping", "logits_soft_cap"))
    head, cap = inner.get_output_embeddings(), next(filter(None, caps), None)
    return SplitModel(model, body, head, scale, cap, longest=context(config))


def _factor(config: Any, name: str) -> float:
    """A factor of a config: 1 where it has none, or one in words."""
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else 1.0


def _four_ways(model: Any, split: SplitModel) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Logits [8, V] of a few tokens, by the model and by body and head; and by these with either of two neighbours.

    The neighbours lie before them in one row, or, in the last, behind them as padding of a row of their own.
    """
    weight = split.head.weight
    ids = torch.arange(8, device=weight.device).remainder(weight.shape[0] - 1)[None]
    positions = torch.arange(8, device=ids.device)[None]
    long = torch.cat([positions, torch.zeros_like(positions)], 1)

    def read(rows: list[Tensor], places: Tensor) -> Tensor:
        return split.logits(split.hidden(torch.cat(rows), places))

    own = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
    both = [torch.cat([n, ids], 1) for n in (ids, ids + 1)]
    behind = [read([row], positions.repeat(1, 2))[8:] for row in both]
    beside = [torch.cat([ids, torch.full_like(ids, pad)], 1) for pad in (0, 1)]
    padded = [read([row, both[0]], torch.cat([long, torch.arange(16, device=ids.device)[None]]))[:8] for row in beside]
    return own, read([ids], positions), behind, padded


def chunks(total: int, weight: Tensor) -> Iterator[slice]:
    """Slices over `total` rows such that a chunk's logits under a head [V, H] stay near CHUNK_ELEMENTS."""
    size = max(16, CHUNK_ELEMENTS * (GPU_FACTOR if weight.is_cuda else 1) // weight.shape[0])
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def gather_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probs [N] of `tokens` [N] under float32 `logits` [N, V]."""
    return normalized(logits, tokens)[0]


def normalized(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs [N] of `tokens` [N] under float32 `logits` [N, V], and the normalizers log Z [N], without a graph."""
    logprobs, normalizers = _TokenLogprobs.apply(logits, tokens)
    return logprobs, normalizers


class _TokenLogprobs(torch.autograd.Function):
    """The same by hand: autograd would walk four times over [N, V] on the way back, once for each of its operations."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        normalizer = logits.logsumexp(-1)
        ctx.save_for_backward(logits, tokens, normalizer)
        ctx.mark_non_differentiable(normalizer)
        return logits.gather(-1, tokens[:, None]).squeeze(-1) - normalizer, normalizer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, tokens, normalizer = ctx.saved_tensors
        grad = grads[0][:, None]
        # d log pi(y) / d logit_v = 1[v = y] - pi(v)
        out = torch.sub(logits, normalizer[:, None]).exp_().mul_(-grad)
        return out.scatter_add_(-1, tokens[:, None], grad), None
