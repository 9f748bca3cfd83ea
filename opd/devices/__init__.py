"""What a run computes on, and in: the device, its fast number format, and how many threads."""
