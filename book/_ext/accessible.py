"""Mends in the finished pages what the theme and Sphinx leave in a reader's way.

For a screen reader: `make site-test` runs axe-core over every page and finds each of these, were it
not mended here. For paper: a page in dark colours prints in light ones, and what is folded, such as
an answer, is open, since nobody can click on it.
"""

from __future__ import annotations

import re
from pathlib import Path

MENDS = [
    # The book's title, above the contents, is outside every landmark.
    (
        re.compile(r'<div class="(sidebar-primary-items__start)'),
        r'<div role="region" aria-label="Contents" class="\1',
    ),
    # A role that the standard has withdrawn, inside a list.
    (re.compile(r' role="doc-biblioentry"'), ' role="listitem"'),
    # The corner of a table heads nothing.
    (re.compile(r"<th\b[^>]*>\s*(?:<p>\s*</p>)?\s*</th>"), "<td></td>"),
]

ON_PAPER = """
(() => {
  const html = document.documentElement;
  let theme, opened = [];
  matchMedia("print").addEventListener("change", (media) => {
    if (media.matches) {
      theme = html.dataset.theme;
      html.dataset.theme = "light";
      opened = [...document.querySelectorAll("article details:not([open], .hide)")];
      opened.forEach((one) => one.setAttribute("open", ""));
    } else {
      html.dataset.theme = theme;
      opened.forEach((one) => one.removeAttribute("open"));
    }
  });
})();
"""


def mend(app, exception) -> None:
    """Rewrite every page once the build is done."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = before = path.read_text(encoding="utf-8")
        for pattern, better in MENDS:
            text = pattern.sub(better, text)
        if text != before:
            path.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", mend)
    app.add_js_file(None, body=ON_PAPER)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
