"""The default engine: vLLM inside this process, on CPU or GPU, with weights replaced in place."""

from __future__ import annotations

import gc
import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from weakref import WeakSet

from pydantic import Field

from opd.devices.shortage import during
from opd.devices.threads import threads
from opd.extras import build, install, lacks
from opd.models.facts import Facts
from opd.rollout.classes import borrowed
from opd.rollout.guard import contained, line
from opd.rollout.loading import check_room, facts_for
from opd.rollout.seeds import request_seeds
from opd.rollout.sleep import Part, Sleeper
from opd.rollout.spread import Spread, layout, push
from opd.rollout.vllm_mends import flatten_heads, hasten, stateful, with_experts
from opd.stream import in_order
from opd.types import Pretrained, Prompt, Rollout, RunError, Sampling, UserError, Weights

GIB = 2**30
_alive: WeakSet[VllmSampler] = WeakSet()
"""Engines that run in this process: they share what vLLM keeps once per process."""


@dataclass(frozen=True)
class Vllm:
    """Settings of the vLLM engine."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto` is what the hardware is fast in. The nearer to the learner's, the nearer are the two distributions."""
    memory_gb: Annotated[float, Field(ge=1e-4, le=1e5)] | None = None
    """GiB for the KV cache, on each device. None: 1 on CPU; on GPU what `gpu_memory_utilization` leaves."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the GPU's memory for weights and KV cache together; the learner lives on the rest. Unused on CPU."""
    max_num_seqs: Annotated[int, Field(gt=0, le=100_000)] = 512
    """Sequences decoded at once. Below the number of samples of a step it costs up to 40% of the speed."""
    threads: Annotated[int, Field(gt=0, le=4096)] | None = None
    """Torch threads while the engine works. None: those of the run. 1 is best for models of a few million weights."""
    eager: bool | None = None
    """Skip compilation. None: yes on CPU, where compiling takes a minute, no on GPU."""
    prefix_caching: bool = True
    """Compute a prompt once for all of its samples."""
    sleep: bool = False
    """Leave the GPU's memory to teacher and learner while they work; `gpu_memory_utilization` may then be near 1. Only
    the first engine of a process can."""
    log: bool = False
    """Show vLLM's own log lines."""

    def spread(self, devices: int) -> Spread:
        """The same on several devices; see `opd.writing.Spreading`."""
        return Spread(partial(self.start, devices=devices))

    def start(self, model: Pretrained | str, *, max_len: int, seed: int, devices: int = 1) -> VllmSampler | Sleeper:
        """Load `model` into a new engine inside this process; with more than one device, into others for `Spread`.

        Raises:
            UserError: vLLM is not installed, or the model cannot be loaded or cannot read `max_len` tokens.
        """
        from opd.models.files import check_files

        model = Pretrained.of(model)
        facts = facts_for(model, max_len)
        check_files(model)
        vllm = self._import(facts)
        sleeps = self._sleeps()
        try:
            with contained(self.log, devices == 1), threads(self.threads), borrowed() as classes:
                flatten_heads()
                with_experts()
                # Not bound to a name here: errors that vLLM caught and kept hold on to this frame and its variables.
                guest = _guest()
                arguments = self._arguments(model, max_len, seed, stateful(vllm, facts)) | layout(devices)
                sampler = VllmSampler(
                    vllm.LLM(**arguments, enable_sleep_mode=sleeps), facts, max_len, self.threads, guest, devices
                )
        except Exception as error:  # models of its own, of hundreds of authors: each fails in its own way
            raise UserError(
                f"rollout: vLLM does not start with {model.path!r} ({line(error)}); rollout.log=true shows what it "
                "said, rollout=hf does without it"
            ) from error
        classes.give_back(sampler._engine)
        return Sleeper(sampler) if sleeps else sampler

    def _sleeps(self) -> bool:
        """Whether this engine can sleep: on a GPU, and alone in its process, all of whose engines would."""
        platform = importlib.import_module("vllm.platforms").current_platform
        return self.sleep and not _alive and bool(platform.is_sleep_mode_available())

    def _import(self, facts: Facts) -> Any:
        """Import vLLM with the environment that it reads when it is imported and started."""
        if lacking := lacks():
            raise UserError(f"rollout: {lacking}; or use rollout=hf")
        level = "INFO" if self.log else "ERROR"
        os.environ.update(
            VLLM_ENABLE_V1_MULTIPROCESSING="0",  # in this process, so that weights need not be copied to another one
            VLLM_ALLOW_LONG_MAX_MODEL_LEN="1",  # for the one more of `_arguments`
            VLLM_NO_USAGE_STATS="1",
            VLLM_LOGGING_LEVEL=level,
            VLLM_LOGGING_STREAM="ext://sys.stderr",  # by default stdout, which is the command's
        )
        with contained(self.log, gpus=False):
            try:
                vllm = importlib.import_module("vllm")
                hasten(vllm, facts)
            except ImportError as error:
                fix = f"install it with  {install(build())}  or use rollout=hf"
                raise UserError(f"rollout: vLLM cannot be imported ({error}): {fix}") from error
        logging.getLogger("vllm").setLevel(level)
        return vllm

    def _arguments(self, model: Pretrained, max_len: int, seed: int, stateful: bool) -> dict[str, Any]:
        """Arguments of `vllm.LLM`."""
        from opd.devices.compute import dtype_name

        cpu = importlib.import_module("vllm.platforms").current_platform.is_cpu()
        memory = self.memory_gb or (1.0 if cpu else None)
        return {
            "model": model.path,
            "trust_remote_code": model.trust_remote_code,
            "seed": seed,
            "dtype": dtype_name(self.dtype, "cpu" if cpu else "cuda"),
            # One more than the longest sequence: to score one, vLLM wants room to sample a token after it.
            "max_model_len": max_len + 1,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": max(self.max_num_seqs, 4096, max_len + 1),
            # A prompt that is read in parts makes vLLM rewind the request's random generator, which CPU ones cannot.
            "enable_chunked_prefill": not cpu,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if memory is None else int(memory * GIB),
            "enforce_eager": cpu if self.eager is None else self.eager,
            # What a state space keeps of a prefix is cut where chunks are.
            "enable_prefix_caching": self.prefix_caching and not (cpu and stateful),
            "logprobs_mode": "processed_logprobs",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "use_tqdm_on_load": False,
        }


