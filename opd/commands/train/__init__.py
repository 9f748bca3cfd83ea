"""`opd train`: what it is about to do, one run of it, and the runs of a sweep."""
