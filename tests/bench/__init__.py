"""What the design buys, measured against the naive way of doing the same: `make bench`."""
