"""A search's results."""
