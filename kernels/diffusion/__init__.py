"""Diffusion over the map: reaction-diffusion steps and block-circulant convolutions."""
