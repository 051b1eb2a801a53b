"""Shift: each channel moves by one fixed tap."""
