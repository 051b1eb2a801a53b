"""The tables of the papers, one JSON file a paper, and what the model says of each row.

`rows` loads them, `recompute` computes: it never looks at the published figures.
"""
