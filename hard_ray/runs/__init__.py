"""Folders of runs and searches, the records in them, and MLflow, which follows them."""
