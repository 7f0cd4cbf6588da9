"""Latentia: a laboratory for latent-variable generative models."""
