"""CUDA kernels: their sources, how they are compiled without a GPU, and how they are launched."""
