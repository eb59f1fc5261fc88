"""Commands as jobs of a cluster: checked, packaged, sent, followed."""
