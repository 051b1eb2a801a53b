"""Whole networks around a block, one layout a file."""
