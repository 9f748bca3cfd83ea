"""What can be known of a run before a model is loaded: looked at by `opd train`, its dry run, and `opd plan`."""
