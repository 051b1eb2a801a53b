"""Structured and composite convolution: sums over binary masks, then a small convolution."""
