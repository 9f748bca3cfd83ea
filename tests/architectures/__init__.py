"""Which architectures of transformers work, and how: tiny random models of each, through a whole run."""