class VllmSampler:
    """A running vLLM engine."""

    def __init__(
        self, engine: Any, facts: Facts, max_len: int, thread_count: int | None, guest: bool = False, devices: int = 1
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._max_len = max_len
        self._threads = thread_count
        self._devices = devices
        self.guest = guest
        """Whether the process group that it is in was there before any engine, and stays."""
        self._version = 0
        _alive.add(self)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `sampling.n` completions per prompt; see `opd.writing.Sampler`."""
        return in_order(self.stream(prompts, sampling))

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        """Draw the same, each as soon as it is finished; see `opd.stream.Streaming`."""
        check_room(prompts, sampling, self._max_len, self._facts)
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        params = [_params(sampling, seed) for seed in request_seeds(sampling, len(owners))]
        for place, answer in self._generate([prompt.tokens for prompt in owners], params):
            output = answer.outputs[0]
            yield (
                place,
                Rollout(
                    prompt=owners[place],
                    tokens=tuple(output.token_ids),
                    logprobs=tuple(output.logprobs.logprobs),
                    truncated=output.finish_reason in ("length", "repetition"),
                    version=self._version,
                ),
            )

    def logprobs(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Score given completions at temperature 1; see `opd.writing.Sampler`."""
        from vllm import SamplingParams

        # Reading cached prefixes would leave out their log-probs; vLLM knows, and does not for such requests.
        ask = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
        tokens = [(*prompt, *completion) for prompt, completion in sequences]
        outputs = in_order(self._generate(tokens, [ask] * len(tokens)))
        # The first token of a sequence has no log-prob, so that the list is one shorter than the sequence.
        return [
            output.prompt_logprobs.logprobs[len(prompt) - 1 :]
            for (prompt, _), output in zip(sequences, outputs, strict=True)
        ]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights in place; see `opd.writing.Sampler`."""
        with threads(self._threads):
            try:
                push(self._engine, weights, self._facts, self._devices)
            except Exception as error:  # likewise
                names = ", ".join(self._facts.architectures)
                raise RunError(
                    f"rollout: vLLM does not take new weights of a {names} ({line(error)}); use rollout=hf"
                ) from error
        self._engine.reset_prefix_cache()
        self._version = version

    def sleep(self, keep: bool) -> None:
        """Give back its memory; see `opd.rollout.sleep.Sleeping`."""
        self._engine.sleep(level=1 if keep else 2)

    def wake(self, part: Part) -> None:
        """Take the memory of a part again, of which vLLM first has torch give back what it holds and does not use."""
        self._engine.wake_up(tags=[part])

    def close(self) -> None:
        """Free the engine's memory; with the last engine of the process goes vLLM's process group."""
        if self._engine is None:
            return
        _alive.discard(self)
        core = self._engine.llm_engine.engine_core
        if _alive or self.guest:
            # Engines of one process share the group: shutting this one down would break the others.
            core._finalizer.detach()
            gc.unfreeze()
        else:
            core.shutdown()
        self._engine = core = None
        gc.collect()

    def _generate(self, tokens: Sequence[Sequence[int]], params: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run requests to their end, and give each with its place when it is there; leaves none behind."""
        import torch

        prompts = [{"prompt_token_ids": list(ids)} for ids in tokens]
        inner = self._engine.llm_engine
        # On CPU vLLM draws from torch's own generator even where every request has its seed.
        with during("generate"), threads(self._threads), torch.random.fork_rng(devices=[]):
            try:
                asked = self._engine.enqueue(prompts, list(params), use_tqdm=False)
                states = inner.output_processor.request_states
                places = {states[name].external_req_id: place for place, name in enumerate(asked)}
                while inner.has_unfinished_requests():
                    for output in inner.step():
                        if output.finished:
                            yield places[output.request_id], output
            except BaseException as error:
                inner.abort_request(list(inner.output_processor.request_states), internal=True)
                if not isinstance(error, Exception):  # somebody's Ctrl-C
                    raise
                names = ", ".join(self._facts.architectures)
                raise RunError(
                    f"rollout: vLLM does not compute with a {names} ({line(error)}); use rollout=hf"
                ) from error


def _guest() -> bool:
    """Whether a process group is there that no engine has made."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and all(sampler.guest for sampler in _alive)


def _params(sampling: Sampling, seed: int) -> Any:
    """Translate, leaving nothing to the checkpoint's generation config; `logprobs=0` asks for the sampled token's."""
    from vllm import SamplingParams
    from vllm.sampling_params import RepetitionDetectionParams

    rule = sampling.repetition
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop_token_ids=list(sampling.stop),
        ignore_eos=True,
        seed=seed,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        repetition_detection=RepetitionDetectionParams(rule.longest, rule.shortest, rule.times)
        if rule.longest
        else None,
    )
