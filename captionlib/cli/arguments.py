"""What may follow `captionlib` on the command line: every option, its help and its default.

Written by hand, and without torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse

from captionlib import __version__
from captionlib.io.files import ASSETS, InputError, read_json

__all__ = [
    "MODEL_OPTIONS",
    "RECIPES",
    "SEARCH_OPTIONS",
    "SPLITS",
    "TRAIN_OPTIONS",
    "VIEW_OPTIONS",
    "given",
    "make_parser",
]

SPLITS = ("train", "val", "test")
RECIPES = dict(
    sorted((path.stem, path) for path in (ASSETS / "recipes").glob("*.json"))
)

# The fields of the configuration classes that can be set, with their defaults for the help: the
# classes themselves would cost an import of torch. A test holds the two equal.
MODEL_OPTIONS = {
    "backbone": (
        "tf_efficientnet_lite0",
        str,
        "encoder: resnet101, or a name that timm knows",
    ),
    "grid_size": (
        None,
        int,
        "stretch the encoder's grid to this many cells a side (its own)",
    ),
    "image_size": (
        None,
        int,
        "stretch images to this many pixels a side first (256)",
    ),
    "feature_dim": (
        None,
        int,
        "learn to shorten annotation vectors to this length (not)",
    ),
    "attention_dim": (512, int, "size of the attention layer"),
    "embed_dim": (512, int, "size of a word's vector"),
    "decoder_dim": (512, int, "size of the LSTM's state"),
    "dropout": (0.5, float, "on the state, before the vocabulary layer"),
    "feature_dropout": (0.0, float, "on the annotation vectors"),
}
TRAIN_OPTIONS = {
    "epochs": (120, int, "at most"),
    "batch_size": (32, int, "images a batch, each with all its captions"),
    "learning_rate": (4e-4, float, "Adam's, for the decoder"),
    "encoder_learning_rate": (
        1e-4,
        float,
        "Adam's, for an encoder that is fine-tuned",
    ),
    "schedule": ("plateau", str, "plateau or one_cycle"),
    "decay": (0.8, float, "plateau: factor on the rates"),
    "decay_after": (
        8,
        int,
        "plateau: epochs without a better BLEU-4 before a cut",
    ),
    "patience": (20, int, "epochs without a better BLEU-4 before the end"),
    "alpha_c": (1.0, float, "weight of doubly stochastic attention"),
    "label_smoothing": (
        0.0,
        float,
        "share of each target spread over the vocabulary",
    ),
    "weight_decay": (0.0, float, "AdamW's"),
    "averaging": (
        0.0,
        float,
        "judge and keep a running average of the weights, such as 0.998",
    ),
    "own_words": (
        0.0,
        float,
        "scheduled sampling: share of the model's own words fed at the end",
    ),
    "own_words_ramp": (
        "linear",
        str,
        "how that share climbs: or exponential, inverse_sigmoid",
    ),
    "max_grad_norm": (5.0, float, "clip gradients to this length"),
    "bf16": (False, None, "multiply in bfloat16: faster on many machines"),
    "compile": (
        False,
        None,
        "fuse operations by torch.compile, on a GPU: slow to begin",
    ),
    "fine_tune_encoder": (False, None, "train the encoder's later blocks too"),
    "seed": (0, int, "of weights, order and dropout"),
}
VIEW_OPTIONS = {
    "cache_features": (
        True,
        None,
        "encode images once, while the encoder is frozen (yes)",
    ),
    "mirrored": (
        False,
        None,
        "show half of the training images left and right exchanged",
    ),
}
SEARCH_OPTIONS = {
    "beam_size": (5, int, "hypotheses kept when the trained model captions"),
    "length_normalisation": (
        0.0,
        float,
        "exponent of the length that a score is divided by",
    ),
    "max_words": (50, int, "longest caption"),
    "min_words": (0, int, "shortest caption"),
    "forbid_unk": (False, None, "never say <unk>"),
    "no_repeat": (
        0,
        int,
        "never say a run of so many words twice; 0: repeat at will",
    ),
    "groups": (1, int, "diverse search: split the beam into so many"),
    "diversity": (
        0.5,
        float,
        "nats off a word for each earlier group that has just taken it",
    ),
    "sample": (
        False,
        None,
        "draw words instead of searching; wants --beam-size 1",
    ),
    "temperature": (1.0, float, "sampling: below 1 bolder, above 1 wilder"),
    "top_k": (0, int, "sampling: only from so many likeliest words; 0: all"),
    "top_p": (
        1.0,
        float,
        "sampling: only from the fewest words with this probability",
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of `captionlib`. A mistake raises `InputError`; what was not given is None."""
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
    ):
        add(commands)
    return parser


