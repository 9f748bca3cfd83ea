"""Tiny models and tokenizers that tests share; nothing here needs a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import char_tokenizer, save_model

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def student_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with tied embeddings."""
    return save_model(tmp_path_factory.mktemp("student"), "qwen3", seed=1, tied=True)


@pytest.fixture(scope="session")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a head of its own, over the same characters."""
    return save_model(tmp_path_factory.mktemp("teacher"), "llama", seed=2, tied=False, hidden=96)


@pytest.fixture(scope="session")
def tokenizer():  # noqa: ANN201  (transformers' class depends on its version)
    """One token per character, with a chat template."""
    return char_tokenizer()
