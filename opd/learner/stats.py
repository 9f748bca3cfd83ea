"""Diagnostics of an optimizer step, summed over its chunks while the logits exist."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from opd.devices.team import Team
from opd.tensors import Batch, Completions, Tokens

UNSURE = 0.5
"""Nats of entropy above which a model counts as unsure of the next token: where published work finds most to learn."""


@dataclass
class TokenStats:
    """Running sums over trained tokens; `metrics` turns them into means."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    peaks: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, tokens: Tokens, normalizers: Tensor, losses: Tensor) -> None:
        """Add one chunk, `normalizers` being its logits' log Z [N]; the logits themselves are freed afterwards."""
        logprobs, mu, policy = tokens.logprobs.detach(), tokens.behavior_logprobs, tokens.policy_logprobs
        own = mu.isfinite()  # the student's own words; of others' there is no policy to compare with
        judged = own & tokens.teacher_logprobs.isfinite()
        gap = (logprobs - policy).abs().masked_fill(~own, 0.0)
        ratio = torch.exp(logprobs - mu).masked_fill(~own, 0.0)
        sums = {
            "loss": losses.sum(),
            "own": own.sum(),
            "judged": judged.sum(),
            # Weighed by pi/mu, which is 1 unless the teacher had a hand in the sampling: the mean is then pi's.
            "kl": (torch.exp(policy - mu) * (policy - tokens.teacher_logprobs)).masked_fill(~judged, 0.0).sum(),
            "gap": gap.sum(),
            "ratio": ratio.sum(),
            "ratio_squared": ratio.square().sum(),
        } | distribution_sums(tokens, normalizers)
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()  # stays on the device: no wait per chunk
        for name, value in {"gap": gap.max(), "ratio": ratio.max()}.items():
            self.peaks[name] = torch.maximum(self.peaks.get(name, value), value)

    def of(self, team: Team) -> TokenStats:
        """The same of all ranks, some of which may have had nothing to train."""
        if team.size == 1:
            return self
        found = team.gather([{n: t.cpu() for n, t in part.items()} for part in (self.sums, self.peaks)])
        out = TokenStats()
        for sums, peaks in found:
            out.sums |= {n: out.sums.get(n, 0.0) + t for n, t in sums.items()}
            out.peaks |= {n: torch.maximum(out.peaks.get(n, t), t) for n, t in peaks.items()}
        return out

    def metrics(self, batch: Batch, grad_norm: float, lr: float) -> dict[str, float]:
        """Means per trained token, under the names of `metrics.jsonl`."""
        sums = {name: value.item() for name, value in self.sums.items()}
        trained, own, judged = batch.trained, sums.pop("own", 0.0), sums.pop("judged", 0.0)
        counts = {"kl": judged, "gap": own, "ratio": own, "ratio_squared": own}
        s = {k: v / n for k, v in sums.items() if (n := counts.get(k, trained))}
        names = {
            "kl/sampled": "kl", "kl/exact": "exact", "kl/student_entropy": "entropy",
            "kl/teacher_entropy": "teacher_entropy", "kl/student_unsure": "unsure",
            "kl/teacher_unsure": "teacher_unsure", "kl/agreement": "agreement", "kl/engine_gap": "gap",
            "optim/loss": "loss", "optim/ratio_mean": "ratio",
        }  # fmt: skip
        out = {name: s[key] for name, key in names.items() if key in s}
        if (reference := reference_kl(batch.completions)) is not None:
            out["kl/reference"] = reference
        out |= {"optim/grad_norm": grad_norm, "optim/lr": lr, "optim/trained_tokens": float(trained)}
        if own:
            out |= {"kl/engine_gap_max": self.peaks["gap"].item(), "optim/ratio_max": self.peaks["ratio"].item()}
            # Kish's effective sample size, as a share of the tokens.
            out["optim/ess"] = s["ratio"] ** 2 / s["ratio_squared"] if s["ratio_squared"] else 1.0
            if judged:  # share of the tokens that the teacher had something to say on: less with another tokenizer
                out["kl/coverage"] = judged / own
        return out | {"optim/padding": batch.padding}


def reference_kl(completions: Completions) -> float | None:
    """Sampled reverse KL to the reference, nats a token, of all that the student wrote for it; None: nothing."""
    c = completions
    gap = torch.exp(c.policy_logprobs - c.behavior_logprobs) * (c.policy_logprobs - c.reference_logprobs)
    known = c.mask & gap.isfinite()
    return gap[known].double().mean().item() if known.any() else None


def distribution_sums(tokens: Tokens, normalizers: Tensor) -> dict[str, Tensor]:
    """Sums of the student's entropy and, where the teacher's logits are there, its entropy and the exact KL(pi||q).

    And counts: of tokens of which either is unsure, and of those that both find likeliest.
    """
    logits = tokens.logits.detach()
    with torch.autocast(logits.device.type, enabled=False):  # it would round the products to bfloat16
        pi = torch.sub(logits, normalizers[:, None]).exp_()
        mean_logit = torch.linalg.vecdot(pi, logits)
        entropy = normalizers - mean_logit  # H = log Z - sum pi * logits
        sums = {"entropy": entropy.sum(), "unsure": (entropy > UNSURE).sum()}
        if tokens.teacher_logits is None or tokens.shared is not None:
            return sums
        theirs = tokens.teacher_logits
        log_z = theirs.logsumexp(-1)
        sums["exact"] = (mean_logit - normalizers - torch.linalg.vecdot(pi, theirs) + log_z).sum()
        q = torch.sub(theirs, log_z[:, None], out=pi).exp_()
        entropy = log_z - torch.linalg.vecdot(q, theirs)
        sums |= {"teacher_entropy": entropy.sum(), "teacher_unsure": (entropy > UNSURE).sum()}
        return sums | {"agreement": (logits.argmax(-1) == theirs.argmax(-1)).sum()}
