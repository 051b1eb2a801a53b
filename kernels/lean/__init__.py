"""Lean convolution: a 1 x 1 and a grouped spatial convolution as one operator."""
