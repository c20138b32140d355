"""The `captionlib` command: scenes, download, prepare, train, evaluate, caption,
convert and export.

The exit status is 0 on success; 2 for bad input or usage, with one line on
stderr that names the file and the cure, also where the rest was done without
it; 1 for any other error, also with one
line (`CAPTIONLIB_DEBUG=1` adds the traceback); 130 after Ctrl-C. Each command
is a thin layer over a Python function, imported when the command runs, so that
`--help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from captionlib.cli.arguments import given, make_parser, shares_of
from captionlib.cli.caption import run_caption
from captionlib.cli.evaluate import run_evaluate
from captionlib.cli.terminal import (
    print_line,
    say,
    say_skipped,
    shows_progress,
)
from captionlib.config import (
    DataConfig,
    DecodingConfig,
    EngineConfig,
    ExportConfig,
    ModelConfig,
    ReadingConfig,
    RunConfig,
    ScenesConfig,
    ViewConfig,
    WordsConfig,
)
from captionlib.io.files import InputError

__all__ = ["main"]

# Errors that users can mend: the system's own message, exit status 2.
_USERS_TO_MEND = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
_ALSO_THEIRS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the arguments after `captionlib`; None means `sys.argv[1:]`.
    """
    debug = os.environ.get("CAPTIONLIB_DEBUG", "") not in ("", "0")
    with warnings.catch_warnings():
        if not debug:  # stderr is for one line per bad file
            warnings.simplefilter("ignore")
        try:
            args = make_parser().parse_args(argv)
            status = _COMMANDS[args.command](args)
            if sys.stdout is not None:  # closed by the caller with `>&-`
                sys.stdout.flush()
            return status
        except InputError as error:
            say(str(error))
            return 2
        except KeyboardInterrupt:
            say("interrupted")
            return 130
        except BrokenPipeError:  # `captionlib caption *.jpg | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                traceback.print_exc()
            if _is_users_to_mend(error):
                say(
                    f"{error.filename}: {error.strerror}; check the path and "
                    "its permissions"
                )
                return 2
            about = str(error).strip().split("\n")[0]
            hint = "" if debug else " (CAPTIONLIB_DEBUG=1 shows the traceback)"
            name = type(error).__name__
            say(f"{name}: {about}{hint}" if about else name + hint)
            return 1


def _is_users_to_mend(error: Exception) -> bool:
    if not isinstance(error, OSError) or error.filename is None:
        return False
    return isinstance(error, _USERS_TO_MEND) or error.errno in _ALSO_THEIRS


def _scenes(args) -> int:
    from captionlib.toy.scenes import write_scenes

    settings = given(args, ScenesConfig)
    print(write_scenes(args.to, **settings, progress=shows_progress()))
    return 0


def _download(args) -> int:
    from captionlib.datasets.download import download
    from captionlib.datasets.fetch import DownloadError

    options = {
        "keep_archives": args.keep_archives,
        "progress": shows_progress(),
    }
    try:
        done = download(args.data_set, args.to, args.archive, **options)
    except DownloadError as error:  # the server's fault, not bad input
        say(str(error))
        return 1
    for line in done.notes:
        say(line)
    print(
        f"captionlib prepare --captions {done.karpathy_json} --images "
        f"{done.images} --to ..."
    )
    return 0


def _prepare(args) -> int:
    from captionlib.engine.preparation import prepare_data

    done = prepare_data(
        args.karpathy_json,
        args.images,
        args.to,
        DataConfig(**given(args, DataConfig)),
        shares=shares_of(args),
        **given(args, ReadingConfig, WordsConfig),
        progress=shows_progress(),
    )
    for line in done.notes:
        say(line)
    status = say_skipped(done.skipped)
    for line in done.words.lines:
        print_line(line)
    print(Path(args.to) / done.base)
    return status


def _train(args) -> int:
    from captionlib.engine import train_recipe

    settings = given(
        args, RunConfig, ModelConfig, EngineConfig, ViewConfig, DecodingConfig
    )
    train_recipe(args.recipe, to=args.to, progress=shows_progress(), **settings)
    return 0


def _convert(args) -> int:
    from captionlib.original.convert import convert

    model = convert(args.checkpoint, args.word_map, args.to)
    print(
        f"{args.to}: {model.config.backbone} and {len(model.vocabulary)} words"
    )
    return 0


def _export(args) -> int:
    from captionlib.onnx import export

    difference = export(**given(args, ExportConfig), to=args.to)
    print_line(
        f"{args.to}: differs from PyTorch by {difference:.0e} at most; "
        f"python {Path(args.to, 'caption.py')} PHOTO writes a caption"
    )
    return 0


_COMMANDS = {
    "scenes": _scenes,
    "download": _download,
    "prepare": _prepare,
    "train": _train,
    "evaluate": run_evaluate,
    "caption": run_caption,
    "convert": _convert,
    "export": _export,
}
