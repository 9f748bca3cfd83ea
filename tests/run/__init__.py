"""What a run writes and counts."""
