"""Engines that sample from the student: vLLM (the default) and transformers (the fallback)."""
