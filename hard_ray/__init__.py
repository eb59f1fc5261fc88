"""Robust knowledge distillation of vision models on Ray."""
