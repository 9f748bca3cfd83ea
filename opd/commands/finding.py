"""What a command in this process speaks of; mistakes in what was typed are told before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opd.commands.asked import asked

if TYPE_CHECKING:
    from opd.commands.subject import Subject


def find_subject(named: Mapping[str, str], overrides: Sequence[str], parts: Sequence[str] = ()) -> Subject:
    """What is named, for this process alone; see `opd.commands.asked.asked`."""
    found = asked(named, overrides, parts)
    found.draft.checked()
    from opd.commands.subject import subject_of

    return subject_of(found, alone=True)
