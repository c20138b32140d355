"""Measure the captioner in the page: `python -m tools.try_it [PHOTOGRAPHS]`.

It needs Flickr8k in the folder that FLICKR8K_DIR names. The page, in headless
Chromium, captions the first 200 photographs of the validation split, and so
does Python, with the page's 8-bit weights. book/results/page.json stores
differences and sizes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from captionlib.captioner import SHIPPED, Captioner
from captionlib.io.karpathy import read_karpathy
from captionlib.io.versions import versions
from captionlib.model import CaptionModel
from captionlib.page import round_weights, write_page
from tools.browser import chromium

TO = Path("book/results/page.json")
STAGES = ("reading", "encoding", "searching")


class Shown(NamedTuple):
    """What the page says of a photograph."""

    text: str
    log_prob: float
    times: list[int]  # milliseconds, of STAGES


def through_page(page, photographs: list[Path]) -> list[Shown]:
    """Give a page with the captioner, opened in Chromium, one file after the
    other."""
    shown = []
    for path in photographs:
        page.set_input_files("[data-part=file]", path)
        page.wait_for_function(
            "name => document.querySelector('[data-part=status]').textContent"
            ".startsWith(name + ': “')",
            arg=path.name,
        )
        shown.append(Shown(*page.evaluate(READ)))
    return shown


READ = r"""() => {
  const text = (part) => document.querySelector(`[data-part=${part}]`).innerText;
  const words = [...document.querySelectorAll("[data-part=words] button")];
  const [, number] = text("status").match(/log-probability (\S+) nats/);
  const times = text("times").match(/\d+(?= ms)/g).map(Number);
  return [words.map((w) => w.textContent).join(" "), Number(number.replace("−", "-")), times];
}"""


def compare(captioner: Captioner, paths: list[Path], shown: list[Shown]):
    """How many captions are Python's, and the largest difference in nats among
    them."""
    theirs = captioner.caption_batch(paths)
    pairs = list(zip(shown, theirs, strict=True))
    apart = [abs(a.log_prob - b.log_prob) for a, b in pairs if a.text == b.text]
    return {
        "images": len(paths),
        "equal": len(apart),
        "nats": round(max(apart), 4),
        "others": [
            [path.name, a.text, a.log_prob, b.text, round(b.log_prob, 2)]
            for path, (a, b) in zip(paths, pairs, strict=True)
            if a.text != b.text
        ],
    }


def main(count: int = 200) -> int:
    flickr8k = Path(os.environ["FLICKR8K_DIR"])
    data, images = (
        flickr8k / "dataset_flickr8k.json",
        flickr8k / "Flicker8k_Dataset",
    )
    model = CaptionModel.load(SHIPPED, member=0)
    rounded = round_weights(model, "int8")
    paths = [r.path for r in read_karpathy(data, images, "val")][:count]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        site = Path(folder, "site")
        write_page(model, site)
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        shown = through_page(page, paths)
        weights = sum(p.stat().st_size for p in site.glob("weights-*.js"))
    result = {
        "split": "val",
        "weights_megabytes": weights / 1e6,
        "page": compare(Captioner(rounded), paths, shown),
        "versions": versions(),
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    TO.write_text(text + "\n", encoding="utf-8")
    print(text)
    for i, what in enumerate(STAGES):
        times = sorted(each.times[i] for each in shown)
        print(f"{what}: {times[len(times) // 2]} ms, median")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
