"""Weights as they lie in a folder, for who reads them without transformers: all that there have to be, and finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from opd.models.kinds import check_kinds
from opd.models.loading import check_finite, check_names, load_causal_lm, load_config, skeleton
from opd.models.naming import checkpoint_names
from opd.models.reading import reading
from opd.types import Pretrained


def weights_of(model: Pretrained) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a saved model, one after the other.

    Raises:
        UserError: They are not those that its config asks for, or one is not finite.
    """
    bare = skeleton(model, load_config(model))
    wanted = {name: list(t.shape) for name, t in checkpoint_names(bare, bare.state_dict().items())}
    with ExitStack() as stack:
        found: dict[str, Any] = {}
        with reading("causal language model", model):
            for file in _files(model):
                tensors = stack.enter_context(safe_open(file, framework="pt"))
                found |= dict.fromkeys(sorted(tensors.keys()), tensors)
            shapes = {name: tensors.get_slice(name).get_shape() for name, tensors in found.items()}
        read = {
            "missing_keys": wanted.keys() - found.keys(),
            "unexpected_keys": found.keys() - wanted.keys(),
            "mismatched_keys": [(n, s, wanted[n]) for n, s in shapes.items() if s != wanted.get(n, s)],
        }
        check_names(read, wanted, model)
        check_kinds(Path(model.path), wanted, packed=False)
        for name, tensors in found.items():
            tensor = tensors.get_tensor(name)
            check_finite([(name, tensor)], model.path)
            yield name, tensor


def check_files(model: Pretrained) -> None:
    """Refuse a folder for who loads it otherwise, and draws what is missing: vLLM does, of some architectures.

    What is in a hub's cache is taken as it is, and so are the names of packed weights, which only who packs them knows.
    """
    if not (files := _files(model)):
        return
    if getattr(load_config(model), "quantization_config", None) is None:
        load_causal_lm(model, "auto", device_map={"": "meta"})  # reads names and shapes
    with reading("causal language model", model):
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    check_finite([(name, tensors.get_tensor(name))], model.path)


def _files(model: Pretrained) -> list[Path]:
    return sorted(Path(model.path).glob("*.safetensors"))
