"""`captionlib evaluate`: print and store the scores of a captioner."""

from __future__ import annotations

import json
from pathlib import Path

from captionlib.cli.arguments import given, shares_of
from captionlib.cli.terminal import shows_progress
from captionlib.config import CaptionConfig
from captionlib.io.files import InputError, write_json

__all__ = ["run_evaluate"]


def run_evaluate(args) -> int:
    """Score a split; return the exit status."""
    from captionlib.engine import evaluate_split

    for path in (args.save_results, args.save_captions):
        if path is not None and Path(path).is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
    done = evaluate_split(
        args.karpathy_json,
        args.images,
        args.split,
        meteor=args.meteor,
        shares=shares_of(args),
        progress=shows_progress(),
        **given(args, CaptionConfig),
    )
    if args.save_captions is not None:
        write_json(args.save_captions, done.captions, indent=1)
    if args.save_results is not None:
        write_json(args.save_results, done.report(), indent=1)
    if args.json:
        print(json.dumps(done.scores))
    else:
        _print_table(done.scores)
    return 0


def _print_table(scores: dict) -> None:
    for name, (low, high) in scores["intervals"].items():
        print(
            f"{name:<8} {scores[name]:6.2f}   95 % interval {low:6.2f} to "
            f"{high:6.2f}"
        )
    print(f"{'images':<8} {scores['images']:6d}")
