"""A search on Ray Tune; each trial is a run."""
