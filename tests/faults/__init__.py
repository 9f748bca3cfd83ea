"""Kill parts of a real run at random instants, and see what is left: `python -m tests.faults ranks [--times 20]`."""
