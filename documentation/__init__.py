"""Generation of docs/reference/, and checks and runs of the commands of all pages."""
