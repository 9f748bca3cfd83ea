"""Harm to real runs, and what is left: `python -m tests.faults KIND`; `KIND --help` says how much of it."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is on a hub, which would be waited for
