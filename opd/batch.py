"""Scored rollouts -> one optimizer step: the only code that shifts, masks, packs or pads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd.seeds import derive
from opd.tensors import Batch, Completions, MicroBatch, Packed, Signals
from opd.types import Judgement, Rollout, Scored, TokenPair

WIDTHS = tuple(1 + k / 32 for k in range(33))
"""Of rows over their longest sequence: 33 leave 3 to 6% of padding where one leaves 9 to 23%, 9 leave 3 to 14%."""
WIDE = 1000
"""Columns at which attention costs about as much as all else: no row is made wider than that for others' sake."""


def deal(lengths: Sequence[int], steps: int, ranks: int) -> list[int]:
    """Which rank trains, and so scores, each of the sequences: of every optimizer step all get about the same length.

    Longest first, each to the rank that has the least so far.
    """
    owners = [0] * len(lengths)
    for step in range(steps):
        loads = [0] * ranks
        for i in sorted(range(step, len(lengths), steps), key=lambda i: (-lengths[i], i)):
            owners[i] = loads.index(min(loads))
            loads[owners[i]] += lengths[i]
    return owners


def dealt(rollouts: Sequence[Rollout], steps: int, ranks: int) -> list[int]:
    """The same for rollouts, by what the student reads of them."""
    return deal([sequence_length(len(r.prompt.tokens), len(r.tokens)) for r in rollouts], steps, ranks)


@dataclass(frozen=True)
class Piece:
    """A sequence laid into a row: it starts at column `start` of its row."""

    index: int
    start: int


def split_steps(
    scored: Sequence[Scored], steps: int, pad_id: int, shared: bool = True, rank: int = 0, ranks: int = 1,
    number: int = 0,
) -> list[Callable[[int], Batch]]:  # fmt: skip
    """Deal the rollouts of one sampling out to `steps` optimizer steps, round robin, so that each sees all prompts.

    Advantages are computed from all of them in every step: the samples of one prompt stay together. `shared`: several
    sequences may lie in one row. Of `ranks`, which deal each step out among them, this one packs its own. `number`, of
    the sampling, is a part of the seeds.

    Returns:
        What packs each step into micro-batches of at most so many positions; longer sequences stand alone.
    """
    table = _completions(scored, steps, number)
    owners = dealt([s.rollout for s in scored], steps, ranks)

    def packing(step: int) -> Callable[[int], Batch]:
        mine = {i for i in range(step, len(scored), steps) if owners[i] == rank}
        trained = int(table.mask[step::steps].sum())
        return lambda micro_tokens: _batch(scored, table, mine, trained, pad_id, micro_tokens, shared)

    return [packing(step) for step in range(steps)]


def to_batch(scored: Sequence[Scored], pad_id: int, micro_tokens: int, shared: bool = True) -> Batch:
    """Pack scored rollouts into micro-batches of at most `micro_tokens` positions; longer sequences stand alone."""
    (packed,) = split_steps(scored, 1, pad_id, shared)
    return packed(micro_tokens)


def _batch(
    scored: Sequence[Scored],
    table: Completions,
    chosen: Collection[int],
    trained: int,
    pad_id: int,
    micro_tokens: int,
    shared: bool,
) -> Batch:
    """The step that trains the `chosen` of the rollouts; an empty completion is how the others are left out."""
    pairs = [(s.rollout.prompt.tokens, s.rollout.tokens if i in chosen else ()) for i, s in enumerate(scored)]
    packs = pack_sequences(pairs, pad_id, micro_tokens, table.mask.shape[1], shared)
    micro = tuple(_with_signals(packed, table, scored) for packed in packs)
    positions = sum(m.input_ids.numel() for m in micro)
    filled = sum(sequence_length(len(prompt), len(completion)) for prompt, completion in pairs)
    padding = 1 - filled / positions if positions else 0.0
    return Batch(table, micro, trained, padding)


def pack_sequences(
    sequences: Sequence[TokenPair], pad_id: int, micro_tokens: int, width: int | None = None, shared: bool = True
) -> list[Packed]:
    """Lay (prompt ids, completion ids) out in rows: every completion token has the position that predicts it.

    `width` is that of the [B, T] table which `Packed.where` points into; the longest completion, if not given.
    `shared`: several sequences may lie in one row.
    """
    lengths = [sequence_length(len(prompt), len(completion)) for prompt, completion in sequences]
    if width is None:
        width = max((len(completion) for _, completion in sequences), default=0)
    return [_lay_out(sequences, rows, lengths, width, pad_id) for rows in plan_rows(lengths, micro_tokens, shared)]


