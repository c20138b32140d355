"""Read any image that Pillow can read, safely.

Chapter 01 shows the idea in two lines. Nothing here imports torch, so processes
that decode images start quickly.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

from captionlib.io.colour import to_srgb
from captionlib.io.files import BadItem, InputError
from captionlib.io.formats import no_image

__all__ = [
    "IMAGE_SIZE",
    "Answer",
    "decoding_pool",
    "open_rgb",
    "read_image",
    "to_pixels",
    "try_images",
    "usable_cores",
]

IMAGE_SIZE = 256
# Pillow's own limit for a decompression bomb: 0.7 GB in memory.
MAX_PIXELS = 178_956_970
BAND = 2**20  # pixels converted at a time, to bound memory

# Pillow logs some kinds of damage. Without a handler, Python would print these
# messages on stderr beside our own line.
logging.getLogger("PIL").addHandler(logging.NullHandler())

Convert = Callable[[Image.Image], Image.Image]

# What Pillow recognises but can't decode, or only with another program.
NOT_PIXELS = {
    "EPS": "is an EPS drawing; save it as PNG first",
    "WMF": "is a WMF drawing; save it as PNG first",
    "MPEG": no_image(io.BytesIO(b"\0\0\1\xb3")),
    "GRIB": "holds weather data; save a picture of it as PNG first",
    "BUFR": "holds weather data; save a picture of it as PNG first",
    "HDF5": "is an HDF5 file; save an image in it as PNG first",
}
ADDRESS = r"(?i)[a-z][a-z0-9+.-]+:/|data:"  # C:\ has one letter

# EXIF orientation to the transposition that sets the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source, name: str | None = None) -> np.ndarray:
    """Read an image as the pixels that the model sees, in training and
    inference.

    Args:
        source: a path, an open binary file, a `PIL.Image`, or an array:
            (height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height,
            width), of uint8 in [0, 255], uint16 in [0, 65535], bool, or float
            in [0, 1].
        name: what errors call the image if `source` has no name of its own.

    Returns:
        (3, 256, 256) uint8 RGB in [0, 255]; the aspect ratio is not kept.

    Raises:
        InputError: if the file is missing, damaged, too large or not an image.
    """
    return to_pixels(open_rgb(source, name))


def to_pixels(image: Image.Image) -> np.ndarray:
    """Resize a picture from `open_rgb` to (3, 256, 256) uint8, as
    `read_image`."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    image = image.resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def open_rgb(source, name: str | None = None) -> Image.Image:
    """As `read_image`, at full size: upright, 8-bit RGB, transparent parts
    white."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            if path.is_dir():
                raise InputError(f"{path}: is a folder; name an image in it")
            if not path.exists():
                if re.match(ADDRESS, str(source)):
                    raise InputError(
                        f"{str(source)[:200]}: is an address, and a file is "
                        "needed; fetch it first, for instance with curl -LO"
                    )
                raise InputError(
                    f"{path}: no such file; check its name and folder"
                )
            if not path.is_file():
                raise InputError(f"{path}: is not a file; give an image file")
        except OSError as error:  # name too long, folder not searchable
            raise InputError(
                f"{path}: can't be opened ({error.strerror}); check its name"
            ) from None
        return _decode(path, str(path))
    if isinstance(source, Image.Image) or hasattr(source, "read"):
        return _decode(
            source, name or str(getattr(source, "filename", "") or "the image")
        )
    return _from_array(source, name or "the array")


def _decode(source, name: str) -> Image.Image:
    try:
        with _registering:  # two threads that do it at once can miss one
            Image.preinit()  # the common formats first
            Image.init()
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        with Image.open(source) as image:
            return _to_rgb(image, name)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name}: {no_image(source)}") from None
    except PermissionError:
        raise InputError(
            f"{name}: can't be read; change its permissions"
        ) from None
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{name}: is damaged ({str(error) or type(error).__name__}); fetch "
            "it again or leave it out"
        ) from None


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name}: holds more than {MAX_PIXELS:,} pixels; make it smaller first"
    )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    # Known from the header, before anything is decoded.
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    if 0 in image.size:
        raise InputError(f"{name}: has no pixels; replace it or leave it out")
    if complaint := NOT_PIXELS.get(image.format):
        raise InputError(f"{name}: {complaint}")
    with _hushed() if image.format == "TIFF" else nullcontext():
        image.load()
    turn = UPRIGHT.get(_orientation(image))
    own = to_srgb(image)
    if own or image.mode != "RGB" or image.has_transparency_data:
        image = _in_bands(image, own or (lambda part: part.convert("RGB")))
    if turn is None:
        return image
    image = image.transpose(turn)
    image.info = {}  # or whoever reads the result would turn it again
    return image


@contextmanager
def _hushed() -> Iterator[None]:
    """Silence libtiff, which writes to stderr directly, past Python's
    logging, unless another thread may want to write there."""
    others = set(threading.enumerate()) - {threading.current_thread()}
    if not all(thread.daemon for thread in others):  # tqdm's is a daemon
        yield
        return
    with _hushing:
        try:
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        except OSError:  # there is no stderr
            yield
            return
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


_hushing = threading.Lock()  # the whole process shares stderr
_registering = threading.Lock()


def _in_bands(image: Image.Image, to_rgb: Convert) -> Image.Image:
    """Convert to RGB one band of rows at a time, to save memory.

    Pixels are converted independently, so the result is the same.
    """
    convert = _converter(image, to_rgb)
    page, rows = Image.new("RGB", image.size), max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        page.paste(convert(image.crop(box)), box)
    return page


def _converter(image: Image.Image, to_rgb: Convert) -> Convert:
    """The function that turns part of this image into RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        top = _deepest(image)
        return lambda part: to_rgb(
            Image.fromarray(_to_grey(np.asarray(part), top))
        )
    if image.has_transparency_data:
        return lambda part: _over_white(part, to_rgb)
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        return lambda part: ImageCms.applyTransform(part, transform)
    return to_rgb


