"""llama.cpp, where it is installed, writing with a GGUF file: what most people will use one with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from opd.rollout.seeds import request_seeds
from opd.types import Prompt, Rollout, RunError, Sampling


def there() -> bool:
    """Whether its Python bindings are installed."""
    return find_spec("xllamacpp") is not None


class LlamaCpp:
    """A GGUF file in llama.cpp, on CPUs, in this process."""

    def __init__(self, file: Path, max_len: int, threads: int | None):
        """RunError where llama.cpp cannot read the file."""
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx = max_len
        settings.n_parallel = 1
        settings.n_gpu_layers = 0
        settings.warmup = False
        # What it would round by itself, whatever the file is in: keys and values, and the sums of attention.
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.verbosity = -1
        if threads:
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        try:
            self._server: Any = xllamacpp.Server(settings)
        except Exception as e:  # whatever its C++ throws: the file is the cause
            raise RunError(f"llama.cpp cannot read the GGUF file that was written: {e}; nothing was exported") from e

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `sampling.n` completions per prompt, with the log-prob of each token."""
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        return [
            self._complete(prompt, seed, sampling)
            for prompt, seed in zip(owners, request_seeds(sampling, len(owners)), strict=True)
        ]

    def tokens(self, text: str) -> list[int]:
        """The ids that it cuts a text into."""
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = Request(
            f"{self._server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )  # its bindings have no call for this, only its server on the loopback
        with urlopen(request, timeout=60) as answer:
            return [int(t) for t in json.load(answer)["tokens"]]

    def close(self) -> None:
        """Let go of the model."""
        self._server = None

    def _complete(self, prompt: Prompt, seed: int, sampling: Sampling) -> Rollout:
        """Token by token: where one is but a part of a character, its server leaves it out of what it reports."""
        ids: list[int] = []
        logprobs: list[float] = []
        for place in range(sampling.max_tokens):
            drawn = self._draw([*prompt.tokens, *ids], (seed + place) % 2**31)
            if drawn is None:
                break
            ids.append(int(drawn["id"]))
            logprobs.append(float(drawn["logprob"]))
            if ids[-1] in sampling.stop:
                return Rollout(prompt, tuple(ids), tuple(logprobs), truncated=False)
        return Rollout(prompt, tuple(ids), tuple(logprobs), truncated=True)

    def _draw(self, tokens: Sequence[int], seed: int) -> Any:
        """One token after others, and its log-prob."""
        answer = self._server.handle_completions(
            {
                "prompt": list(tokens), "n_predict": 1, "n_probs": 1, "seed": seed, "samplers": ["temperature"],
                "temperature": 1.0, "cache_prompt": True,
            }
        )  # fmt: skip
        found = answer["choices"][0]["logprobs"]
        return found["content"][0] if found and found["content"] else None
