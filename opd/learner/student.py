"""The learner: load, forward, backward, step, save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from opd.devices.compute import pick_device, pick_dtype
from opd.devices.shortage import during
from opd.devices.team import Solo, Team
from opd.learner.asking import advantages_of, losses_of
from opd.learner.config import StudentConfig
from opd.learner.current import judged_now
from opd.learner.lora import merged_weights, with_lora
from opd.learner.offload import Offload, mover, prepare, step
from opd.learner.optim import GRADIENTS, Optim
from opd.learner.stats import TokenStats
from opd.models import heads
from opd.models.digests import base_digests
from opd.models.finite import not_finite
from opd.models.loading import load_causal_lm
from opd.models.mode import check_mode, evaluating, to_train
from opd.models.scoring import score_sequences
from opd.models.shards import loading_place, own, sharded, whole
from opd.protocols import Objective
from opd.teaching import Scorer
from opd.tensors import Advantages, Batch, Completions, MicroBatch, Tokens, each
from opd.types import RunError, TokenPair, again


@dataclass
class Student:
    """A loaded learner. `steps` counts optimizer steps that changed its weights."""

    model: Any
    split: heads.SplitModel
    optimizer: torch.optim.AdamW
    optim: Optim
    temperature: float
    compute: torch.dtype
    steps: int = 0
    taken: int = 0
    """Steps of the run that it has behind it, those that trained nothing included: what schedules go by."""
    params: list[Tensor] = field(default_factory=list)
    base_digests: Mapping[str, str] = field(default_factory=dict)
    """Of the weights under its adapters."""
    team: Team = field(default_factory=Solo)
    unread: list[Tensor] = field(default_factory=list)
    """Parameters that no text meets (a tower for images): shards of them get gradients of zero, and would decay."""
    away: Offload = field(default_factory=Offload)
    """Its weights, where they leave the device."""
    states: Offload = field(default_factory=Offload)
    """Its optimizer's states, likewise."""

    @classmethod
    def load(
        cls,
        config: StudentConfig,
        optim: Optim,
        temperature: float,
        resume: str | None = None,
        team: Team | None = None,
    ) -> Student:
        """Read the model and make its optimizer.

        Args:
            config: which model, and how.
            optim: its optimizer's settings.
            temperature: the one that rollouts are sampled at.
            resume: folder of a checkpoint's model (or adapter) to go on from.
            team: who trains it; None: this process alone.
        """
        team = team or Solo()
        device = pick_device(config.device)
        compute = pick_dtype(config.dtype, device)
        # A frozen base needs no float32 master copy: only what is trained does.
        master = torch.float32 if config.lora is None else compute
        start = config.pretrained
        if resume and config.lora is None:
            start = replace(start, path=resume)
        model = load_causal_lm(start, master, config.attention, loading_place(team, device, config.attention))
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        check_mode(model)
        if config.lora is not None:
            model = with_lora(model, config.lora, resume)
        to_train(model)
        digests = base_digests(model)
        split = heads.split_model(model)
        body = split.body
        split = sharded(split, team, compute)
        params = [p for p in model.parameters() if p.requires_grad]
        read = {id(p) for p in (*body.parameters(), *split.head.parameters())}
        optimizer = torch.optim.AdamW(
            params, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=True
        )
        student = cls(
            model, split, optimizer, optim, temperature, compute, params=params, base_digests=digests, team=team,
            unread=[p for p in params if id(p) not in read],
        )  # fmt: skip
        return student._leaving(config.offload and team.mesh is None, device)

    def _leaving(self, weights: bool, device: torch.device) -> Student:
        """The same one, which leaves the device when it does not work, with its weights or without, if it is to."""
        self.away, self.states = Offload(mover(weights, device)), Offload(mover(self.optim.offload, device))
        prepare(self.optimizer, [p for p in self.params if all(p is not q for q in self.unread)], self.states)
        self.away.leave(self.model.parameters())
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are when it works."""
        return self.away.device or self.split.head.weight.device

    def present(self, changing: bool = False) -> AbstractContextManager[None]:
        """Inside, its weights are on the device, wherever they are else; `changing`: what is trained changes there."""
        return self.away.here(list(self.model.parameters()), self.params if changing else ())

    @property
    def vocabulary(self) -> int:
        """Columns of the output head, V."""
        return int(self.split.head.weight.shape[0])

    def autocast(self, cached: bool = True) -> AbstractContextManager[Any]:
        """Compute in the configured dtype; `cached`: weights are cast once, as they do not change inside."""
        half, cached = self.compute != torch.float32, cached and self.team.mesh is None  # or a layer would stay whole
        return torch.autocast(self.device.type, self.compute, enabled=half, cache_enabled=cached)

    def base(self) -> AbstractContextManager[Any] | None:
        """A context in which the model is what it started from, adapters off; None where all weights are trained."""
        return self.model.disable_adapter() if hasattr(self.model, "peft_config") else None

    def update(self, batch: Batch, objective: Objective, lr: float, teacher: Scorer | None = None) -> dict[str, float]:
        """Take one optimizer step on `batch`; returns its diagnostics. A batch with nothing to train changes nothing.

        Raises RunError where loss or gradient (then the weights are as they were) or the new weights are not finite.
        """
        with self.present(changing=True):
            return self._update(batch, objective, lr, teacher)

    def _update(self, batch: Batch, objective: Objective, lr: float, teacher: Scorer | None) -> dict[str, float]:
        try:
            with during(GRADIENTS):
                stats = self._gradients(batch, objective, teacher)
        except Exception:  # whatever it was: who tries again begins with nothing
            self.optimizer.zero_grad(set_to_none=True)
            raise
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.params if p.grad is not None])
        size = float(whole(norm))
        metrics = stats.of(self.team).metrics(batch, size, lr)
        if not batch.trained:
            self.optimizer.zero_grad(set_to_none=True)
            return metrics
        if not (math.isfinite(metrics.get("optim/loss", 0.0)) and math.isfinite(size)):
            self.optimizer.zero_grad(set_to_none=True)
            raise RunError(
                f"loss {metrics['optim/loss']} or gradient norm {size} is not finite; "
                "try a lower optim.lr or student.dtype=float32"
            )
        if self.optim.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.params, self.optim.max_grad_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        step(self.optimizer, self.states)
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        named = ((name, own(p.detach())) for name, p in self.model.named_parameters() if p.requires_grad)
        if problem := next(filter(None, self.team.gather(not_finite(named))), None):  # on any rank
            raise RunError(f"the update has made weights that are not finite, first {problem}; {self.optim.remedy}")
        return metrics

    def _gradients(self, batch: Batch, objective: Objective, teacher: Scorer | None) -> TokenStats:
        """Add up those of all micro-batches; nothing of the student changes but them."""
        completions = self.completions(batch, objective)
        advantages = advantages_of(objective, completions, self.device)
        stats = TokenStats()
        for micro in self.split.passes(batch.micro):
            self.split.check(micro)
            micro = micro.to(self.device)
            self._accumulate(micro, each(itemgetter(micro.where), advantages), objective, batch.trained, teacher, stats)
        for p in self.unread:
            p.grad = None
        return stats

    def completions(self, batch: Batch, objective: Objective) -> Completions:
        """What advantages are computed from, with what the learner itself says of them where that is needed."""
        if not objective.needs.current:
            return batch.completions
        with self.read() as split:
            return judged_now(split, batch, self.temperature, objective.needs.entropy)

    def _accumulate(
        self,
        micro: MicroBatch,
        advantages: Advantages,
        objective: Objective,
        denominator: int,
        teacher: Scorer | None,
        stats: TokenStats,
    ) -> None:
        """Add one micro-batch's gradient: the head chunk by chunk, each freed before the next, then the body once."""
        with self.autocast():
            hidden = self.split.predicting(micro)
            head = heads.ChunkedHead(self.split, hidden)
            for c in heads.chunks(len(micro.tokens), self.split.head.weight):
                logits = head.logits(c)
                if self.temperature != 1.0:  # the division would cost a copy of the logits, twice
                    logits = logits / self.temperature
                logprobs, normalizers = heads.normalized(logits, micro.tokens[c])
                tokens = self._tokens(logits, logprobs, micro, c, each(itemgetter(c), advantages), teacher)
                losses = losses_of(objective, tokens)
                if tokens.logits.shape != logits.shape:  # figures of distributions are of the columns of both
                    normalizers = tokens.logits.detach().logsumexp(-1)
                stats.add(tokens, normalizers, losses.detach())
                (losses.sum() / denominator).backward()
                # Or their logits would still be there when the next chunk's are made.
                del logits, logprobs, tokens, losses
                head.backward(c)
        grad = head.grad
        del head  # and its copy of the weights
        hidden.backward(grad)

    def _tokens(
        self, logits: Tensor, logprobs: Tensor, micro: MicroBatch, c: slice, advantages: Any, teacher: Scorer | None
    ) -> Tokens:
        signals, teacher_logits, shared = micro.signals.select(c), None, None
        if signals.teacher_state is not None and teacher is not None:
            teacher_logits, shared = teacher.logits(signals.teacher_state), teacher.shared
            if shared is None:  # what is beyond are padding rows of one of them
                columns = min(logits.shape[1], teacher_logits.shape[1])
                logits = logits if columns == logits.shape[1] else logits[:, :columns]
                teacher_logits = teacher_logits[:, :columns]
        return Tokens(
            **vars(signals),
            logits=logits,
            tokens=micro.tokens[c],
            logprobs=logprobs,
            advantages=advantages,
            teacher_logits=teacher_logits,
            shared=shared,
        )

    @contextmanager
    def read(self) -> Iterator[heads.SplitModel]:
        """The model as it is now, ready to be read without a graph."""
        # A teacher may put a moving average into the weights' places meanwhile.
        with self.present(), evaluating(self.model), torch.no_grad(), self.autocast(cached=False):
            try:
                yield self.split
            finally:
                self.split.rest()

    def logprobs(self, sequences: Sequence[TokenPair], temperature: float | None = None) -> list[list[float]]:
        """`log pi` of each completion's tokens after its prompt, at the sampling temperature if no other is given."""
        with during("learner's scores"), self.read() as split:
            return score_sequences(split, sequences, self.optim.micro_tokens, temperature or self.temperature)

    @contextmanager
    def altered(self) -> Iterator[None]:
        """Inside, another model: every weight is half of what it was, where that can be undone to the bit."""
        halved = []
        try:
            with torch.no_grad():
                for p in map(own, self.model.parameters()):
                    half = p * 0.5
                    if torch.equal(half * 2.0, p):
                        p.data.copy_(half)
                        halved.append(p)
            yield
        finally:
            with torch.no_grad():
                for p in halved:
                    p.data.mul_(2.0)

    @again
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Checkpoint names and tensors, adapters merged on the way out, shards gathered: all ranks have to take all."""
        with self.present():
            yield from merged_weights(self.model)

    def saved(self) -> Iterator[tuple[str, Tensor]]:
        """Names in memory and tensors, or shards of them, that a checkpoint has to hold: of adapters these alone."""
        named = self.model.state_dict().items()
        if hasattr(self.model, "peft_config"):
            return ((name, tensor) for name, tensor in named if ".lora_" in name)
        tied = self.model.all_tied_weights_keys or {}
        return ((name, tensor) for name, tensor in named if name not in tied)
