"""Pretrained autoencoders: continuous latents or codes."""
