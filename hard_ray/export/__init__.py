"""Saved models: exports of a student, its model card and graphs, and predictions."""
