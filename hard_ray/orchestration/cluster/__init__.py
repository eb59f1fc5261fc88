"""Joining or starting a cluster, and what a job needs of it."""
