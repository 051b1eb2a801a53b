"""Search, training, ranking, export and the command line."""
