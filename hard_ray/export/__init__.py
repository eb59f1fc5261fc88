"""A student taken out of its run, and what a user may name as a model."""
