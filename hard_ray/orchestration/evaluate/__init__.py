"""`hardray evaluate` as Ray Data jobs."""