def _over_white(image: Image.Image, to_rgb: Convert) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # undo premultiplied alpha
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(to_rgb(image.convert("RGB")), mask=image.getchannel("A"))
    return page


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata, good pixels
        return 1


def _deepest(image: Image.Image) -> float:
    """The value of white in a greyscale image of more than 8 bits."""
    if image.mode.startswith("I"):  # integers are 16-bit, however dark
        return (
            65535.0
            if image.mode != "I"
            else max(65535.0, float(image.getextrema()[1]))
        )
    # Floats have no fixed range: infer it from the pixels.
    rows = max(1, BAND // image.width)
    tops = range(0, image.height, rows)
    parts = (
        image.crop((0, t, image.width, min(t + rows, image.height)))
        for t in tops
    )
    peak = max(
        float(np.nan_to_num(np.asarray(p), posinf=0.0, neginf=0.0).max())
        for p in parts
    )
    return next((top for top in (1.0, 255.0, 65535.0) if peak <= top), peak)


def _to_grey(values: np.ndarray, top: float) -> np.ndarray:
    """Scale to uint8, where convert("RGB") would clip everything above 255."""
    values = np.nan_to_num(
        values.astype(np.float64), posinf=0.0, neginf=0.0
    ).clip(min=0)
    return np.rint(values * (255 / top)).astype(np.uint8)


def _from_array(source, name: str) -> Image.Image:
    try:
        array = np.asarray(source)
    except Exception as error:  # ragged lists, a tensor on a GPU
        about = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"{name}: is not an array ({about}); give numbers of one shape"
        ) from None
    if (
        array.ndim == 3
        and array.shape[-1] not in (1, 3, 4)
        and array.shape[0] in (1, 3, 4)
    ):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (
        array.ndim == 3 and array.shape[-1] not in (3, 4)
    ):
        raise InputError(
            f"{name}: has shape {np.shape(array)}; give (height, width) or "
            "(height, width, 3)"
        )
    if (
        array.dtype not in (bool, np.uint8, np.uint16)
        and array.dtype.kind != "f"
    ):
        raise InputError(
            f"{name}: holds {array.dtype}; give uint8, or floats in [0, 1]"
        )
    if array.size == 0:
        raise InputError(f"{name}: has no pixels; give an image")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large(name)
    rows = max(1, BAND // array.shape[1])
    pixels = np.empty(array.shape, np.uint8)
    for top in range(0, len(array), rows):
        pixels[top : top + rows] = _to_bytes(array[top : top + rows], name)
    return _decode(Image.fromarray(pixels), name)


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype == np.uint16:
        return np.rint(array / 257)
    if array.dtype == np.uint8:
        return array
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"{name}: holds floats outside [0, 1]; give uint8 or rescale it"
        )
    return np.rint(array * 255)


