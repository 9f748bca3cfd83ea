"""Checkpoints that ship, or are made or converted on first use and kept in a cache. Imports nothing heavy."""
