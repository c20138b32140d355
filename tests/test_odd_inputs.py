"""A thousand odd inputs: each ends in a caption or in one clear line, in bounded memory.

The files are made anew for each run, the same ones from the same seed. One process captions them
all through the command line, batch after batch; a few that a shell makes hard go through processes
of their own. What is no file (images and arrays in memory) goes to `read_image`.
"""

import collections
import faulthandler
import gzip
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from captionlib import cli
from captionlib.io.files import InputError
from captionlib.io.images import read_image

COUNT = 1000
BATCH = 200  # files in one call
PATIENCE = 120  # seconds for a call; it takes about 6 on a core of its own
GROWTH = (
    200  # MiB that the whole run may add to what captioning good images takes
)
PER_PIXEL = (
    8  # bytes that converting a large image may take, beside the image itself
)
OPTIONS = ["caption", "--json", "--beam-size", "1", "--batch-size", "8"]

Odd = tuple[str, bytes]  # a file's name and what it holds


# ------------------------------------------------------------------------------------- odd files


def picture(
    width: int = 60, height: int = 44, mode: str = "RGB"
) -> Image.Image:
    """A small smooth picture, the same each time, in any mode."""
    coarse = np.random.default_rng(5).integers(
        0, 256, (5, 7, 3), dtype=np.uint8
    )
    image = Image.fromarray(coarse).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = (
            ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"),
        )
        return ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    if mode.startswith("I;16"):
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        raw = deep.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
        return Image.frombytes(mode, image.size, raw)
    for step in {
        "La": ["LA", "La"],
        "RGBa": ["RGBA", "RGBa"],
        "PA": ["P", "PA"],
    }.get(mode, [mode]):
        image = image.convert(step)
    return image


MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
]
MODES += ["RGBa", "La", "I;16", "I;16L", "I;16B", "I;16N"]
FORMATS = [
    "PNG",
    "JPEG",
    "GIF",
    "WEBP",
    "TIFF",
    "BMP",
    "PPM",
    "TGA",
    "JPEG2000",
    "ICO",
    "PCX",
]
FORMATS += [
    "SGI",
    "DDS",
    "ICNS",
    "IM",
    "MSP",
    "SPIDER",
    "XBM",
    "QOI",
    "AVIF",
    "BLP",
    "EPS",
    "PDF",
]
FORMATS += ["PALM"]


def saved(image: Image.Image, kind: str, **options) -> bytes | None:
    """The bytes of a file of this format, None where the format or this Pillow can't."""
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(file, kind, **options)
    except (
        Exception
    ):  # a mode that the format doesn't take, a format that is not built in
        return None
    return file.getvalue()


def valid() -> dict[str, bytes]:
    """Good files of many kinds, to be spoilt."""
    Image.init()
    frames = [picture().rotate(90 * n) for n in range(3)]
    moving = {"save_all": True, "append_images": frames[1:]}
    kinds = {
        "baseline.jpg": saved(picture(), "JPEG"),
        "progressive.jpg": saved(picture(), "JPEG", progressive=True),
        "cmyk.jpg": saved(picture(mode="CMYK"), "JPEG"),
        "plain.png": saved(picture(), "PNG"),
        "deep.png": saved(picture(mode="I;16"), "PNG"),
        "palette.png": saved(picture(mode="P"), "PNG", transparency=3),
        "moving.png": saved(frames[0], "PNG", **moving),
        "plain.gif": saved(picture(), "GIF"),
        "moving.gif": saved(frames[0], "GIF", **moving),
        "lossy.webp": saved(picture(), "WEBP"),
        "lossless.webp": saved(picture(mode="RGBA"), "WEBP", lossless=True),
        "moving.webp": saved(frames[0], "WEBP", **moving),
        "plain.tif": saved(picture(), "TIFF"),
        "lzw.tif": saved(picture(), "TIFF", compression="tiff_lzw"),
        "deflate.tif": saved(
            picture(), "TIFF", compression="tiff_adobe_deflate"
        ),
        "jpeg.tif": saved(picture(), "TIFF", compression="jpeg"),
        "fax.tif": saved(picture(mode="1"), "TIFF", compression="group4"),
        "plain.bmp": saved(picture(), "BMP"),
        "palette.bmp": saved(picture(mode="P"), "BMP"),
    }
    for kind in FORMATS[6:]:
        kinds[f"plain.{kind.lower()}"] = saved(picture(64, 64), kind)
    return {name: data for name, data in kinds.items() if data}


