"""Prompts and the verifiers that go with them, one task to a file."""
