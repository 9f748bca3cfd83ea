"""Kill parts of a real run at random instants, and see what is left: `python -m tests.faults fleet [--times 20]`."""