def random_bytes(rng: random.Random) -> Iterator[Odd]:
    """Noise under the names of images; half of it begins as an image does."""
    magic = [
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"BM",
    ]
    magic += [
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"P6\n",
        b"P3\n9 9\n255\n",
        b"8BPS\0\1",
    ]
    magic += [
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\1\0\1\0",
        b"DDS |\0\0\0",
        b"qoif",
        b"icns",
    ]
    magic += [
        b"\0\0\0\x1cftypavif",
        b"\x01\xda",
        b"\x0a\x05\x01\x08",
        b"SIMPLE  = ",
        b"BLP2",
    ]
    suffixes = (
        "jpg png gif webp tif bmp ppm psd jp2 ico dds qoi tga pcx".split()
    )
    for i in range(120):
        head = magic[i // 2 % len(magic)] if i % 2 else b""
        yield (
            f"noise{i}.{rng.choice(suffixes)}",
            head + rng.randbytes(rng.randrange(4000)),
        )


def huge_headers() -> Iterator[Odd]:
    """Small files that claim to be large, or to have no size."""
    sides = [
        (60_000, 60_000),
        (65_535, 65_535),
        (2**31 - 1, 1),
        (1, 2**31 - 1),
        (0, 0),
        (0, 10),
    ]
    sides += [(2**31 - 1, 2**31 - 1), (13_379, 13_379), (3_000, 3_000)]
    for width, height in sides:
        for name, data in _claims(width, height):
            yield f"claims{width}x{height}.{name}", data


def _claims(width: int, height: int) -> Iterator[Odd]:
    yield "png", png(width, height, zlib.compress(bytes(99)))
    yield "ppm", b"P6\n%d %d\n255\n" % (width, height) + bytes(99)
    yield "pgm", b"P2\n%d %d\n255\n1 2 3" % (width, height)
    bmp = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )
    yield "bmp", b"BM" + struct.pack("<IHHI", 200, 0, 0, 54) + bmp + bytes(99)
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 200),
        (278, height),
    ]
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in (*tags, (279, 99))
    )
    yield (
        "tif",
        b"II*\0\x08\0\0\0" + struct.pack("<H", 8) + entries + bytes(200),
    )
    yield (
        "qoi",
        b"qoif" + struct.pack(">II", width, height) + b"\3\0" + bytes(99),
    )
    masks = struct.pack(
        "<2I4s5I", 32, 0x40, bytes(4), 16, 0xF800, 0x07E0, 0x001F, 0
    )
    head = struct.pack("<7I", 124, 0x1007, height, width, 0, 0, 0)
    yield "dds", b"DDS " + head + bytes(44) + masks + bytes(120)
    if max(width, height) < 65_536:
        jpeg = bytearray(saved(picture(), "JPEG"))
        at = jpeg.index(b"\xff\xc0") + 5
        jpeg[at : at + 4] = struct.pack(">HH", height, width)
        yield "jpg", bytes(jpeg)
        gif = bytearray(saved(picture(), "GIF"))
        gif[6:10] = struct.pack("<HH", width, height)
        yield "gif", bytes(gif)
        yield (
            "tga",
            struct.pack("<3B5x4H2B", 0, 0, 2, 0, 0, width, height, 24, 0)
            + bytes(99),
        )


