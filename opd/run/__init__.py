"""A run's folder, and what a run writes down and counts."""
