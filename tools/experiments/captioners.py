"""What do several captioners in one folder give, and what do they cost?

Scores any number of captioners on the same validation split, each with the
search settings stored with it, and stores a row for each: scores with
intervals, size on disk, and the time per photograph once it is loaded. Rows
that are there already are kept, unless the captioner's weights have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from pathlib import Path

import torch

from captionlib.captioner import Captioner
from captionlib.engine import evaluate_split
from captionlib.io.files import package_folder, read_json, write_json
from captionlib.io.sources.reading import read_data_set
from captionlib.io.versions import versions
from captionlib.model import CaptionEnsemble, CaptionModel

STORED = (
    Path(__file__).parents[2]
    / "book"
    / "results"
    / "experiments"
    / "captioners.json"
)
TIMED = 20  # photographs, one after the other


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments captioners",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--captions", required=True, metavar="F")
    parser.add_argument("--images", required=True, metavar="DIR")
    parser.add_argument("--to", type=Path, default=STORED, metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="time 2 photographs only"
    )
    parser.add_argument(
        "--times",
        action="store_true",
        help="measure the times again, on an idle machine",
    )
    parser.add_argument(
        "captioners",
        nargs="+",
        metavar="NAME:LABEL=DIR",
        help="the row's name, its label in the table, the captioner's folder",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse(argv)
    stored = read_json(args.to) if args.to.exists() else {"rows": {}}
    for each in args.captioners:
        name, _, rest = each.partition(":")
        label, _, folder = rest.partition("=")
        digest = hashlib.sha256(_weights(folder).read_bytes()).hexdigest()
        row = stored["rows"].get(name, {})
        known = row.get("weights") == digest
        if known and not args.times:
            continue
        if not known:
            row = {"label": label, "weights": digest}
            row |= measure(folder, args.captions, args.images)
        files = [
            r.path for r in read_data_set(args.captions, args.images, "val")
        ]
        row["seconds"] = _seconds(folder, files[: 2 if args.quick else TIMED])
        stored["rows"][name] = row
        stored |= {
            "data": "flickr8k" if not args.quick else "quick",
            "split": "val",
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        args.to.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.to, stored, indent=1)
        print(f"{name}: {row}", flush=True)
    return 0


def measure(folder: str, captions: str, images: str) -> dict:
    """A captioner's scores and size."""
    done = evaluate_split(captions, images, "val", model=folder)
    model = CaptionModel.load(folder)
    ensemble = isinstance(model, CaptionEnsemble)
    return {
        "decoders": len(model.members) if ensemble else 1,
        "encoders": len(model.encoders) if ensemble else 1,
        "megabytes": _weights(folder).stat().st_size / 1e6,
        "search": done.about["search"],
        **{name: done.scores[name] for name in ("bleu4", "cider_d", "images")},
        "intervals": {
            name: done.scores["intervals"][name]
            for name in ("bleu4", "cider_d")
        },
    }


def _weights(folder: str) -> Path:
    return package_folder(folder) / "model.safetensors"


def _seconds(folder: str, files: list[Path]) -> float:
    """The median time for a photograph, from its file to its caption."""
    captioner, times = Captioner.from_pretrained(folder), []
    for path in files:
        began = time.perf_counter()
        captioner.caption(path)
        times.append(time.perf_counter() - began)
    return statistics.median(times)
