"""Cases, clocks, floors and figures of the benchmarks `kernels` and `networks`."""
