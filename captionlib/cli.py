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
from dataclasses import asdict, replace
from pathlib import Path

from captionlib.files import InputError, read_json, recover_folder, write_json

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
            if sys.stdout is not None:  # closed by the caller: `captionlib ... >&-`
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
    if sys.stderr is not None:
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
    return sys.stderr is not None and sys.stderr.isatty()


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

    config = DataConfig(**_given(args, "captions_per_image", "min_word_freq", "max_len", "seed"))
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


# ------------------------------------------------------------------------------------------ train

# The fields of the configuration classes that can be set, with their defaults for the help: the
# classes themselves would cost an import of torch. A test holds the two equal.
_MODEL_OPTIONS = {
    "backbone": ("tf_efficientnet_lite0", str, "encoder: resnet101, or a name that timm knows"),
    "grid_size": (None, int, "stretch the encoder's grid to this many cells a side (its own)"),
    "attention_dim": (512, int, "size of the attention layer"),
    "embed_dim": (512, int, "size of a word's vector"),
    "decoder_dim": (512, int, "size of the LSTM's state"),
    "dropout": (0.5, float, "on the state, before the vocabulary layer"),
    "feature_dropout": (0.0, float, "on the annotation vectors"),
}
_TRAIN_OPTIONS = {
    "epochs": (120, int, "at most"),
    "batch_size": (32, int, "images a batch, each with all its captions"),
    "learning_rate": (4e-4, float, "Adam's, for the decoder"),
    "encoder_learning_rate": (1e-4, float, "Adam's, for an encoder that is fine-tuned"),
    "schedule": ("plateau", str, "plateau or one_cycle"),
    "decay": (0.8, float, "plateau: factor on the rates"),
    "decay_after": (8, int, "plateau: epochs without a better BLEU-4 before a cut"),
    "patience": (20, int, "epochs without a better BLEU-4 before the end"),
    "alpha_c": (1.0, float, "weight of doubly stochastic attention"),
    "label_smoothing": (0.0, float, "share of each target spread over the vocabulary"),
    "max_grad_norm": (5.0, float, "clip gradients to this length"),
    "bf16": (False, None, "multiply in bfloat16: faster on many machines"),
    "fine_tune_encoder": (False, None, "train the encoder's later blocks too"),
    "seed": (0, int, "of weights, order and dropout"),
}
_SEARCH_OPTIONS = {
    "beam_size": (5, int, "hypotheses kept when the trained model captions"),
    "length_normalisation": (0.0, float, "exponent of the length that a score is divided by"),
    "max_words": (50, int, "longest caption"),
}


def _add_train(commands) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "train a captioner on prepared data; the best so far is in DIR/best",
        "captionlib train --data prepared --to model --epochs 10 --schedule one_cycle",
    )
    _option(parser, "--data", "folder that prepare wrote", required=True, metavar="DIR")
    _option(parser, "--to", "folder to write: best, last, log, curve", required=True, metavar="DIR")
    _option(
        parser,
        "--resume",
        "go on where --to stopped, with its settings",
        action="store_true",
        default=False,
    )
    _option(
        parser,
        "--start-from",
        "begin with the weights of this captioner (none)",
        default=None,
        metavar="DIR",
    )
    _option(
        parser,
        "--features",
        "folder for the encoded images of a frozen encoder (--data)",
        default=None,
        metavar="DIR",
    )
    _option(
        parser,
        "--workers",
        "processes that load images when the encoder is trained (0)",
        default=0,
        type=_at_least(0),
        metavar="N",
    )
    _option(
        parser,
        "--device",
        "cpu, cuda, mps (cuda if there is one, else cpu)",
        default=None,
        metavar="D",
    )
    _option(
        parser,
        "--validation-beam-size",
        "beam for choosing the best epoch (1: greedy)",
        type=_at_least(1),
        metavar="N",
    )
    for title, options in (
        ("model", _MODEL_OPTIONS),
        ("training", _TRAIN_OPTIONS),
        ("search, stored with the model", _SEARCH_OPTIONS),
    ):
        group = parser.add_argument_group(title)
        for name, (default, kind, about) in options.items():
            flag = "--" + name.replace("_", "-")
            if kind is None:
                _option(group, flag, about, action="store_true")
            else:
                about = about if default is None else f"{about} ({default})"
                _option(group, flag, about, type=kind, metavar=kind.__name__.upper())


def _train(args) -> int:
    import torch

    from captionlib.beam_search import SearchConfig
    from captionlib.data import CaptionDataset, find_base, image_file, load_references
    from captionlib.decoder import CaptionModel, ModelConfig
    from captionlib.encoder import FeatureDataset
    from captionlib.training import TrainConfig, make_loader, train

    folder = Path(args.to)
    stored = _stored_run(folder)
    if stored and not args.resume:  # said now, and not after an hour of encoding
        raise InputError(f"{folder}: holds a training already; --resume it or name another folder")
    config = _configure(TrainConfig, stored, args, _TRAIN_OPTIONS)
    search = _configure(SearchConfig, stored, args, _SEARCH_OPTIONS)
    about = {"data": find_base(args.data), "split": "VAL"} | stored.get("validation", {})
    about |= {"beam_size": getattr(args, "validation_beam_size", about.get("beam_size", 1))}
    device = _device(args.device)
    vocabulary = CaptionDataset(args.data, "TRAIN").vocabulary
    _, references = load_references(args.data, "VAL")
    if not references:
        raise InputError(
            f"{args.data}: has no validation images, by which the best epoch is chosen"
        )

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    shape = _configure(ModelConfig, stored, args, _MODEL_OPTIONS)
    if stored:
        model = CaptionModel.load(folder / "last")
        if shape != model.config:
            raise InputError(f"{folder}: has a model of another shape; resume with its own")
    elif args.start_from is not None:
        model = _start_from(args, vocabulary)
    else:
        model = CaptionModel(shape, vocabulary)
    model.search = asdict(search)
    grids = {
        split: _images_or_features(args, model, split, config, device) for split in ("TRAIN", "VAL")
    }
    loader = make_loader(
        FeatureDataset(args.data, "TRAIN", grids["TRAIN"]), config, num_workers=args.workers
    )
    validation_search = replace(search, beam_size=about["beam_size"])
    evaluate = _validator(grids["VAL"], references, validation_search, about, device)
    history = train(
        model, loader, evaluate, config, folder, resume=args.resume, device=device, progress=_bar()
    )
    best = max(history, key=lambda epoch: epoch["bleu4"])
    print(f"{folder / 'best'}: epoch {best['epoch']}, BLEU-4 {best['bleu4']:.2f}")
    return 0


