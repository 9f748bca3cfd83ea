"""Looks at configs whose models have no weights, or are not there."""
