"""Measurements: `python -m benchmarks NAME`. Figures go to `benchmarks/results/`."""
