"""The `hardray` command."""