def try_images(paths: list[str | Path]) -> Iterator[np.ndarray | InputError]:
    """Yield `read_image` of each path, or a `BadItem` if the image is bad."""
    for path in paths:
        try:
            yield read_image(path)
        except InputError as error:
            yield BadItem(str(error))


def usable_cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def decoding_pool(
    workers: int, batches: int, size: int
) -> Iterator[Callable[[list[str | Path]], Answer]]:
    """Start processes for `try_images`, which end with the block or its
    process.

    Yields a function that sends up to `size` paths to the next free process and
    returns their `Answer`. Take the answers in order, with at most `batches` of
    them pending: pixels come back unpickled, through shared memory with room
    for that many.
    """
    # Spawned, not forked: a forked process inherits locks but not the threads
    # that would release them, and a notebook has threads.
    context = get_context("spawn")
    memory = context.RawArray("B", batches * size * 3 * IMAGE_SIZE**2)
    pixels = _as_images(memory, size)
    pool = ProcessPoolExecutor(
        workers, context, initializer=_begin, initargs=(memory, size)
    )
    places = itertools.cycle(range(batches))

    def submit(paths: list[str | Path]) -> Answer:
        place = next(places)
        with _hidden_main():
            return Answer(
                pool.submit(_decode_into, place, paths), pixels[place]
            )

    try:
        yield submit
    finally:
        pool.shutdown(cancel_futures=True)


class Answer(NamedTuple):
    """The images or errors that a `decoding_pool` will return."""

    errors: Future
    pixels: np.ndarray

    def result(self) -> list[np.ndarray | InputError]:
        """Wait, then return what `try_images` would have yielded."""
        answers = zip(self.errors.result(), self.pixels, strict=False)
        return [
            pixels.copy() if error is None else error
            for error, pixels in answers
        ]


def _as_images(memory, size: int) -> np.ndarray:
    pixels = np.frombuffer(memory, np.uint8)
    shape = -1, size, 3, IMAGE_SIZE, IMAGE_SIZE
    return pixels.reshape(shape)  # (batches, size, 3, 256, 256)


def _decode_into(
    place: int, paths: list[str | Path]
) -> list[InputError | None]:
    """In a worker: put pixels into shared memory and return the errors."""
    errors = []
    for answer, pixels in zip(try_images(paths), _pixels[place], strict=False):
        errors.append(answer if isinstance(answer, InputError) else None)
        if errors[-1] is None:
            pixels[:] = answer
    return errors


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep spawned processes from importing the main script.

    Without an `if __name__ == "__main__"`, the script would run again in each.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(memory, size: int) -> None:
    """In a worker: open the shared memory, ignore Ctrl-C, end with the
    parent."""
    global _pixels
    _pixels = _as_images(memory, size)
    warnings.simplefilter("ignore")  # the errors say enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