def png(
    width: int,
    height: int,
    pixels: bytes,
    *chunks: tuple,
    depth: int = 8,
    kind: int = 0,
):
    """A PNG with any header, whatever its pixels are; all checksums are right."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def bombs() -> Iterator[Odd]:
    """Files that grow: a little on disk, gigabytes in the memory of a reader without care."""
    rows = zlib.compress(bytes(30_000 * 3_751), 1)
    yield "bomb.png", png(30_000, 30_000, rows, depth=1)
    yield "larger-inside.png", png(50, 50, zlib.compress(bytes(3 * 10**7)))
    text = zlib.compress(bytes(3 * 10**7))
    small = zlib.compress(bytes(44 * 61))
    yield "text-bomb.png", png(60, 44, small, (b"zTXt", b"Comment\0\0" + text))
    many = [
        (b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(10**6)))
        for n in range(99)
    ]
    yield "many-texts.png", png(60, 44, small, *many)
    yield (
        "international.png",
        png(60, 44, small, (b"iTXt", b"a\0\1\0\0\0" + text)),
    )
    yield "profile-bomb.png", png(60, 44, small, (b"iCCP", b"icc\0\0" + text))
    yield (
        "exif-bomb.png",
        png(60, 44, small, (b"zTXt", b"Raw profile type exif\0\0" + text)),
    )
    sides = struct.pack(
        "<I", 16_383 | 16_383 << 14
    )  # the largest that the format knows
    yield "bomb.webp", b"RIFF\x40\0\0\0WEBPVP8L\x20\0\0\0/" + sides + bytes(27)
    inner = png(30_000, 30_000, rows, depth=1)
    icon = struct.pack(
        "<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22
    )
    yield "bomb.ico", icon + inner
    yield (
        "bomb.icns",
        b"icns"
        + struct.pack(">I", len(inner) + 16)
        + b"ic08"
        + (struct.pack(">I", len(inner) + 8) + inner),
    )
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8"]
    table = ["XTENSION= 'BINTABLE'", cards[1], "NAXIS   =                    2"]
    table += [
        "NAXIS1  =                    8",
        "NAXIS2  =                    1",
    ]
    table += ["ZCMPTYPE= 'GZIP_1  '", "ZBITPIX =                    8"]
    table += [
        "ZNAXIS  =                    2",
        "ZNAXIS1 =                  100",
    ]
    table += ["ZNAXIS2 =                  100", "END"]
    first = [*cards, "NAXIS   =                    0", "END"]
    blocks = [
        "".join(card.ljust(80) for card in block).ljust(2880)
        for block in (first, table)
    ]
    yield (
        "bomb.fits",
        "".join(blocks).encode()
        + bytes(8)
        + gzip.compress(bytes(3 * 10**7), 1),
    )


def every_mode() -> Iterator[Odd]:
    """Every mode in every format that takes it."""
    for mode in MODES:
        image = picture(64, 64, mode)
        for kind in FORMATS:
            if data := saved(image, kind):
                yield f"mode {mode.replace(';', '-')}.{kind.lower()}", data


def odd_shapes() -> Iterator[Odd]:
    """One pixel, one row, one column, very wide and very tall."""
    for width, height in (
        (1, 1),
        (1, 300),
        (300, 1),
        (20_000, 10),
        (10, 20_000),
    ):
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
            if data := saved(picture(width, height), kind):
                yield f"shape{width}x{height}.{kind.lower()}", data


def odd_metadata(rng: random.Random) -> Iterator[Odd]:
    """Good pixels with orientations, profiles and packets that are none."""
    for value in [*range(10), 255, 65_535, "6", b"\6", (6, 6), 6.0, -1]:
        exif = Image.Exif()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exif[0x0112] = value
                raw = exif.tobytes()
        except Exception:  # not to be stored
            continue
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            if data := saved(picture(), kind, exif=raw):
                yield f"turned {value!r}.{kind.lower()}", data
    for n in range(8):
        noise = rng.randbytes(8 * n)
        yield f"exif{n}.jpg", saved(picture(), "JPEG", exif=b"Exif\0\0" + noise)
        yield f"profile{n}.jpg", saved(picture(), "JPEG", icc_profile=noise)
        yield f"profile{n}.png", saved(picture(), "PNG", icc_profile=noise)
        xmp = b'<x tiff:Orientation="' + noise + b'"/>'
        yield f"packet{n}.jpg", saved(picture(), "JPEG", xmp=xmp)


def animations() -> Iterator[Odd]:
    """Many frames; the first one counts."""
    frames = [picture().rotate(9 * n) for n in range(40)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        for count in (2, 40):
            options = {"save_all": True, "append_images": frames[1:count]}
            if data := saved(frames[0], kind, **options):
                yield f"moving{count}.{kind.lower()}", data
    yield "empty-animation.gif", b"GIF89a\x10\0\x10\0\0\0\0;"


def no_images() -> Iterator[Odd]:
    """Files of other kinds under names of images."""
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x08meta" + bytes(200)
    others = {
        "empty": b"",
        "text": b"not an image\n",
        "wide text": "kein Bild\n".encode("utf-16"),
        "drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g/></svg>',
        "page": b"<!doctype html><img src=x>",
        "paper": b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        "phone": heic,
        "archive": b"PK\3\4" + bytes(60),
        "zipped": gzip.compress(bytes(1000)),
        "program": b"\x7fELF\2\1\1" + bytes(60),
        "film": b"\0\0\0\x18ftypmp42" + bytes(60),
        "sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(60),
        "metafile": b"\xd7\xcd\xc6\x9a" + bytes(200),
        "table": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "weather": b"GRIB" + bytes(200),
        "object": b"\x80\4K\1.",
        "bitmap text": b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = {\n0x",
        "colour text": b'/* XPM */\nstatic char *x[] = {\n"9 9 1 1",\n"a c red",\n',
        "zeros": bytes(100_000),
        "newlines": b"\n" * 100_000,
        "old film": b"\0\0\1\xba" + bytes(200),
    }
    for n, (name, data) in enumerate(others.items()):
        yield f"{name}.{('jpg', 'png', 'gif')[n % 3]}", data


def odd_files() -> list[Odd]:
    """All of them but the spoilt ones, which `thousand` adds until there are enough."""
    rng = random.Random(0)
    kinds = (
        random_bytes(rng),
        huge_headers(),
        bombs(),
        every_mode(),
        odd_shapes(),
    )
    return [
        odd
        for kind in (*kinds, odd_metadata(rng), animations(), no_images())
        for odd in kind
    ]


def spoilt(count: int) -> Iterator[Odd]:
    """Good files cut off anywhere, and good files with some bits turned."""
    rng, files = random.Random(1), list(valid().items())
    for n in range(count):
        name, good = files[n // 2 % len(files)]
        if n % 2:
            yield f"cut{n} {name}", good[: rng.randrange(1, len(good))]
            continue
        data = bytearray(good)
        for _ in range(rng.randrange(1, 20)):
            # Half of the damage goes to the first bytes, where a header is.
            at = rng.randrange(
                min(len(data), 80) if rng.random() < 0.5 else len(data)
            )
            data[at] ^= 1 << rng.randrange(8)
        yield f"turned{n} {name}", bytes(data)


NAMES = [
    "line\nbreak",
    "back\rspace",
    "\x1b[31mred",
    "\x85\u2028\u2029",
    "bild ü 图 🐕",
    "*?[a]$HOME",
]
NAMES += [
    os.fsdecode(b"not-utf-8-\xff\xfe"),
    "quo\"te'",
    " ",
    "x" * 240,
    "-dash",
    "%s{0}\\n",
]


def odd_places(folder: Path) -> list[Path]:
    """Paths that lead to no file, or that a shell or a terminal finds hard to say."""
    good, paths = saved(picture(), "PNG"), []
    for name in NAMES:
        try:
            (folder / f"{name}.png").write_bytes(good)
        except (OSError, ValueError):  # this file system takes no such name
            continue
        paths.append(folder / f"{name}.png")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "linked.jpg").symlink_to("folder.jpg")
    (folder / "good.png").write_bytes(good)
    (folder / "relinked.jpg").symlink_to("good.png")
    paths += [
        folder / f"{n}.jpg"
        for n in ("folder", "loop", "dangling", "linked", "relinked")
    ]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        paths.append(folder / "pipe.jpg")
    try:
        with (
            socket.socket(socket.AF_UNIX) as listening,
            tempfile.TemporaryDirectory() as short,
        ):
            listening.bind(f"{short}/s")  # a socket's path must be short
            Path(short, "s").rename(folder / "socket.jpg")
        paths.append(folder / "socket.jpg")
    except (AttributeError, OSError):
        pass
    paths += [
        Path(name)
        for name in ("/dev/zero", "/dev/null", "/dev/tty")
        if os.path.exists(name)
    ]
    paths += [folder / "missing.jpg", folder / "good.png" / "below-a-file.png"]
    paths += [
        folder / ("y" * 5000 + ".jpg"),
        folder / "/".join(["deep"] * 2000),
    ]
    return paths


# --------------------------------------------------------------------------- odd things in memory


class Broken(io.BytesIO):
    """A file that fails as it is read."""

    def read(self, *_):
        raise OSError("the disk is gone")


def odd_objects() -> Iterator[tuple[str, Callable]]:
    """Names, and functions that make an input for `read_image`."""
    for mode in MODES:
        yield f"image {mode}", lambda mode=mode: picture(mode=mode)
        for size in ((0, 0), (0, 5), (1, 1), (3, 4000)):
            yield (
                f"new {mode} {size}",
                lambda mode=mode, size=size: Image.new(mode, size),
            )
    for kind in "?bBhHiIlLqQefdgFDSUOMm":
        yield (
            f"array of {kind}",
            lambda kind=kind: np.zeros((6, 5, 3), np.dtype(kind)),
        )
    for shape in (
        (),
        (0,),
        (7,),
        (0, 0),
        (0, 4, 3),
        (1, 1),
        (1, 1, 1),
        (2, 3, 2),
        (3, 3, 3),
    ):
        yield f"array {shape}", lambda shape=shape: np.zeros(shape, np.uint8)
    for shape in (
        (4, 4, 4),
        (1, 9, 9),
        (9, 9, 9),
        (2, 3, 4, 4),
        (10, 20_000),
        (20_000, 10, 3),
    ):
        yield f"array {shape}", lambda shape=shape: np.zeros(shape, np.uint8)
    for value in (np.nan, np.inf, -0.1, 1.5, 0.5):
        yield f"array of {value}", lambda value=value: np.full((4, 4), value)
    yield "terabyte", lambda: np.broadcast_to(np.uint8(0), (10**6, 10**6))
    yield "gigabytes", lambda: np.broadcast_to(np.float32(0), (10**5, 10**5, 3))
    yield "upside down", lambda: np.zeros((5, 5, 3), np.uint8)[::-1, ::-1, ::-1]
    yield "masked", lambda: np.ma.masked_all((4, 4), np.uint8)
    yield "records", lambda: np.zeros((4, 4), [("a", "u1"), ("b", "f4")])
    yield "ragged", lambda: [[1, 2], [3]]
    yield "nested", lambda: [[[0, 0, 0]] * 4] * 4
    for value in (
        None,
        7,
        "",
        "a\0b",
        b"bytes",
        {},
        [],
        object(),
        ...,
        io.StringIO("text"),
    ):
        yield f"{value!r:.20}", lambda value=value: value
    yield "empty file", io.BytesIO
    yield "broken file", Broken
    yield "closed image", lambda: closed(Image.new("RGB", (4, 4)))
    yield "closed file", lambda: closed(io.BytesIO(saved(picture(), "PNG")))
    yield (
        "cut file",
        lambda: Image.open(io.BytesIO(saved(picture(), "PNG")[:200])),
    )
    yield "frame", lambda: list(ImageSequence.Iterator(moving()))[-1]
    yield "read to its end", lambda: at_end(io.BytesIO(saved(picture(), "PNG")))


def moving() -> Image.Image:
    frames = [picture(), picture().rotate(90)]
    return Image.open(
        io.BytesIO(
            saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
        )
    )


def closed(thing):
    thing.close()
    return thing


def at_end(file: io.BytesIO) -> io.BytesIO:
    file.seek(0, io.SEEK_END)
    return file


# ------------------------------------------------------------------------------------ one process


def peak() -> float:
    """The most memory that this process has held so far, in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return (
            int(
                next(
                    line for line in lines if line.startswith("VmHWM")
                ).split()[1]
            )
            / 1024
        )
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)


