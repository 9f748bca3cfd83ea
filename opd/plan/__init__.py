"""What a run needs before it is paid for: bytes of each device and phase, seconds of a step, what would fit better."""
