"""Taking architectures apart, and refusing those that would be read wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opd.models.heads import score_sequences, split_model
from opd.models.loading import load_causal_lm
from opd.types import Pretrained, UserError
from tests.tiny import save_model

SEQUENCES = [([3, 4, 5], [6, 7, 8, 9]), ([10, 11], [12, 13]), ([2] * 20, [5, 6, 7])]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "gpt2"])
def test_packed_sequences_are_scored_as_if_each_were_alone(kind: str, tied: bool, tmp_path: Path) -> None:
    path = save_model(tmp_path, kind, seed=0, tied=tied)
    model = load_causal_lm(Pretrained(str(path)), torch.float32, "sdpa", torch.device("cpu")).eval()
    found = score_sequences(split_model(model), SEQUENCES)
    for (prompt, completion), logprobs in zip(SEQUENCES, found, strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), own, atol=1e-5, rtol=1e-5)


def test_an_architecture_that_lets_packed_sequences_see_each_other_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path, "opt", seed=0, tied=True)
    model = load_causal_lm(Pretrained(str(path)), torch.float32, "sdpa", torch.device("cpu"))
    with pytest.raises(UserError, match="OPTForCausalLM lets sequences that are packed in a row see each other"):
        split_model(model)
