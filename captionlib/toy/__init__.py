"""The toy world: scenes drawn from sprites, with captions that are true of
them."""
