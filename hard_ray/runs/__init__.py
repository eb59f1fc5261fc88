"""Run folders and what they hold; MLflow follows them."""
