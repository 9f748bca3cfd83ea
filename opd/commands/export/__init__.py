"""`opd export`: a checkpoint for other programs, read back, with its card."""
