"""What a machine computes in, and with how many threads."""
