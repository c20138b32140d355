"""The `captionlib` command: scenes, prepare, train, evaluate and caption.

Written by hand. Exit status 0; 2 for bad input or usage, with one line on stderr that names the
file and the cure; 1 for anything else, with one line too (`CAPTIONLIB_DEBUG=1` adds the traceback);
130 after Ctrl-C. Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from captionlib.files import InputError, write_json

__all__ = ["main"]

# What the user can put right: the operating system's own words, and the status of bad input.
_USERS_TO_MEND = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after `captionlib`; None means this process's own.
    """
    debug = os.environ.get("CAPTIONLIB_DEBUG", "") not in ("", "0")
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")  # a library's warning is not the line about the file
        try:
            args = _parser().parse_args(argv)
            status = args.run(args)
            sys.stdout.flush()
            return status
        except InputError as error:
            _say(str(error))
            return 2
        except KeyboardInterrupt:
            _say("interrupted")
            return 130
        except BrokenPipeError:  # `captionlib caption *.jpg | head`: nobody is reading any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, _USERS_TO_MEND) and error.filename is not None:
                _say(f"{error.filename}: {error.strerror}; check the path and its permissions")
                return 2
            about = str(error).strip().split("\n")[0]
            hint = "" if debug else " (CAPTIONLIB_DEBUG=1 shows the traceback)"
            _say(f"{type(error).__name__}: {about}{hint}" if about else type(error).__name__ + hint)
            return 1


def _say(message: str) -> None:
    """One line on stderr, whatever a file is called."""
    line = "captionlib: " + message.replace("\r", "\\r").replace("\n", "\\n")
    print(line.encode(errors="backslashreplace").decode(errors="replace"), file=sys.stderr)


