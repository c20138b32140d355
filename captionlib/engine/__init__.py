"""Training for real: recipes, several processes, fine-tuning, other objectives."""
