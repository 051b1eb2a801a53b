"""Real training, as opposed to the brief one that ranks: recipes, augmentation, checkpoints."""
