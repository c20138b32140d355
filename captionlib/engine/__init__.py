"""Training for real: recipes, exact resumption, several processes, other objectives."""
