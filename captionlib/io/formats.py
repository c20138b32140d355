"""Say what a file is that Pillow can't read, and how to get an image from it.

Names and their endings mean nothing here: the first bytes decide.
"""

from __future__ import annotations

import os

from PIL import features

__all__ = ["no_image"]

HEAD = 4096  # bytes looked at
VIDEO = (
    "is not an image but a video; take a frame from it first, for instance with "
    "ffmpeg -i VIDEO -frames:v 1 FRAME.jpg"
)
HEIF = (
    "is a HEIF (HEIC) photograph, which Pillow can't read; save it as JPEG "
    "first, from a photo viewer or with heif-convert"
)
AVIF = (
    "is an AVIF image, which this Pillow can't read; update Pillow, or save it "
    "as JPEG first"
)
BROKEN_AVIF = (
    "is damaged (an AVIF image that Pillow can't open); fetch it again or "
    "leave it out"
)
RAW = "is a camera's raw file; save it as JPEG first, from a photo program"
JXL = "is a JPEG XL image, which Pillow can't read; save it as PNG first"
PACKED = "is not an image but an archive; unpack it first"
PDF = (
    "is not an image but a PDF document; save its page as PNG first, for "
    "instance with pdftoppm -png"
)
SVG = "is an SVG drawing, which has no pixels; save it as PNG first"
WEB_PAGE = (
    "is not an image but a web page; fetch the image's own address instead"
)
ARRAY = (
    "is not an image but a NumPy array; save it as PNG first, or give the array "
    "to Captioner"
)
POINTER = "stands for an image kept by Git LFS; fetch it with git lfs pull"
EMPTY = "is not an image but an empty file; fetch it again or leave it out"
TEXT = "is not an image but text; replace it or leave it out"
UNKNOWN = "is not an image that Pillow can read; replace it or leave it out"

# Offset, bytes there, and what they tell.
MAGIC = [
    (0, b"%PDF-", PDF),
    (0, b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM
    (8, b"AVI ", VIDEO),
    (0, b"\0\0\1\xba", VIDEO),  # MPEG
    (0, b"\0\0\1\xb3", VIDEO),
    (0, b"FLV\1", VIDEO),
    (0, b"0&\xb2u\x8ef\xcf\x11", VIDEO),  # WMV
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIU\0", RAW),
    (0, b"\xff\x0a", JXL),
    (0, b"\0\0\0\x0cJXL ", JXL),
    (0, b"PK\3\4", PACKED),
    (0, b"\x1f\x8b", PACKED),
    (0, b"BZh", PACKED),
    (0, b"\xfd7zXZ\0", PACKED),
    (0, b"7z\xbc\xaf", PACKED),
    (0, b"Rar!", PACKED),
    (257, b"ustar", PACKED),
    (0, b"\x93NUMPY", ARRAY),
]
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
PLAIN = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x100)))


def no_image(source) -> str:
    """What a file is instead of an image, and the cure.

    Args:
        source: a path, or an open binary file, which is rewound.

    Returns:
        the end of an error line, such as "is not an image but text; ...".
    """
    head = _head(source)
    if not head.strip():
        return EMPTY if not head else TEXT
    for offset, magic, what in MAGIC:
        if head[offset:].startswith(magic):
            return what
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        head = head[2:].replace(b"\0", b"")
    return UNKNOWN if head.translate(None, PLAIN) else _by_text(head.lower())


def _head(source) -> bytes:
    if not isinstance(source, (str, os.PathLike)):
        source.seek(0)
        return source.read(HEAD)
    with open(source, "rb") as file:
        return file.read(HEAD)


def _by_brand(head: bytes) -> str:
    """Of a file in boxes, as MP4: its brand, and the ones it agrees with."""
    brands = head[8 : max(16, min(int.from_bytes(head[:4], "big"), 64))]
    if b"crx " in brands:
        return RAW
    if b"avif" in brands or b"avis" in brands:
        return BROKEN_AVIF if features.check("avif") else AVIF
    return HEIF if any(b in brands for b in HEIF_BRANDS) else VIDEO


def _by_text(text: bytes) -> str:
    if b"<svg" in text:
        return SVG
    if b"<!doctype html" in text or b"<html" in text:
        return WEB_PAGE
    if text.startswith(b"version https://git-lfs"):
        return POINTER
    return TEXT
