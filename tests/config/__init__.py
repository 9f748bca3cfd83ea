"""Composing and checking configs."""
