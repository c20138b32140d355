"""Reading and writing: images, backbones, cached grids, captions, atomic
files."""
