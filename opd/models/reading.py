"""Whatever a library says while it reads a model becomes one line that names the model and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opd.models import hub
from opd.models.there import check_there
from opd.types import Pretrained, RunError, UserError

FIXES = {
    "trust_remote_code": "; it has code of its own: set trust_remote_code=true beside it if you trust that",
    "attn_implementation": "; the setting is `attention`: auto lets transformers choose",
    "couldn't connect": "; nor is there a folder of this name here (with HF_HUB_OFFLINE=1 no hub is asked)",
    "FlashAttention": "; the setting is `attention`: auto lets transformers choose",
}
"""What to do about errors of transformers in which these words are."""
INSTEAD = {
    "adapter_config.json": "; it is an adapter: name the model that it was made from, or merge them (opd export does)",
    "config.yaml": "; it is a run: name the folder that opd export writes, or one of its checkpoints/step_N/model",
    "model/config.json": "; a model is in it: {}/model",
}
"""What a folder is that is no model, by a file in it, and what to name instead."""


@contextmanager
def reading(what: str, model: Pretrained) -> Iterator[None]:
    """What a library raises inside, while it reads `model`, becomes a UserError: the model is the cause.

    Args:
        what: What is being read, `tokenizer`.
        model: Whose it is. A path that is not there is refused before any hub is asked.
    """
    check_there(model.path)
    try:
        with hub.asked(model.path):
            yield
    except (UserError, RunError):
        raise
    except Exception as e:  # each library has its own for a file that it cannot read
        lines = str(e).strip().splitlines() or ["no reason given"]
        while lines[0].rstrip().endswith(":") and len(lines) > 1:  # what it announces is said below it
            lines[:2] = [f"{lines[0].strip()} {lines[1].strip()}"]
        kind = "" if isinstance(e, OSError | ValueError) else f"{type(e).__name__}: "
        fix = next((fix for sign, fix in FIXES.items() if sign in str(e)), "")
        fix = next(
            (said.format(model.path) for name, said in INSTEAD.items() if (Path(model.path) / name).is_file()), fix
        )
        raise UserError(f"no {what} could be loaded from {model.path!r}: {kind}{lines[0].rstrip('.')}{fix}") from e
