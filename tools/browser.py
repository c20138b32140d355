"""Find Chromium for the tools and tests that need a browser."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
NO_BROWSER = """\
No Chromium was found. Install it, then try again:
  Debian, Ubuntu   sudo apt-get install chromium
  Fedora           sudo dnf install chromium
  anywhere         .venv/bin/python -m playwright install chromium
or name one by the variable CHROMIUM: CHROMIUM=/path/to/chrome make site-test"""
# Without these flags, Chromium contacts Google's servers at every start.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium():
    """A headless browser.

    Raises:
        SystemExit: if there is none; the message says how to install one.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        own = play.chromium.executable_path
        found = os.environ.get("CHROMIUM") or next(
            filter(None, map(shutil.which, NAMES)), None
        )
        if not found and not os.path.exists(own):
            raise SystemExit(NO_BROWSER)
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        flags = FLAGS + ["--no-sandbox"] * as_root
        browser = play.chromium.launch(executable_path=found or own, args=flags)
        yield browser
        browser.close()
