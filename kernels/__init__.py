"""Tensors in, tensors out: the compute back ends."""
