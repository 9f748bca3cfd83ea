"""`opd init`: a commented config for models and data of one's own."""
