"""The argument parser of `captionlib`.

Nothing here imports torch, so `--help` answers at once. Options for settings
are derived from the dataclasses in `captionlib.config`, with their defaults,
ranges and help texts.
"""

from __future__ import annotations

import argparse
from types import NoneType

from captionlib import __version__
from captionlib.config import (
    CaptionConfig,
    DataConfig,
    DecodingConfig,
    EngineConfig,
    ExportConfig,
    ModelConfig,
    ReadingConfig,
    RunConfig,
    ScenesConfig,
    SkippingConfig,
    SplitConfig,
    ViewConfig,
    WordsConfig,
)
from captionlib.config.settings import (
    Settings,
    check_setting,
    range_in_words,
    settings_of,
    value_types,
)
from captionlib.engine.recipes import RECIPES
from captionlib.io.files import ASSETS, InputError, read_json

__all__ = ["SPLITS", "given", "make_parser", "shares_of"]

SPLITS = ("train", "val", "test")


def make_parser() -> argparse.ArgumentParser:
    """The parser of `captionlib`.

    A mistake raises `InputError`. Settings that are not given are absent from
    the result."""
    parser = _Parser(
        prog="captionlib",
        description="Image captioning with visual attention: from photographs to sentences.",
        epilog="example:\n  captionlib scenes --to toy && captionlib prepare --help",
    )
    parser.add_argument(
        "--version", action="version", version=f"captionlib {__version__}"
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True
    )
    for add in (
        _add_scenes,
        _add_download,
        _add_prepare,
        _add_train,
        _add_evaluate,
        _add_caption,
        _add_convert,
        _add_export,
    ):
        add(commands)
    return parser


def given(args: argparse.Namespace, *kinds: type[Settings]) -> dict:
    """The given settings of these classes; the others keep their defaults."""
    names = {name for kind in kinds for name in settings_of(kind)}
    return {name: value for name, value in vars(args).items() if name in names}


def shares_of(args: argparse.Namespace) -> SplitConfig:
    """How images without splits are shared out."""
    try:
        return SplitConfig(**given(args, SplitConfig))
    except ValueError as error:  # each is in range, but not together
        raise InputError(f"{error}; give smaller shares") from None


# -------------------------------------------------------- options from settings


def _add_settings(parser, kind: type[Settings]) -> None:
    """Add an option for each setting of `kind`."""
    for name, each in settings_of(kind).items():
        flag, types = "--" + name.replace("_", "-"), value_types(kind, name)
        options = {
            "dest": name,
            "help": _help(each),
            "default": argparse.SUPPRESS,
        }
        if types == (bool,):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, **options
            )
        elif bool in types:  # on, off or a third value
            positions = "|".join(each.metadata["choices"])
            options |= {"nargs": "?", "const": "on", "metavar": positions}
            parser.add_argument(flag, type=_type(kind, name), **options)
            off = {"dest": name, "default": argparse.SUPPRESS, "const": "off"}
            parser.add_argument(
                "--no-" + flag[2:],
                action="store_const",
                help=f"the same as {flag} off",
                **off,
            )
        else:
            shown = each.metadata.get("metavar") or types[0].__name__.upper()
            shown = "|".join(each.metadata.get("choices", ())) or shown
            options |= {"type": _type(kind, name), "metavar": shown}
            also = each.metadata.get("also")
            flags = [f"--{also}", flag] if also else [flag]
            parser.add_argument(*flags, **options)


def _help(each) -> str:
    """A setting's meaning, its default and its range."""
    about, default = each.metadata["about"], each.default
    if default is None:
        said = each.metadata["unset"]
    elif isinstance(default, bool):
        said = "on" if default else "off"
    else:
        said = f"{default:g}" if isinstance(default, float) else str(default)
    parts = [f"default: {said}"]
    if "choices" not in each.metadata:  # choices are shown beside the option
        parts += filter(None, [range_in_words(each.metadata)])
    return f"{about} ({'; '.join(parts)})".replace("%", "%%")


def _type(kind: type[Settings], name: str):
    """A converter from an option's text to a value of the right type and
    range."""
    wanted = next(
        each for each in value_types(kind, name) if each not in (NoneType, bool)
    )

    def value_of(text: str):
        try:
            value = wanted(text)
        except ValueError:
            value = text
        try:
            check_setting(kind, name, value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return value_of


# ----------------------------------------------------------------- the commands


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors, whose help keeps the lines of examples."""

    def __init__(self, **options):
        options.setdefault(
            "formatter_class", argparse.RawDescriptionHelpFormatter
        )
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        raise InputError(
            f"{message}; {self.prog} --help shows how".replace("\n", " ")
        )


def _command(commands, name: str, about: str, example: str) -> _Parser:
    description = about[0].upper() + about[1:] + "."
    epilog = f"example:\n  {example}"
    return commands.add_parser(
        name, help=about, description=description, epilog=epilog
    )


def _path(
    parser,
    flag: str,
    about: str,
    metavar: str = "DIR",
    *,
    required: bool = False,
) -> None:
    parser.add_argument(
        flag, help=about, metavar=metavar, required=required, type=_named
    )


def _named(text: str) -> str:
    """A path that is not empty, as that of an unset variable is."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or folder, got ''")
    return text


def _switch(parser, flag: str, about: str) -> None:
    parser.add_argument(flag, help=about, action="store_true")


def _add_scenes(commands) -> None:
    about = (
        "draw a toy data set: images, captions and the place of every object"
    )
    example = "captionlib scenes --to toy --train 300 --val 50 --test 50"
    parser = _command(commands, "scenes", about, example)
    _path(parser, "--to", "folder to write", required=True)
    _add_settings(parser, ScenesConfig)


