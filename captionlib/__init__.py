"""Image captioning with visual attention, exported from the book's chapters.

`Captioner` and `Caption` load on first use, so that `import captionlib` is
fast.
"""

__version__ = "0.2.0"
__all__ = ["Caption", "Captioner", "__version__"]


def __getattr__(name: str):
    if name in ("Caption", "Captioner"):
        from captionlib import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
