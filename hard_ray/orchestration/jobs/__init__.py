"""Commands as jobs of a cluster: checking, packaging, sending and following them."""
