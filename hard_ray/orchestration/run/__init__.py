"""One run on Ray: driver, plan, workers."""