def called(words: list[str]) -> tuple[int, bytes, bytes]:
    """Run the command in this process: status, and all that reached stdout and stderr.

    Below Python, so that what a C library prints is seen as well.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            status = cli.main(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, stream in enumerate(kept, start=1):
                os.dup2(stream, number)
                os.close(stream)
        for file in (out, err):
            file.seek(0)
        return status, out.read(), err.read()


def caption_all(folder: Path) -> None:
    """In a process of its own: caption what `paths.json` lists, and report what came of it."""
    paths = json.loads((folder / "paths.json").read_text())
    good = folder / "good-one.png"
    good.write_bytes(saved(picture(256, 256), "PNG"))
    # Torch keeps some memory for each size of batch that it meets: let it meet them all.
    warm = [
        str(good if n < many else folder / "none")
        for many in range(1, 9)
        for n in range(8)
    ]
    assert called([*OPTIONS, *warm])[0] == 2
    before, calls = peak(), []
    for start in range(0, len(paths), BATCH):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        status, out, err = called(
            [*OPTIONS, "--", *paths[start : start + BATCH]]
        )
        said = {
            "out": out.decode("utf-8", "replace"),
            "err": err.decode("utf-8", "replace"),
        }
        calls.append(
            {"paths": paths[start : start + BATCH], "status": status, **said}
        )
        faulthandler.cancel_dump_traceback_later()
    report = {"calls": calls, "growth": peak() - before}
    (folder / "report.json").write_text(json.dumps(report))


def shown(path: str) -> str:
    """A path as an error's line shows it: in one line, and printable anywhere."""
    plain = "".join(
        c.encode("unicode_escape").decode()
        if c < " " or c in "\x7f\x85\u2028\u2029"
        else c
        for c in str(Path(path))
    )
    return plain.encode(errors="backslashreplace").decode()