def nothing() -> MicroBatch:
    """A micro-batch without a sequence, for a process that has to take a pass and has nothing left to pass."""
    none, ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    one = torch.zeros(1, 1, dtype=torch.int64)
    return MicroBatch(one, one, ids, ids, ids, (), signals=Signals(none, none, none))


def sequence_length(prompt: int, completion: int) -> int:
    """Positions that the model must read: all but the last token, which predicts nothing; 0 for an empty completion."""
    return prompt + completion - 1 if completion else 0


def plan_rows(lengths: Sequence[int], micro_tokens: int, shared: bool = True) -> list[list[list[Piece]]]:
    """Plan which sequence lies where: a list of micro-batches of rows of pieces. Sequences of length 0 are left out.

    Rows that are wider than their longest sequence waste less, where they may be `shared`, and take more of attention:
    of `WIDTHS` the one that costs the least is taken.
    """
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: (-lengths[i], i))
    tries = (_fill(order, lengths, micro_tokens, shared, wider) for wider in (WIDTHS if shared else WIDTHS[:1]))
    return min(tries, key=lambda plan: sum(_cost(rows, lengths) for rows in plan))


def _fill(
    order: Sequence[int], lengths: Sequence[int], micro_tokens: int, shared: bool, wider: float
) -> list[list[list[Piece]]]:
    """Longest first; a micro-batch's rows are `wider` than its first sequence, others fill what is left (first fit)."""
    micro: list[list[list[Piece]]] = []
    used: list[int] = []  # columns taken in each row of the micro-batch being filled
    width = 0
    for i in order:
        row = next((r for r, u in enumerate(used) if shared and u + lengths[i] <= width), None)
        if row is None:
            if not used or (len(used) + 1) * width > micro_tokens:
                width = max(lengths[i], min(int(lengths[i] * wider), micro_tokens, WIDE))
                micro, used = [*micro, []], []
            micro[-1].append([])
            used.append(0)
            row = len(used) - 1
        micro[-1][row].append(Piece(i, used[row]))
        used[row] += lengths[i]
    return micro


def columns(rows: Sequence[Sequence[Piece]], lengths: Sequence[int]) -> int:
    """How wide a micro-batch is."""
    return max(lengths[p.index] + p.start for row in rows for p in row)


def _cost(rows: Sequence[Sequence[Piece]], lengths: Sequence[int]) -> int:
    """Of a micro-batch, in parts of a position, each of which is compared with its whole row.

    Whole numbers: of plans that cost the same the one with the narrowest rows, so fewest micro-batches, is first.
    """
    width = columns(rows, lengths)
    return len(rows) * width * (WIDE + width)


def widest_row(longest: int) -> int:
    """Columns that a row has at most."""
    return max(longest, min(int(longest * WIDTHS[-1]), WIDE))