# ------------------------------------------------------------------------------------ the options


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, and whose help keeps its example's lines."""

    def __init__(self, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        raise InputError(f"{message}; {self.prog} --help shows how".replace("\n", " "))


def _at_least(low: int):
    """The type of an option that is a whole number from `low` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low}, got {text!r}")
        return value

    return whole_number


def _parser() -> _Parser:
    from captionlib import __version__

    parser = _Parser(
        prog="captionlib",
        description="Image captioning with visual attention: from photographs to sentences.",
        epilog="example:\n  captionlib scenes --to toy && captionlib prepare --help",
    )
    parser.add_argument("--version", action="version", version=f"captionlib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_scenes, _add_prepare, _add_train, _add_evaluate, _add_caption):
        add(commands)
    return parser


def _command(commands, name: str, run, about: str, example: str) -> _Parser:
    """One command's parser. An option that is not given leaves no trace: defaults stay in the
    configuration classes, once."""
    parser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example:\n  {example}",
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=run)
    return parser


def _given(args: argparse.Namespace, *names: str) -> dict:
    """Those of the options `names` that were given."""
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def _option(parser, flag: str, help: str, **settings) -> None:
    parser.add_argument(flag, help=help, **settings)


def _bar() -> bool:
    """Whether long work shows its progress: only to a person at a terminal."""
    return sys.stderr.isatty()


# ----------------------------------------------------------------------------------------- scenes


def _add_scenes(commands) -> None:
    parser = _command(
        commands,
        "scenes",
        _scenes,
        "draw the toy world: images, captions, and where every object is",
        "captionlib scenes --to toy --train 300 --val 50 --test 50",
    )
    _option(parser, "--to", "folder to write", required=True, metavar="DIR")
    count = {"type": _at_least(0), "metavar": "N"}
    _option(parser, "--train", "training images (1500)", **count)
    _option(parser, "--val", "validation images (200)", **count)
    _option(parser, "--test", "test images (200)", **count)
    _option(parser, "--seed", "the same seed draws the same scenes (0)", type=int, metavar="S")


def _scenes(args) -> int:
    from captionlib.scenes import write_scenes

    wanted = _given(args, "train", "val", "test", "seed")
    path = write_scenes(args.to, **wanted, progress=_bar())
    print(path)
    return 0


# ---------------------------------------------------------------------------------------- prepare


def _add_prepare(commands) -> None:
    parser = _command(
        commands,
        "prepare",
        _prepare,
        "turn a folder of images and Karpathy's JSON into the files that training reads",
        "captionlib prepare --karpathy-json toy/dataset_scenes.json --images toy/images "
        "--to prepared",
    )
    _option(parser, "--karpathy-json", "the split and its captions", required=True, metavar="F")
    _option(parser, "--images", "folder of the images", required=True, metavar="DIR")
    _option(parser, "--to", "folder to write", required=True, metavar="DIR")
    count = {"type": _at_least(1), "metavar": "N"}
    _option(parser, "--captions-per-image", "captions stored per image (5)", **count)
    _option(parser, "--min-word-freq", "rarer words become <unk> (5)", **count)
    _option(parser, "--max-len", "longest training caption, in words (50)", **count)
    _option(parser, "--seed", "of the resampled captions (0)", type=int, metavar="S")
    _option(parser, "--skip-bad", "leave bad images out, and list them", action="store_true")
    _option(parser, "--workers", "processes that read images", **count)


def _prepare(args) -> int:
    from captionlib.data import DataConfig, prepare

    config = DataConfig(
        **_given(args, "captions_per_image", "min_word_freq", "max_len", "seed")
    )
    done = prepare(
        args.karpathy_json,
        args.images,
        args.to,
        config,
        **_given(args, "skip_bad", "workers"),
        progress=_bar(),
    )
    for line in done.skipped:
        _say(f"skipped {line}")
    print(Path(args.to) / done.base)
    return 0


# ----------------------------------------------------------------------------- evaluate and caption


def _add_searching(parser) -> None:
    """The options that evaluate and caption share."""
    _option(parser, "--model", "a captioner: a folder that train wrote (the shipped one)",
            default=None, metavar="DIR")
    _option(parser, "--beam-size", "hypotheses kept (what the model was saved with)",
            default=None, type=_at_least(1), metavar="N")
    _option(parser, "--batch-size", "images captioned at once (32)",
            default=32, type=_at_least(1), metavar="N")
    _option(parser, "--device", "cpu, cuda, mps (cuda if there is one, else cpu)",
            default=None, metavar="D")
    _option(parser, "--json", "print JSON", action="store_true", default=False)


def _captioner(args):
    from captionlib.captioner import Captioner

    captioner = Captioner.from_pretrained(args.model)
    captioner.model.to(_device(args.device))
    return captioner


def _device(name: str | None):
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"--device {name}: torch can't use it here; give cpu") from None
    return torch.device(name)


def _batches(items: Sequence, size: int, *, unit: str) -> Iterator[Sequence]:
    """`items` in runs of `size`, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    with tqdm(total=len(items), unit=f" {unit}", disable=not _bar()) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))


def _add_evaluate(commands) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "caption every image of a split once, and score the captions",
        "captionlib evaluate --karpathy-json toy/dataset_scenes.json --images toy/images "
        "--split test --model model",
    )
    _option(parser, "--karpathy-json", "the split and its captions", required=True, metavar="F")
    _option(parser, "--images", "folder of the images", required=True, metavar="DIR")
    _option(parser, "--split", "train, val or test", required=True, choices=_SPLITS)
    _add_searching(parser)
    _option(parser, "--save-results", "write scores, settings and versions to a JSON file",
            default=None, metavar="F")
    _option(parser, "--save-captions", "write each image's words to a JSON file",
            default=None, metavar="F")


_SPLITS = ("train", "val", "test")


