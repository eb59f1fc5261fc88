"""A recommendation: scores, pilots in rungs on one teacher pool, and what follows from them."""