def padded(rows: Sequence[Tensor], width: int) -> Tensor:
    """Stack 1-D tensors of up to `width` values into [B, width], zeros on the right."""
    out = torch.zeros(len(rows), width, dtype=rows[0].dtype if rows else torch.float32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _completions(scored: Sequence[Scored], steps: int, number: int) -> Completions:
    width = max((len(s.rollout.tokens) for s in scored), default=0)
    # By the prompt object and not by its id: at the end of an epoch one step may hold the same prompt twice.
    numbers: dict[int, int] = {}
    groups = [numbers.setdefault(id(s.rollout.prompt), len(numbers)) for s in scored]
    rewards = [float("nan") if s.reward is None else s.reward for s in scored]
    mask = padded([torch.tensor(s.rollout.mask, dtype=torch.bool) for s in scored], width).bool()

    def table(rows: Sequence[Tensor]) -> Tensor:
        return padded([row.float() for row in rows], width).masked_fill(~mask, 0.0)

    return Completions(
        behavior_logprobs=table([torch.tensor(s.rollout.logprobs) for s in scored]),
        policy_logprobs=table([torch.tensor(s.rollout.policy_logprobs or s.rollout.logprobs) for s in scored]),
        teacher_logprobs=table([s.teacher.logprobs for s in scored]),
        reference_logprobs=table([_unknown(s) if s.reference is None else s.reference.logprobs for s in scored]),
        spans=padded([_spans(s.teacher) + 1 for s in scored], width).long().masked_fill(~mask, 0) - 1,
        mask=mask,
        rewards=torch.tensor(rewards, dtype=torch.float32),
        groups=torch.tensor(groups, dtype=torch.int64),
        origins=tuple(s.rollout.origin for s in scored),
        seeds=torch.tensor([_seed(s.rollout, number) for s in scored], dtype=torch.int64),
        step_tokens=_of_step(mask.sum(1), steps),
        step_completions=_of_step(mask.any(1).long(), steps),
    )


def _of_step(counts: Tensor, steps: int) -> Tensor:
    """Sums [B] of the counts [B] of all sequences that the same optimizer step trains."""
    turns = torch.arange(len(counts)) % steps
    return torch.zeros(steps, dtype=counts.dtype).index_add(0, turns, counts)[turns]


def _seed(rollout: Rollout, number: int) -> int:
    """Of the sample, whenever it is trained on, and not of its place in the batch, which ranks and steps change."""
    return derive(max(number, rollout.version), *rollout.prompt.tokens, "then", *rollout.tokens)


def _unknown(scored: Scored) -> Tensor:
    return torch.full((len(scored.rollout.tokens),), float("nan"))


def _spans(judgement: Judgement) -> Tensor:
    return torch.full((len(judgement.logprobs),), -1) if judgement.spans is None else judgement.spans


def _with_signals(packed: Packed, table: Completions, scored: Sequence[Scored]) -> MicroBatch:
    """Keep the trained tokens, and put what is known of each beside it."""
    judged = [scored[i].teacher for i in packed.sequences]
    keep = table.mask.flatten()[packed.where]
    where = packed.where[keep]

    def of(name: str) -> Tensor | None:
        rows = [row for j in judged if (row := getattr(j, name)) is not None]
        return torch.cat(rows)[keep] if len(rows) == len(judged) else None

    spans = of("spans")
    signals = Signals(
        behavior_logprobs=table.behavior_logprobs.flatten()[where],
        policy_logprobs=table.policy_logprobs.flatten()[where],
        teacher_logprobs=table.teacher_logprobs.flatten()[where],
        teacher_state=of("state"),
        top_ids=of("top_ids"),
        top_logprobs=of("top_logprobs"),
        asked_ids=of("asked_ids"),
        asked_logprobs=of("asked_logprobs"),
        # Numbers are within a sequence: the token before may be another sequence's.
        span_starts=None if spans is None else torch.cat([_starts(_spans(j)) for j in judged])[keep],
    )
    kept = {"rows": packed.rows[keep], "tokens": packed.tokens[keep], "where": where}
    return MicroBatch(**{**vars(packed), **kept}, signals=signals)


def _starts(spans: Tensor) -> Tensor:
    before = torch.cat([torch.tensor([-1]), spans])[: len(spans)]
    return (spans >= 0) & (spans != before)


def _lay_out(
    sequences: Sequence[TokenPair], rows: list[list[Piece]], lengths: Sequence[int], width: int, pad_id: int
) -> Packed:
    width_of_rows = columns(rows, lengths)
    input_ids = torch.full((len(rows), width_of_rows), pad_id, dtype=torch.int64)
    position_ids = torch.zeros(len(rows), width_of_rows, dtype=torch.int64)
    flat, tokens, where = [], [], []
    pieces = [(r, p) for r, row in enumerate(rows) for p in row]
    for r, p in pieces:
        prompt, completion = sequences[p.index]
        span = slice(p.start, p.start + lengths[p.index])
        input_ids[r, span] = torch.tensor((*prompt, *completion[:-1]), dtype=torch.int64)
        position_ids[r, span] = torch.arange(lengths[p.index])
        # The position before the first completion token predicts it: that is the shift.
        first = r * width_of_rows + p.start + len(prompt) - 1
        flat.append(torch.arange(first, first + len(completion)))
        tokens.append(torch.tensor(completion, dtype=torch.int64))
        where.append(torch.arange(len(completion)) + p.index * width)
    order = tuple(p.index for _, p in pieces)
    return Packed(input_ids, position_ids, torch.cat(flat), torch.cat(tokens), torch.cat(where), order)
