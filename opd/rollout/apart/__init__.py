"""Engines in processes of their own: one (`process.py`), several as one (`fleet.py`), ahead of the learner."""
