"""The command line: one file per command, or a folder where it takes several."""
