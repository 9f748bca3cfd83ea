"""The student: forward, backward, step."""
