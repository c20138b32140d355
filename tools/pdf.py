"""Print the book: `make pdf` writes _build/captionlib.pdf with headless
Chromium.

Sphinx joins all pages into one, so that links work across chapters and the file
has an outline. The print styles are in book/_static/book.css.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tools.browser import chromium

PDF = Path("_build/captionlib.pdf")
STYLE = "font: 7pt sans-serif; color: #555; width: 100%; text-align: center"
FOOTER = f'<div style="{STYLE}"><span class="pageNumber"></span></div>'
# The start of a chapter up to its title, whose number is only in the file name.
CHAPTER = re.compile(
    r'<span id="document-notebooks/(\d\d)_\w+"></span><section [^>]*>\s*<h2>'
)


def main() -> int:
    root = yaml.safe_load(Path("_toc.yml").read_text())["root"]
    with (
        tempfile.TemporaryDirectory(prefix="pdf-") as folder,
        chromium() as browser,
    ):
        command = [
            Path(sys.executable).with_name("jupyter-book"),
            "build",
            ".",
            "--quiet",
        ]
        command += ["--builder", "singlehtml", "--path-output", folder]
        done = subprocess.run(command)
        if done.returncode:
            return done.returncode
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(600_000)  # milliseconds; hundreds of sheets
        site = Path(folder, "_build", "singlehtml")
        text = (site / f"{root}.html").read_text(encoding="utf-8")
        text = CHAPTER.sub(r"\g<0>\1 ", text)
        # Sphinx writes addresses as if the page were at the top, and links as
        # if to another page.
        joined = site / "joined.html"
        joined.write_text(
            text.replace(f'href="{root}.html#', 'href="#'), encoding="utf-8"
        )
        page.goto(joined.as_uri())
        page.evaluate("() => window.MathJax?.startup?.promise")
        page.evaluate("() => document.fonts.ready.then(() => true)")
        PDF.parent.mkdir(exist_ok=True)
        page.pdf(
            path=PDF,
            format="A4",
            margin={
                "top": "15mm",
                "bottom": "16mm",
                "left": "10mm",
                "right": "10mm",
            },
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
    print(f"The book is in {PDF}: {PDF.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
