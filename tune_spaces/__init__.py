"""Search spaces, one YAML file per question."""
