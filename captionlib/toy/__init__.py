"""The drawn world: scenes of sprites, and captions that are true of them."""
