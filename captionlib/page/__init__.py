"""The captioner in the browser: an engine in C and JavaScript, and its packer.

engine.c is compiled to WebAssembly by `make wasm`. The scripts need nothing but
a browser: engine.js runs the encoder, decoder.js and search.js write captions,
picture.js reads pictures as `captionlib.io.images` does, and try_it.js is the
book's page.
"""

from captionlib.page.pack import NUMBERS, Packed, pack, round_weights

__all__ = ["NUMBERS", "Packed", "pack", "round_weights"]
