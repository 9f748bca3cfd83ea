"""Kill parts of a real run at random instants, and see what is left: `python -m tests.faults ranks [--times 20]`."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is on a hub, which would be waited for
