"""The versions that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The versions that a result depends on, to be stored beside it."""
    names = (
        "captionlib",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "h5py",
    )
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Run from a checkout that was never installed.
            found[name] = "unknown"
    return found