def _add_download(commands) -> None:
    about = "fetch, verify and unpack a data set; if interrupted, run it again to resume"
    example = (
        "captionlib download flickr8k --to flickr8k\n"
        "  captionlib download flickr30k --to flickr30k --archive flickr30k-images.tar.gz\n"
        "  captionlib download coco --to coco --archive train2014.zip --archive val2014.zip"
    )
    parser = _command(commands, "download", about, example)
    sets = read_json(ASSETS / "data_sets.json")["sets"]
    size = {
        name: sum(part["bytes"] for part in one["archives"])
        for name, one in sets.items()
    }
    sizes = ", ".join(f"{name} ({size[name] / 1e9:.1f} GB)" for name in sets)
    parser.add_argument("data_set", metavar="NAME", choices=sets, help=sizes)
    _path(
        parser,
        "--to",
        "folder to write: Karpathy's JSON and the photographs",
        required=True,
    )
    about = (
        "an archive fetched by hand, under its original name; repeat for each "
        "file (default: none)"
    )
    parser.add_argument(
        "--archive", help=about, metavar="F", action="append", default=[]
    )
    _switch(
        parser,
        "--keep-archives",
        "keep unpacked archives in the folder downloads",
    )


def _add_data_set(parser) -> None:
    parser.add_argument(
        "--captions",
        "--karpathy-json",
        dest="karpathy_json",
        metavar="F",
        help="the captions: Karpathy's JSON or COCO's; a CSV or TSV file with "
        "the columns file, caption and, optionally, split; or Flickr8k's token "
        "file",
        required=True,
    )
    _path(parser, "--images", "folder of the images", required=True)
    _add_settings(parser, SplitConfig)


def _add_prepare(commands) -> None:
    about = "convert images and their captions to the files that training reads"
    example = (
        "captionlib prepare --captions toy/dataset_scenes.json --images "
        "toy/images --to prepared\n"
        "  captionlib prepare --captions captions.csv --images photos --to "
        "prepared"
    )
    parser = _command(commands, "prepare", about, example)
    _add_data_set(parser)
    _path(parser, "--to", "folder to write", required=True)
    _add_settings(parser, DataConfig)
    _add_settings(parser, WordsConfig)
    _add_settings(parser, ReadingConfig)


def _add_train(commands) -> None:
    about = "train a captioner; the best one so far is in DIR/best"
    example = "captionlib train --recipe toy --to model"
    parser = _command(commands, "train", about, example)
    names = ", ".join(RECIPES)
    _path(
        parser, "--recipe", f"settings and stages: {names}, or a JSON file", "R"
    )
    _path(
        parser, "--to", "folder to write: best, last, log, curve", required=True
    )
    _add_settings(parser, RunConfig)
    for title, kinds in (
        ("model", [ModelConfig]),
        ("training, in every stage", [EngineConfig, ViewConfig]),
        ("search, stored with the model", [DecodingConfig]),
    ):
        group = parser.add_argument_group(title)
        for kind in kinds:
            _add_settings(group, kind)


def _add_evaluate(commands) -> None:
    about = "caption every image of a split, and score the captions"
    example = (
        "captionlib evaluate --captions toy/dataset_scenes.json --images "
        "toy/images --split test --model model"
    )
    parser = _command(commands, "evaluate", about, example)
    _add_data_set(parser)
    parser.add_argument(
        "--split", help="split to caption", required=True, choices=SPLITS
    )
    _add_settings(parser, CaptionConfig)
    _add_settings(parser, SkippingConfig)
    _switch(parser, "--json", "print JSON")
    _switch(
        parser,
        "--meteor",
        "also compute METEOR (slow; needs Java and pycocoevalcap)",
    )
    _path(
        parser,
        "--save-results",
        "write scores, settings and versions to a JSON file",
        "F",
    )
    _path(
        parser,
        "--save-captions",
        "write the captions to a JSON file",
        "F",
    )


def _add_caption(commands) -> None:
    about = "caption photographs"
    example = (
        "captionlib caption holiday.jpg --model model --save-figure seen.png"
    )
    parser = _command(commands, "caption", about, example)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, in any format that Pillow reads",
    )
    _add_settings(parser, CaptionConfig)
    _switch(parser, "--json", "print JSON")
    _path(
        parser,
        "--save-figure",
        "draw where the model looked, to a file, or a folder for several "
        "images",
        "F",
    )


def _add_convert(commands) -> None:
    about = "convert a checkpoint of the original tutorial, without running its code"
    example = (
        "captionlib convert "
        "BEST_checkpoint_coco_5_cap_per_img_5_min_word_freq.pth.tar --word-map "
        "WORDMAP_coco_5_cap_per_img_5_min_word_freq.json --to model"
    )
    parser = _command(commands, "convert", about, example)
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint saved by its train.py",
    )
    _path(
        parser,
        "--word-map",
        "the word map of its training",
        "F",
        required=True,
    )
    _path(
        parser,
        "--to",
        "folder to write, for --model and --start-from",
        required=True,
    )


def _add_export(commands) -> None:
    about = "write a captioner as ONNX, to caption without PyTorch"
    example = (
        "captionlib export --to graphs\n  python graphs/caption.py holiday.jpg"
    )
    parser = _command(commands, "export", about, example)
    _add_settings(parser, ExportConfig)
    _path(
        parser,
        "--to",
        "folder to write: encoder.onnx, step.onnx, captioner.json, caption.py",
        required=True,
    )
