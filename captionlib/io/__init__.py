"""Files in and out: images, backbones, cached grids, captions, and files that
appear whole."""