def _evaluate(args) -> int:
    from captionlib.karpathy import read_karpathy
    from captionlib.metrics import intervals, score

    for path in (args.save_results, args.save_captions):
        if path is not None and Path(path).is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
    records = read_karpathy(args.karpathy_json, args.images, args.split)
    captioner = _captioner(args)
    hypotheses = []
    for batch in _batches(records, args.batch_size, unit="images"):
        captions = captioner.caption_batch([r.path for r in batch], args.beam_size, len(batch))
        hypotheses += [caption.words for caption in captions]
    references = [[list(caption) for caption in record.captions] for record in records]
    result = {
        **score(references, hypotheses),
        "images": len(records),
        "intervals": intervals(references, hypotheses),
    }
    if args.save_captions is not None:
        names = [record.filename for record in records]
        write_json(args.save_captions, dict(zip(names, hypotheses, strict=True)), indent=1)
    if args.save_results is not None:
        _save_results(args, captioner, records[0].dataset, result)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result["intervals"].items():
            print(f"{name:<8} {result[name]:6.2f}   95 % interval {value[0]:6.2f} to {value[1]:6.2f}")
        print(f"{'images':<8} {result['images']:6d}")
    return 0


def _save_results(args, captioner, dataset: str, result: dict) -> None:
    """A result that can be traced: what was measured, on what, with what."""
    from dataclasses import asdict, replace

    from captionlib.decoder import versions

    search = captioner.search
    if args.beam_size is not None:
        search = replace(search, beam_size=args.beam_size)
    stored = {
        "data": {"dataset": dataset, "split": args.split},
        "result": result,
        "search": asdict(search),
        "model": asdict(captioner.model.config),
        "training": captioner.model.metrics,  # its data, seed and validation scores
        "versions": versions(),
    }
    write_json(args.save_results, stored, indent=1)


def _add_caption(commands) -> None:
    parser = _command(
        commands,
        "caption",
        _caption,
        "say what is in photographs",
        "captionlib caption holiday.jpg --model model --save-figure seen.png",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, any format")
    _add_searching(parser)
    _option(parser, "--save-figure", "draw where it looked: a file for one image, else a folder",
            default=None, metavar="F")


def _caption(args) -> int:
    from captionlib.images import read_image

    figures = _figure_paths(args.save_figure, args.images)
    captioner = _captioner(args)
    status = 0
    for batch in _batches(list(enumerate(args.images)), args.batch_size, unit="images"):
        good, pixels = [], []
        for number, path in batch:
            try:
                pixels.append(read_image(path))
                good.append(number)
            except InputError as error:
                _say(str(error))
                status = 2
        captions = captioner.caption_batch(pixels, args.beam_size, args.batch_size)
        for number, caption in zip(good, captions, strict=True):
            _print_caption(args, args.images[number], caption)
            if figures:
                _save_figure(args.images[number], caption, figures[number])
    return status


def _print_caption(args, path: str, caption) -> None:
    if args.json:
        line = json.dumps(
            {
                "image": path,
                "text": caption.text,
                "words": caption.words,
                "log_prob": caption.log_prob,
                "finished": caption.finished,
            }
        )
    else:
        line = caption.text if len(args.images) == 1 else f"{path}: {caption.text}"
    print(_printable(line), flush=True)


def _figure_paths(to: str | None, images: Sequence[str]) -> list[Path]:
    """Where each image's figure goes, settled before any work: one file, or names in a folder."""
    if to is None:
        return []
    target = Path(to)
    if len(images) == 1:
        if target.is_dir():
            raise InputError(f"{to}: is a folder; for one image name a file, such as seen.png")
        return [target]
    if target.exists() and not target.is_dir():
        raise InputError(f"{to}: is a file; for several images name a folder")
    paths, taken = [], set()
    for image in images:
        stem, copy = Path(image).stem, 1
        name = stem
        while name.casefold() in taken:  # photographs of two folders may share a name
            copy += 1
            name = f"{stem}_{copy}"
        taken.add(name.casefold())
        paths.append(target / f"{name}.png")
    return paths


def _save_figure(image: str, caption, to: Path) -> None:
    from captionlib.visualize import show_attention

    show_attention(image, caption, to=to)


def _printable(line: str) -> str:
    """`line` as this terminal's encoding can show it, in one line."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = line.replace("\r", "\\r").replace("\n", "\\n")
    return line.encode(encoding, errors="backslashreplace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
