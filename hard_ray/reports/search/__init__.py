"""The results of a search: tables, figures, and the importance of settings."""
