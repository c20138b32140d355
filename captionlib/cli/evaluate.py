"""`captionlib evaluate`: print and store the scores of a captioner."""

from __future__ import annotations

import json
from pathlib import Path

from captionlib.cli.arguments import given, shares_of
from captionlib.cli.terminal import say, say_skipped, shows_progress
from captionlib.config import CaptionConfig, SkippingConfig
from captionlib.io.files import InputError, check_output, write_json

__all__ = ["run_evaluate"]


def run_evaluate(args) -> int:
    """Score a split; return the exit status, 2 if something was left out."""
    from captionlib.engine import evaluate_split

    _check_outputs(args)
    done = evaluate_split(
        args.karpathy_json,
        args.images,
        args.split,
        meteor=args.meteor,
        shares=shares_of(args),
        save_captions=args.save_captions,
        progress=shows_progress(),
        **given(args, CaptionConfig, SkippingConfig),
    )
    if args.save_results is not None:
        write_json(args.save_results, done.report(), indent=1)
    if args.json:
        print(json.dumps(done.scores))
    else:
        _print_table(done.scores)
    for line in done.remarks:
        say(line)
    return say_skipped(done.skipped)


def _check_outputs(args) -> None:
    """Check where the results go, before the work for them."""
    taken = [Path(args.karpathy_json).resolve()]
    for path in (args.save_results, args.save_captions):
        if path is None:
            continue
        check_output(path)
        if Path(path).resolve() in taken:
            raise InputError(
                f"{path}: is named twice, once as a file to write; name "
                "another file"
            )
        taken.append(Path(path).resolve())


def _print_table(scores: dict) -> None:
    alone = scores["images"] == 1
    for name, (low, high) in scores["intervals"].items():
        interval = f"95% interval {low:6.2f} to {high:6.2f}"
        if alone:
            needs = name == "cider_d"
            interval = "needs several images" if needs else "no interval"
        print(f"{name:<8} {scores[name]:6.2f}   {interval}")
    print(f"{'images':<8} {scores['images']:6d}")
