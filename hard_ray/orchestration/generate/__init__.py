"""`hardray generate` on actors."""
