"""A model with some of its layers left out: a student that knows the language but has lost its way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opd.models import cache
from opd.protocols import ModelSource
from opd.types import Pretrained, UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_FORMAT = 1  # counts changes to what is written


@dataclass(frozen=True)
class Pruned:
    """A decoder-only transformers model without the layers `drop_layers`."""

    base: str | ModelSource
    """A folder, a hub name, or another source."""
    drop_layers: tuple[int, ...]
    """Indices of the layers to leave out, counted from 0."""

    def path(self) -> str:
        """Folder of the smaller model; UserError where an index is not one of the base's layers."""
        base = self.base if isinstance(self.base, str) else self.base.path()
        if isinstance(self.base, str):
            inputs = cache.state(Path(base)) if Path(base).is_dir() else ""
        else:
            inputs = Path(base).name  # a cached folder's name says what is in it
        title = f"leaving {len(self.drop_layers)} layers out of {Path(base).name}"
        return cache.checkpoint(self, f"{_FORMAT} {inputs}", title, lambda folder, progress: self._write(base, folder))

    def _write(self, base: str, folder: Path) -> None:
        from opd.models.loading import load_causal_lm, tokenizer_of

        with cache.quiet():
            tokenizer, model = tokenizer_of(Pretrained(base)), load_causal_lm(Pretrained(base), "auto")
            drop(model, self.drop_layers)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def drop(model: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Leave layers out of a model in place, and make its config say so.

    Raises:
        UserError: where an index is repeated or not one of the model's, or none would be left.
    """
    from torch.nn import ModuleList

    body = model.get_decoder()
    config: PretrainedConfig = body.config
    count = len(body.layers)
    _check(layers, count)
    kept = [i for i in range(count) if i not in layers]
    body.layers = ModuleList(body.layers[i] for i in kept)
    for new, layer in enumerate(body.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # where a layer finds its part of the key-value cache
                module.layer_idx = new
    config.num_hidden_layers = len(kept)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        config.layer_types = [kinds[i] for i in kept]


def _check(layers: tuple[int, ...], count: int) -> None:
    bad = sorted({i for i in layers if not 0 <= i < count or layers.count(i) > 1})
    if bad:
        raise UserError(f"drop_layers: {bad} given; allowed are different indices from 0 to {count - 1}")
    if len(layers) == count:
        raise UserError(f"drop_layers: all {count} layers given; at least one must be left")
