"""Run the page's scripts: in Node.js if there is one, else in headless Chromium."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from captionlib.io.files import ASSETS
from captionlib.page import Packed
from tools.browser import NAMES

PAGE = ASSETS.parent / "page"
SCRIPTS = ("engine", "decoder", "search", "picture")
NODE = shutil.which("node") or shutil.which("nodejs")


def run(code: str, data, request):
    """What `code` returns, as JSON; `data` is in its variable `data`.

    Args:
        code: the body of an asynchronous function.
        data: anything that JSON holds; bytes go as base64.
        request: pytest's, for the browser.
    """
    scripts = [(PAGE / f"{name}.js").read_text() for name in SCRIPTS]
    given = json.dumps(data, default=as_base64)
    source = "\n".join([*scripts, f"const data = {given};", code])
    if NODE is None:
        if "CHROMIUM" not in os.environ and not any(map(shutil.which, NAMES)):
            pytest.skip("needs Node.js or Chromium, to run scripts")
        page = request.getfixturevalue("browser").new_page()
        try:
            return page.evaluate(f"async () => {{ {source} }}")
        finally:
            page.close()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.js")
        script.write_text(
            f"(async () => {{ {source} }})().then("
            "answer => process.stdout.write(JSON.stringify(answer)))",
            encoding="utf-8",
        )
        done = subprocess.run([NODE, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def packed(model: Packed) -> dict:
    """A packed model as `data`, for `START`."""
    code = (PAGE / "engine.wasm").read_bytes()
    return {"code": code, "model": model.model, "parts": model.parts}


START = """
const engine = await Engine.start(fromBase64(data.code), data.model);
data.parts.forEach((part, i) => engine.load(i, part));
const writer = new Writer(engine);
"""