def given(args: argparse.Namespace, *names: str) -> dict:
    """Those of the options `names` that were given: the others keep their classes' defaults."""
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, and whose help keeps its example's lines."""

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
    parser.add_argument(flag, help=about, metavar=metavar, required=required)


def _count(
    parser, flag: str, about: str, low: int = 1, default: int | None = None
) -> None:
    parser.add_argument(
        flag, help=about, metavar="N", type=_at_least(low), default=default
    )


def _switch(parser, flag: str, about: str) -> None:
    parser.add_argument(flag, help=about, action="store_true")


def _either(parser, flag: str, about: str) -> None:
    """A switch of a configuration, with its --no- form: what is not given is None."""
    parser.add_argument(
        flag, help=about, action=argparse.BooleanOptionalAction, default=None
    )


def _at_least(low: int):
    """The type of an option that is a whole number from `low` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {low}, got {text!r}"
            )
        return value

    return whole_number


def _minutes(text: str) -> float:
    """The type of a time that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(
            f"expected a number of minutes, got {text!r}"
        )
    return value


def _add_scenes(commands) -> None:
    about = "draw the toy world: images, captions, and where every object is"
    example = "captionlib scenes --to toy --train 300 --val 50 --test 50"
    parser = _command(commands, "scenes", about, example)
    _path(parser, "--to", "folder to write", required=True)
    _count(parser, "--train", "training images (1500)", low=0)
    _count(parser, "--val", "validation images (200)", low=0)
    _count(parser, "--test", "test images (200)", low=0)
    parser.add_argument(
        "--seed",
        help="the same seed, the same scenes (0)",
        type=int,
        metavar="S",
    )


def _add_download(commands) -> None:
    about = "fetch a data set, check it and unpack it; stopped and called again, it goes on"
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
        "folder to write: Karpathy's JSON, the photographs",
        required=True,
    )
    about = "what was fetched by hand, under its own name; once for each file (none)"
    parser.add_argument(
        "--archive", help=about, metavar="F", action="append", default=[]
    )
    _switch(
        parser,
        "--keep-archives",
        "leave archives in downloads after they were unpacked",
    )


def _add_data_set(parser) -> None:
    _path(
        parser,
        "--karpathy-json",
        "the splits and the captions",
        "F",
        required=True,
    )
    _path(parser, "--images", "folder of the images", required=True)


def _add_prepare(commands) -> None:
    about = "turn a folder of images and Karpathy's JSON into the files that training reads"
    example = (
        "captionlib prepare --karpathy-json toy/dataset_scenes.json --images toy/images "
        "--to prepared"
    )
    parser = _command(commands, "prepare", about, example)
    _add_data_set(parser)
    _path(parser, "--to", "folder to write", required=True)
    _count(parser, "--captions-per-image", "captions stored per image (5)")
    _count(parser, "--min-word-freq", "rarer words become <unk> (5)")
    _count(parser, "--max-len", "longest training caption, in words (50)")
    parser.add_argument(
        "--seed", help="of the captions drawn (0)", type=int, metavar="S"
    )
    _switch(
        parser, "--skip-bad", "leave bad images and captions out, and list them"
    )
    _count(parser, "--workers", "processes that read images (one a core)")


