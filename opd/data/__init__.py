"""From tasks to token ids: chat templates, mixing, the order of a run."""
