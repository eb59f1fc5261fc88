"""Joining or starting a Ray cluster, and the resources that a run reserves there."""
