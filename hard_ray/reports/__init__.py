"""Figures and pages, drawn from folders without model, data or Ray."""