def _configure(kind: type, stored: dict, args, options: dict):
    """A configuration: its defaults, then what a stored run had, then what was asked for."""
    try:
        return kind(**(stored.get(kind.__name__, {}) | _given(args, *options)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{error}; captionlib train --help lists the options") from None


def _stored_run(folder: Path) -> dict:
    """The settings of the training in `folder`, {} where there is none yet."""
    last = folder / "last"
    recover_folder(last)
    if not last.exists():
        return {}
    model, training = read_json(last / "config.json"), read_json(last / "training.json")
    try:
        validation = {key: training["history"][-1][key] for key in ("data", "split", "beam_size")}
        return {
            "ModelConfig": model["model"],
            "SearchConfig": model["search"],
            "TrainConfig": training["config"],
            "validation": validation,
        }
    except (KeyError, IndexError, TypeError):
        raise InputError(f"{last}: is no training of ours; train into another folder") from None


def _start_from(args, vocabulary):
    from captionlib.decoder import CaptionModel

    if shape := _given(args, *_MODEL_OPTIONS):
        names = ", ".join("--" + name.replace("_", "-") for name in shape)
        raise InputError(f"{names}: the model of --start-from has its shape; leave this out")
    model = CaptionModel.load(args.start_from)
    if model.vocabulary.word_map != vocabulary.word_map:
        raise InputError(f"{args.start_from}: has other words than {args.data}; use its own data")
    return model


def _images_or_features(args, model, split: str, config, device):
    """A split's images, one at a time: as pixels if the encoder learns, else encoded beforehand."""
    from captionlib.data import ImageDataset, image_file
    from captionlib.encoder import cache_features

    images = image_file(args.data, split)
    if config.fine_tune_encoder:
        return ImageDataset(images)
    encoder = model.encoder
    name = f"{split}_FEATURES_{encoder.backbone}_{encoder.grid_size or 'own'}.hdf5"
    to = Path(args.features or args.data) / name.replace("/", "_")
    return cache_features(encoder, images, to, device=device, bf16=config.bf16, progress=_bar())


def _validator(images, references: list, search, about: dict, device):
    """What scores a model after each epoch: captions it writes freely for the validation images."""
    import torch

    from captionlib.beam_search import beam_search
    from captionlib.metrics import score

    @torch.inference_mode()
    def evaluate(model) -> dict:
        hypotheses = []
        for numbers in _batches(range(len(images)), 32, unit="validation images"):
            batch = torch.stack([torch.as_tensor(images[i]) for i in numbers]).to(device)
            found = beam_search(model.decoder, model.encode(batch), model.vocabulary, search)
            hypotheses += [model.vocabulary.decode(best.word_ids) for best in found]
        scores = score(references, hypotheses)
        print(f"BLEU-4 {scores['bleu4']:.2f}, CIDEr-D {scores['cider_d']:.2f}", flush=True)
        return scores | about | {"images": len(images)}

    return evaluate


# ----------------------------------------------------------------------------- evaluate and caption


def _add_searching(parser) -> None:
    """The options that evaluate and caption share."""
    _option(
        parser,
        "--model",
        "a captioner: a folder that train wrote (the shipped one)",
        default=None,
        metavar="DIR",
    )
    _option(
        parser,
        "--beam-size",
        "hypotheses kept (what the model was saved with)",
        default=None,
        type=_at_least(1),
        metavar="N",
    )
    _option(
        parser,
        "--batch-size",
        "images captioned at once (32)",
        default=32,
        type=_at_least(1),
        metavar="N",
    )
    _option(
        parser,
        "--device",
        "cpu, cuda, mps (cuda if there is one, else cpu)",
        default=None,
        metavar="D",
    )
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
    _option(
        parser,
        "--save-results",
        "write scores, settings and versions to a JSON file",
        default=None,
        metavar="F",
    )
    _option(
        parser,
        "--save-captions",
        "write each image's words to a JSON file",
        default=None,
        metavar="F",
    )


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
            print(
                f"{name:<8} {result[name]:6.2f}   95 % interval {value[0]:6.2f} to {value[1]:6.2f}"
            )
        print(f"{'images':<8} {result['images']:6d}")
    return 0


def _save_results(args, captioner, dataset: str, result: dict) -> None:
    """A result that can be traced: what was measured, on what, with what."""
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
    _option(
        parser,
        "--save-figure",
        "draw where it looked: a file for one image, else a folder",
        default=None,
        metavar="F",
    )


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
