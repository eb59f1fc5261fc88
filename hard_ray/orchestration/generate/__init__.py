"""`hardray generate` as a Ray Data job."""
