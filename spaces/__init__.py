"""Operators, designs and whole networks: what can be built, and where each part stands."""