def python(*words: str, **options) -> subprocess.CompletedProcess:
    """A process with little: one thread, and no terminal."""
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(root), str(root / "tests")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    options |= {
        "capture_output": True,
        "stdin": subprocess.DEVNULL,
        "env": environment,
    }
    return subprocess.run([sys.executable, *words], timeout=600, **options)


OBJECTS = list(odd_objects())


@pytest.fixture(scope="module")
def thousand(tmp_path_factory) -> Path:
    """A folder with the odd inputs, and the report of the process that captioned them."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "places").mkdir()
    (folder / "files").mkdir()
    paths = odd_places(folder / "places")
    odd = odd_files()
    odd += spoilt(COUNT - len(OBJECTS) - len(odd) - len(paths))
    for number, (name, data) in enumerate(odd):
        paths.append(folder / "files" / f"{number:03} {name}")
        paths[-1].write_bytes(data)
    (folder / "paths.json").write_text(
        json.dumps([str(path) for path in paths])
    )
    done = python(__file__, str(folder))
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    return folder


@pytest.fixture(scope="module")
def report(thousand) -> dict:
    return json.loads((thousand / "report.json").read_text())


CLEAR = (
    "is damaged",
    "is not an image",
    "holds more than",
    "has no pixels",
    "is an EPS drawing",
)
CLEAR += (
    "is a folder",
    "no such file",
    "is not a file",
    "can't be opened",
    "can't be read",
)
CLEAR += (
    "is a HEIF",
    "is an AVIF image",
    "is a JPEG XL image",
    "is a camera's raw file",
    "is an SVG drawing",
    "is a WMF drawing",
    "is an HDF5 file",
    "holds weather data",
)


@pytest.mark.long
def test_each_of_a_thousand_odd_inputs_ends_in_a_caption_or_one_clear_line(
    report, capsys
):
    counts, seen = collections.Counter(), 0
    for call in report["calls"]:
        captions = [json.loads(line) for line in call["out"].splitlines()]
        refusals = call["err"].splitlines()
        captioned = [caption["image"] for caption in captions]
        refused = [path for path in call["paths"] if path not in captioned]
        assert captioned == [
            path for path in call["paths"] if path in captioned
        ]  # in order
        assert len(refusals) == len(refused), call["err"]
        for path, line in zip(refused, refusals, strict=True):
            start = f"captionlib: {shown(path)}: "
            assert line.startswith(start), (path, line)
            about = line.removeprefix(start)
            assert (
                about.isprintable() and 20 < len(about) < 300 and "; " in about
            ), line
            counts[next(kind for kind in CLEAR if about.startswith(kind))] += 1
        assert call["status"] == (2 if refused else 0)
        assert all(
            caption["words"] and caption["log_prob"] < 0 for caption in captions
        )
        counts["captions"] += len(captions)
        seen += len(call["paths"])
    assert seen + len(OBJECTS) == COUNT
    assert (
        counts["captions"] > 200
        and counts["is damaged"] > 100 < counts["is not an image"]
    )
    with capsys.disabled():
        kinds = ", ".join(
            f"{kind}: {count}" for kind, count in counts.most_common()
        )
        print(
            f"\n{seen} odd files, {report['growth']:.0f} MiB more at most: {kinds}"
        )


@pytest.mark.long
def test_a_thousand_odd_inputs_need_little_memory(report):
    assert report["growth"] < GROWTH


@pytest.mark.parametrize(
    "make", [make for _, make in OBJECTS], ids=[name for name, _ in OBJECTS]
)
def test_an_odd_object_is_read_or_refused_in_one_line(make, recwarn):
    source = make()
    recwarn.clear()
    try:
        pixels = read_image(source, name="odd")
        assert pixels.shape == (3, 256, 256) and pixels.dtype == np.uint8
    except InputError as error:
        assert "; " in str(error) and "\n" not in str(error)
    assert not recwarn.list


COSTS = """
from pathlib import Path
from PIL import Image
from captionlib.io.images import read_image
from test_odd_inputs import MODES, peak, picture
for mode in MODES:
    read_image(picture(mode=mode))
    image = Image.new(mode, (4000, 3000))
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark
    before = peak()
    read_image(image)
    print(mode, (peak() - before) * 2**20 / 12e6)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="reads memory in /proc"
)
def test_a_large_image_costs_its_own_memory_and_its_colours():
    """So the largest that is read, 178,956,970 pixels, takes about 2 GB in any mode."""
    done = python("-c", COSTS)
    assert done.returncode == 0, done.stderr
    costs = dict(
        line.rsplit(" ", 1) for line in done.stdout.decode().splitlines()
    )
    assert list(costs) == MODES
    assert all(float(cost) < PER_PIXEL for cost in costs.values()), costs


@pytest.mark.long
def test_names_that_are_hard_to_say_go_through_a_real_process(thousand):
    folder = thousand / "places"
    names = [
        f"{name}.png" for name in NAMES if (folder / f"{name}.png").exists()
    ]
    bad = ["pipe.jpg", "loop.jpg", "folder.jpg", "/dev/zero"]
    bad = [name for name in bad if os.path.lexists(folder / name)]
    done = python(
        "-m", "captionlib.cli", *OPTIONS, "--", *names, *bad, cwd=folder
    )
    assert [
        json.loads(line)["image"] for line in done.stdout.splitlines()
    ] == names
    refusals = done.stderr.decode().splitlines()
    assert [
        line.split(": ")[1] for line in refusals
    ] == bad and done.returncode == 2
    dash = python("-m", "captionlib.cli", *OPTIONS, "-dash.png", cwd=folder)
    assert (
        dash.returncode == 2 and len(dash.stderr.splitlines()) == 1
    )  # an option of that name?


if __name__ == "__main__":
    caption_all(Path(sys.argv[1]))
