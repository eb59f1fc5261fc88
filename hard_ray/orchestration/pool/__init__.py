"""The teacher pool: frozen networks in actors that return logits and gradients."""
