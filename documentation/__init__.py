"""What makes, checks and runs the pages in docs/."""
