"""Write a captioner as files for a static page, which also opens from disk."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image

from captionlib.io.files import ASSETS
from captionlib.page.pack import Captioning, pack

__all__ = ["Sample", "write_captioner", "write_page"]

HERE = Path(__file__).parent
VIEWS = ASSETS / "views"
# In the order in which they build on each other.
SCRIPTS = [
    VIEWS / "view.js",
    VIEWS / "attention.js",
    *(
        HERE / f"{name}.js"
        for name in (
            "engine",
            "decoder",
            "search",
            "picture",
            "load",
            "tree",
            "brush",
            "try_it",
        )
    ),
]
STYLES = [VIEWS / "view.css", HERE / "try_it.css"]
THUMBNAIL = (240, 180)  # pixels

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Try it</title>
<link rel="stylesheet" href="captioner.css">
<body style="max-width: 60rem; margin: auto; padding: 0 1rem; font-family: sans-serif">
<main>
<h1>Try it</h1>
{body}
</main>
<script src="captioner.js"></script>
</body>
</html>
"""


class Sample:
    """A photograph that readers can choose.

    Args:
        path: of a JPEG.
        alt: what it shows.
    """

    def __init__(self, path: Path, alt: str):
        self.path, self.name, self.alt = path, path.stem, alt


def write_page(model: Captioning, folder: Path, samples=()) -> None:
    """Write a page that captions photographs: index.html and what it loads.

    Arguments and errors are those of `write_captioner`.
    """
    write_captioner(model, folder, samples)
    body = (HERE / "try_it.html").read_text(encoding="utf-8")
    _write(folder / "index.html", PAGE.format(body=body))


def write_captioner(
    model: Captioning, folder: Path, samples=(), numbers: str = "int8"
) -> None:
    """Write the scripts, styles and weights of a page that holds try_it.html.

    Args:
        model: any whose encoder is an EfficientNet-Lite.
        folder: made if need be.
        samples: `Sample`s to choose from.
        numbers: how weights are stored, as for `pack`.

    Raises:
        InputError: as `pack`.
    """
    description, parts = pack(model, numbers)
    folder.mkdir(parents=True, exist_ok=True)
    code = _base64((HERE / "engine.wasm").read_bytes())
    size = _hand_over(folder, "model", {"code": code, "model": description})
    for number, part in enumerate(parts):
        size += _hand_over(folder, f"weights-{number}", _base64(part))
    for sample in samples:
        _write_sample(folder, sample)
    known = [{"name": each.name, "alt": each.alt} for each in samples]
    scripts = [path.read_text(encoding="utf-8") for path in SCRIPTS]
    scripts = [
        "(() => {",
        '"use strict";',
        f"const SAMPLES = {json.dumps(known)};",
        f"const MEGABYTES = {size / 1e6:.1f};",
        *scripts,
        "})();\n",
    ]
    _write(folder / "captioner.js", "\n".join(scripts))
    styles = [path.read_text(encoding="utf-8") for path in STYLES]
    _write(folder / "captioner.css", "\n".join(styles))


def _write(path: Path, text: str) -> int:
    """Write a file; returns its size in bytes."""
    return path.write_bytes(text.encode("utf-8"))


def _hand_over(folder: Path, name: str, what) -> int:
    """Write what a script can load where it may read no file."""
    data = json.dumps(what, ensure_ascii=False, separators=(",", ":"))
    return _write(
        folder / f"{name}.js", f'captionlib.take("{name}", {data});\n'
    )


def _write_sample(folder: Path, sample: Sample) -> None:
    photograph = sample.path.read_bytes()
    uri = f"data:image/jpeg;base64,{_base64(photograph)}"
    _hand_over(folder, sample.name, uri)
    with Image.open(io.BytesIO(photograph)) as image:
        image.thumbnail(THUMBNAIL)
        image.save(folder / f"{sample.name}-small.jpg", quality=75)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
