"""From a config's name and overrides to a checked, frozen dataclass."""
