"""`opd eval`: base, student and teacher on the same held-out prompts."""
