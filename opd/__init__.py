"""On-policy distillation: the student writes, the teacher judges every token, the student learns."""

__version__ = "0.1.0"
