"""Ray: workers, teacher pool, clusters."""