def _add_train(commands) -> None:
    about = "train a captioner; the best so far is in DIR/best"
    example = "captionlib train --recipe toy --to model"
    parser = _command(commands, "train", about, example)
    names = ", ".join(RECIPES)
    _path(
        parser, "--recipe", f"settings and stages: {names}, or a JSON file", "R"
    )
    _path(
        parser,
        "--data",
        "folder that prepare wrote (what it prepares itself, in --to)",
    )
    _path(
        parser,
        "--karpathy-json",
        "to prepare: the splits and the captions",
        "F",
    )
    _path(parser, "--images", "to prepare: folder of the images")
    _path(
        parser, "--to", "folder to write: best, last, log, curve", required=True
    )
    _switch(parser, "--resume", "go on where --to stopped, with its settings")
    _path(
        parser,
        "--start-from",
        "begin with the weights of this captioner (none)",
    )
    _path(
        parser,
        "--features",
        "folder for the images that a frozen encoder encoded (--data)",
    )
    _count(
        parser,
        "--workers",
        "processes that load images for a learning encoder (0)",
        0,
        0,
    )
    _count(
        parser,
        "--validation-beam-size",
        "beam for choosing the best epoch (1: greedy)",
    )
    about = "within an epoch, write down where it stands after every so many minutes (15)"
    parser.add_argument(
        "--checkpoint-minutes",
        help=about,
        metavar="M",
        type=_minutes,
        default=15,
    )
    _add_device(parser)
    for title, options in (
        ("model", MODEL_OPTIONS),
        ("training, every stage of it", TRAIN_OPTIONS | VIEW_OPTIONS),
        ("search, stored with the model", SEARCH_OPTIONS),
    ):
        group = parser.add_argument_group(title)
        for name, (default, kind, about) in options.items():
            flag = "--" + name.replace("_", "-")
            if kind is None:
                _either(group, flag, about)
            else:
                about = about if default is None else f"{about} ({default})"
                group.add_argument(
                    flag, help=about, type=kind, metavar=kind.__name__.upper()
                )


def _add_device(parser) -> None:
    about = "cpu, cuda, mps (cuda if there is one, else cpu)"
    parser.add_argument("--device", help=about, metavar="D")


def _add_searching(parser) -> None:
    """The options that evaluate and caption share."""
    _path(
        parser,
        "--model",
        "a captioner: a folder that train wrote (the shipped one)",
    )
    _count(
        parser, "--beam-size", "hypotheses kept (what the model was saved with)"
    )
    _count(parser, "--batch-size", "images captioned at once (32)", default=32)
    _add_device(parser)
    _switch(parser, "--json", "print JSON")


def _add_evaluate(commands) -> None:
    about = "caption every image of a split once, and score the captions"
    example = (
        "captionlib evaluate --karpathy-json toy/dataset_scenes.json --images toy/images "
        "--split test --model model"
    )
    parser = _command(commands, "evaluate", about, example)
    _add_data_set(parser)
    parser.add_argument(
        "--split", help="train, val or test", required=True, choices=SPLITS
    )
    _add_searching(parser)
    _switch(
        parser,
        "--meteor",
        "score METEOR too (needs Java and pycocoevalcap, takes a while)",
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
        "write each image's words to a JSON file",
        "F",
    )


def _add_caption(commands) -> None:
    about = "say what is in photographs"
    example = (
        "captionlib caption holiday.jpg --model model --save-figure seen.png"
    )
    parser = _command(commands, "caption", about, example)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, any format"
    )
    _add_searching(parser)
    _path(
        parser,
        "--save-figure",
        "draw where it looked: a file, or for several a folder",
        "F",
    )


def _add_convert(commands) -> None:
    about = "make a captioner of a checkpoint of the original tutorial, running nothing in it"
    example = (
        "captionlib convert BEST_checkpoint_coco_5_cap_per_img_5_min_word_freq.pth.tar "
        "--word-map WORDMAP_coco_5_cap_per_img_5_min_word_freq.json --to model"
    )
    parser = _command(commands, "convert", about, example)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="what its train.py saved"
    )
    _path(
        parser,
        "--word-map",
        "the word map that it was trained with",
        "F",
        required=True,
    )
    _path(
        parser,
        "--to",
        "folder to write, for --model and --start-from",
        required=True,
    )
