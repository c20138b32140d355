"""Read any image that Pillow can, safely: chapter 01 shows the idea, this is the hardened form.

Written by hand, and without torch, so that the processes that decode images start at once.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

from captionlib.files import InputError

__all__ = [
    "IMAGE_SIZE",
    "Answer",
    "decoding_pool",
    "open_rgb",
    "read_image",
    "try_images",
    "usable_cores",
]

IMAGE_SIZE = 256
MAX_PIXELS = 178_956_970  # where Pillow, too, speaks of a decompression bomb: 0.5 GB as RGB

# What each EXIF orientation asks for, so that the picture stands as its photographer saw it.
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
    """The one way in for pictures, in training and afterwards: any image as the model's pixels.

    Args:
        source: a path, an open binary file, a `PIL.Image`, or an array: (height, width),
            (height, width, 1, 3 or 4) or (1, 3 or 4, height, width), of uint8 in [0, 255],
            uint16 in [0, 65535], bool, or float in [0, 1].
        name: what an error calls the image where `source` has no name of its own.

    Returns:
        (3, 256, 256) uint8 RGB in [0, 255], resized without regard to its aspect ratio.

    Raises:
        InputError: if the image is missing, damaged, too large, or no image.
    """
    size = (IMAGE_SIZE, IMAGE_SIZE)
    image = open_rgb(source, name).resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))  # (3, 256, 256)


def open_rgb(source, name: str | None = None) -> Image.Image:
    """As `read_image`, at the image's own size: upright, 8-bit RGB, transparency over white."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name an image in it")
        if not path.exists():
            raise InputError(f"{path}: no such file; check its name and folder")
        if not path.is_file():
            raise InputError(f"{path}: is not a file; give an image file")
        return _decode(path, str(path))
    if isinstance(source, Image.Image) or hasattr(source, "read"):
        return _decode(source, name or str(getattr(source, "filename", "") or "the image"))
    return _from_array(source, name or "the array")


def _decode(source, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size and damage are judged below, in one line
            if isinstance(source, Image.Image):
                return _to_rgb(source, name)
            with Image.open(source) as image:
                return _to_rgb(image, name)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except Image.UnidentifiedImageError:
        raise InputError(
            f"{name}: is not an image that Pillow can read; replace it or leave it out"
        ) from None
    except PermissionError:
        raise InputError(f"{name}: may not be read; change its permissions") from None
    except Exception as error:  # a damaged file can make a decoder fail in any way at all
        raise InputError(
            f"{name}: is damaged ({str(error) or type(error).__name__}); fetch it again or "
            "leave it out"
        ) from None


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: holds more than {MAX_PIXELS:,} pixels; make it smaller first")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:  # the header says so, before anything is decoded
        raise _too_large(name)
    if 0 in image.size:
        raise InputError(f"{name}: has no pixels; replace it or leave it out")
    if image.format == "EPS":  # Pillow would start Ghostscript on it
        raise InputError(f"{name}: is an EPS drawing; save it as PNG first")
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_grey(np.asarray(image), image.mode))
    if image.mode == "La":
        image = image.convert("LA")  # undo premultiplied alpha
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=image.getchannel("A"))
        image = page
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata around good pixels: take the picture as it lies
        return 1


def _to_grey(values: np.ndarray, mode: str) -> np.ndarray:
    """Bring deep grey values to uint8: convert("RGB") would cut off everything above 255."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0).clip(min=0)
    # Integers are 16-bit, however dark; floats carry no range, so it is read off the picture.
    tops = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    peak = values.max()
    top = next((top for top in tops if peak <= top), peak)
    return np.rint(values * (255 / top)).astype(np.uint8)


def _from_array(source, name: str) -> Image.Image:
    array = np.asarray(source)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise InputError(
            f"{name}: has shape {np.shape(source)}; give (height, width) or (height, width, 3)"
        )
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise InputError(f"{name}: holds floats outside [0, 1]; give uint8 or rescale it")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{name}: holds {array.dtype}; give uint8, or floats in [0, 1]")
    if array.size == 0:
        raise InputError(f"{name}: has no pixels; give an image")
    return _decode(Image.fromarray(np.ascontiguousarray(array)), name)


def try_images(paths: list[str | Path]) -> list[np.ndarray | InputError]:
    """`read_image` of each path; a bad one gives its error in its place."""
    results: list[np.ndarray | InputError] = []
    for path in paths:
        try:
            results.append(read_image(path))
        except InputError as error:
            results.append(error)
    return results


def usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def decoding_pool(
    workers: int, batches: int, size: int
) -> Iterator[Callable[[list[str | Path]], Answer]]:
    """Start processes for `try_images`; they end with the block, and with their parent.

    Yields a function that sends up to `size` paths to the next free process, and returns their
    `Answer`. Answers are to be taken in order, and at most `batches` may be awaited at a time:
    that many have a place in the memory through which the pixels come back, uncopied and
    unpickled.
    """
    # Spawned, not forked: a fork copies the locks of threads that it does not copy, and a
    # notebook has threads.
    context = get_context("spawn")
    memory = context.RawArray("B", batches * size * 3 * IMAGE_SIZE**2)
    pixels = _as_images(memory, size)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(memory, size))
    places = itertools.cycle(range(batches))

    def submit(paths: list[str | Path]) -> Answer:
        place = next(places)
        with _hidden_main():
            return Answer(pool.submit(_decode_into, place, paths), pixels[place])

    try:
        yield submit
    finally:
        pool.shutdown(cancel_futures=True)


class Answer(NamedTuple):
    """What a process in a `decoding_pool` will have made of some paths."""

    errors: Future
    pixels: np.ndarray

    def result(self) -> list[np.ndarray | InputError]:
        """Wait for it; as from `try_images`."""
        answers = zip(self.errors.result(), self.pixels, strict=False)
        return [pixels.copy() if error is None else error for error, pixels in answers]


def _as_images(memory, size: int) -> np.ndarray:
    pixels = np.frombuffer(memory, np.uint8)
    return pixels.reshape(-1, size, 3, IMAGE_SIZE, IMAGE_SIZE)  # (batches, size, 3, 256, 256)


def _decode_into(place: int, paths: list[str | Path]) -> list[InputError | None]:
    """In a child: put the pixels into their place, and send back the errors alone."""
    errors = []
    for answer, pixels in zip(try_images(paths), _pixels[place], strict=False):
        errors.append(answer if isinstance(answer, InputError) else None)
        if errors[-1] is None:
            pixels[:] = answer
    return errors


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep spawned processes from importing the main script again, which they have no need of.

    Without this, a script that lacks `if __name__ == "__main__"` would start over in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(memory, size: int) -> None:
    """In a child: open the shared memory, leave Ctrl-C to the parent, and never outlive it."""
    global _pixels
    _pixels = _as_images(memory, size)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
