"""How far apart two models are on text that neither of them wrote: the KL over the whole vocabulary, token by token.

With `pi` the student and `q` the teacher, each after the text so far, both at temperature 1 (the teacher at its own):
reverse `KL(pi||q) = sum_v pi(v) log(pi(v)/q(v))`, forward `KL(q||pi)`. Nothing is drawn, so that there is no noise but
that of which text was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from opd.batch import dealt, pack_sequences
from opd.devices.team import Solo, Team
from opd.models.heads import SplitModel, chunks
from opd.needs import Needs
from opd.objectives.gkd import kl
from opd.teaching import Scorer
from opd.types import Rollout

Reader = Callable[[], AbstractContextManager[SplitModel]]
"""Opens a model that can be read in torch, ready for a forward pass without a graph."""


@torch.no_grad()
def text_divergence(
    student: SplitModel, teacher: Scorer, texts: Sequence[Rollout], micro_tokens: int, team: Team | None = None
) -> dict[str, float]:
    """Mean exact KL of `student` and `teacher` over the tokens of `texts`, in nats; empty where there is no token.

    Only one micro-batch's hidden states exist at a time, and of its logits only a chunk. The teacher has to provide
    `distribution`, over the student's vocabulary; columns that are padding rows of one of them are left out.
    """
    team = team or Solo()
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    owners = dealt(texts, 1, team.size)
    pairs = [(r.prompt.tokens, r.tokens if rank == team.rank else ()) for r, rank in zip(texts, owners, strict=True)]
    device = student.head.weight.device
    together = replace(student, most=lambda count: max(team.gather(count)))  # a teacher may be in shards, too
    for packed in together.passes(pack_sequences(pairs, 0, micro_tokens, shared=student.shared)):
        with torch.autocast(device.type, enabled=False):  # of the student; the teacher computes in its own dtype
            judged = teacher.score([texts[i] for i in packed.sequences], Needs(logprobs=True, distribution=True))
        states = torch.cat([j.state for j in judged if j.state is not None] or [torch.zeros(0)])
        assert len(states) == len(packed.rows), "a teacher without its distribution"
        hidden = student.predicting(packed)
        for c in chunks(len(hidden), student.head.weight):
            sums += both(student.logits(hidden[c]), teacher.logits(states[c].to(device)))
        count += len(hidden)
        student.rest()  # a teacher that is the student in other weights puts these in shards
    found = team.gather((sums, count))
    sums, count = sum((s for s, _ in found[1:]), found[0][0]), sum(n for _, n in found)
    if not count:
        return {}
    reverse, forward = (sums / count).tolist()
    return {"eval/text_kl": reverse, "eval/text_kl_forward": forward}


def both(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Reverse and forward KL of two logits [N, V] and [N, V'], each summed over the rows: float64 [2], on the CPU."""
    columns = min(student_logits.shape[1], teacher_logits.shape[1])
    with torch.autocast(student_logits.device.type, enabled=False):
        log_pi = student_logits[:, :columns].float().log_softmax(-1)
        log_q = teacher_logits[:, :columns].float().log_softmax(-1)
        return torch.stack([kl(log_pi, log_q).double().sum(), kl(log_q, log_pi).double().sum()]).cpu()
