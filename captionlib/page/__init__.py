"""The captioner in the browser: an engine in C and JavaScript, and its packer.

engine.c is compiled to WebAssembly by `make wasm`. The scripts need nothing but
a browser: engine.js runs the encoder, decoder.js and search.js write captions,
picture.js reads pictures as `captionlib.io.images` does, and the others are the
book's page "Try it".
"""

from captionlib.page.pack import NUMBERS, Packed, pack, round_weights
from captionlib.page.site import Sample, write_captioner, write_page

__all__ = [
    "NUMBERS",
    "Packed",
    "Sample",
    "pack",
    "round_weights",
    "write_captioner",
    "write_page",
]
