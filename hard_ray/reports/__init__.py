"""Figures and pages, made from the records in folders, without models, data or Ray."""
