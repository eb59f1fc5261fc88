"""The configuration of a run and of each command, as frozen pydantic models."""
