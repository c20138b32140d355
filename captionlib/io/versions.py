"""Versions of the packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The versions to store beside a result."""
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
            # A checkout that was never installed.
            found[name] = "unknown"
    return found
