"""Segue: temporally coherent video from latent diffusion models."""
