"""Which layers may be gathered in the type that they are multiplied in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opd.models.loading import load_causal_lm
from opd.models.shards import layers, products_alone
from opd.types import Pretrained
from tests.tiny import save_model


@pytest.mark.parametrize(
    ("architecture", "alone"), [("llama", True), ("qwen3", True), ("gpt2", False), ("qwen3_moe", False)]
)
def test_layers_of_products_and_norms_may_and_those_with_experts_or_torch_s_own_norms_may_not(
    tmp_path: Path, architecture: str, alone: bool
) -> None:
    model = load_causal_lm(
        Pretrained(str(save_model(tmp_path / "model", architecture, seed=1, tied=True))), torch.float32
    )
    found = [products_alone(layer) for layer in layers(model.model if architecture != "gpt2" else model, model)]
    assert found
    assert all(found) == alone  # its other layer has no experts
    half = model.to(torch.bfloat16)
    assert not any(products_alone(layer) for layer in layers(half, half))
