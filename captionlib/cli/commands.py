"""The `captionlib` command: scenes, download, prepare, train, evaluate, caption and convert.

Written by hand. Exit status 0; 2 for bad input or usage, with one line on stderr that names the
file and the cure; 1 for anything else, with one line too (`CAPTIONLIB_DEBUG=1` adds the traceback);
130 after Ctrl-C. Torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from unicodedata import category

from captionlib.cli.arguments import (
    MODEL_OPTIONS,
    SEARCH_OPTIONS,
    TRAIN_OPTIONS,
    given,
    make_parser,
)
from captionlib.io.files import (
    BadItem,
    InputError,
    read_json,
    recover_folder,
    write_json,
)

__all__ = ["main"]

PLAIN = {
    "groups": 1,
    "sample": False,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}

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
            warnings.simplefilter(
                "ignore"
            )  # a library's warning is not the line about the file
        try:
            args = make_parser().parse_args(argv)
            status = _COMMANDS[args.command](args)
            if (
                sys.stdout is not None
            ):  # closed by the caller: `captionlib ... >&-`
                sys.stdout.flush()
            return status
        except InputError as error:
            _say(str(error))
            return 2
        except KeyboardInterrupt:
            _say("interrupted")
            return 130
        except (
            BrokenPipeError
        ):  # `captionlib caption *.jpg | head`: nobody is reading any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, _USERS_TO_MEND) and error.filename is not None:
                _say(
                    f"{error.filename}: {error.strerror}; check the path and its permissions"
                )
                return 2
            about = str(error).strip().split("\n")[0]
            hint = "" if debug else " (CAPTIONLIB_DEBUG=1 shows the traceback)"
            _say(
                f"{type(error).__name__}: {about}{hint}"
                if about
                else type(error).__name__ + hint
            )
            return 1


def _say(message: str) -> None:
    """One line on stderr, whatever a file is called."""
    line = "captionlib: " + _one_line(message)
    if sys.stderr is not None:
        print(
            line.encode(errors="backslashreplace").decode(errors="replace"),
            file=sys.stderr,
        )


def _one_line(text: str) -> str:
    """`text` with what would break the line, or command a terminal, written out: \\n, \\x1b."""
    return "".join(
        c.encode("unicode_escape").decode()
        if category(c) in ("Cc", "Zl", "Zp")
        else c
        for c in text
    )


def _bar() -> bool:
    """Whether long work shows its progress: only to a person at a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


# ----------------------------------------------------------------------------------------- scenes


def _scenes(args) -> int:
    from captionlib.toy.scenes import write_scenes

    wanted = given(args, "train", "val", "test", "seed")
    path = write_scenes(args.to, **wanted, progress=_bar())
    print(path)
    return 0


# --------------------------------------------------------------------------------------- download


def _download(args) -> int:
    from captionlib.datasets.download import download
    from captionlib.datasets.fetch import DownloadError

    options = {"keep_archives": args.keep_archives, "progress": _bar()}
    try:
        done = download(args.data_set, args.to, args.archive, **options)
    except (
        DownloadError
    ) as error:  # a server's fault: one line, but not the status of bad input
        _say(str(error))
        return 1
    for line in done.notes:
        _say(line)
    print(
        f"captionlib prepare --karpathy-json {done.karpathy_json} --images {done.images} --to ..."
    )
    return 0


# ---------------------------------------------------------------------------------------- prepare


def _prepare(args) -> int:
    settings = given(
        args, "captions_per_image", "min_word_freq", "max_len", "seed"
    )
    options = given(args, "skip_bad", "workers")
    _prepare_data(
        (args.karpathy_json, args.images), args.to, settings, **options
    )
    return 0


def _prepare_data(
    source: tuple, to: str | Path, settings: dict, **options
) -> None:
    """Prepare a Karpathy JSON and its images; `settings` are those of `DataConfig`."""
    from captionlib.config import DataConfig
    from captionlib.engine.preparation import prepare

    settings = {
        name: value for name, value in settings.items() if name != "dataset"
    }
    try:
        config = DataConfig(**settings)
    except ValueError as error:
        raise InputError(
            f"{error}; captionlib prepare --help lists the options"
        ) from None
    try:
        done = prepare(*source, to, config, **options, progress=_bar())
    except BadItem as error:
        raise InputError(
            f"{error}; captionlib prepare --skip-bad does without it"
        ) from None
    for line in done.skipped:
        _say(f"skipped {line}")
    print(Path(to) / done.base)


# ------------------------------------------------------------------------------------------ train


def _train(args) -> int:
    from captionlib.engine.processes import Processes

    processes = Processes.join(args.device)
    with (
        processes.main_first()
    ):  # what it has drawn and prepared, the others find
        recipe, runs, begun = _planned(args)
        data = _training_data(args, recipe, begun)
    for run in runs:
        if run is runs[-1] or not _is_finished(Path(run.to)):
            _train_stage(Namespace(**vars(run) | {"data": data}), processes)
    return 0


def _planned(args) -> tuple:
    """The recipe, the options of each stage, and whether one has begun; mistakes are said now."""
    from captionlib.config import DecodingConfig, EngineConfig, ModelConfig
    from captionlib.engine.recipes import find_recipe

    recipe = find_recipe(args)
    runs = recipe.runs(args)
    begun = False
    for (
        run
    ) in runs:  # what would stop a later stage is said now, and not after hours
        stored = _stored_run(Path(run.to), run.resume)
        begun = begun or bool(stored)
        _configure(EngineConfig, stored, run, TRAIN_OPTIONS)
        _configure(DecodingConfig, stored, run, SEARCH_OPTIONS)
        _configure(ModelConfig, stored, run, MODEL_OPTIONS)
    return recipe, runs, begun


def _training_data(args, recipe, begun: bool) -> str | Path:
    """The prepared data: those that were named, those of before, or those prepared now.

    Before the work the recipe is put into `--to`: killed at any moment, it is not forgotten.
    """
    from captionlib.data import find_base
    from captionlib.toy.scenes import write_scenes

    to, source = Path(args.to) / "data", (args.karpathy_json, args.images)
    if args.data is not None:
        if any(source):
            raise InputError(
                f"{args.data}: is prepared; leave out --karpathy-json and --images"
            )
        find_base(args.data)  # is it?
    there = args.data is not None or any(to.glob("WORDMAP_*.json"))
    drawn = recipe.scenes and not any(source)
    if not there and not drawn and None in source:
        name = recipe.data.get("dataset")
        if name and not recipe.scenes:
            raise InputError(
                f"--recipe {recipe.name}: wants the photographs of {name}; fetch them with "
                f"captionlib download {name} --to DIR, then give --karpathy-json and --images"
            )
        raise InputError(
            "--data: give it, or --karpathy-json and --images, or --recipe toy, which draws its own"
        )
    if not begun:
        recipe.keep(args.to)
    if there:
        return args.data or to
    if drawn:
        json_path = write_scenes(
            Path(args.to) / "scenes", **recipe.scenes, progress=_bar()
        )
        source = json_path, json_path.parent / "images"
    _prepare_data(source, to, recipe.data)
    return to


def _is_finished(folder: Path) -> bool:
    """Whether the training in `folder` has nothing left to do."""
    from captionlib.config import EngineConfig
    from captionlib.training import is_over

    if not _stored_run(folder, resume=True):
        return False
    training = read_json(folder / "last" / "training.json")
    return is_over(EngineConfig(**training["config"]), training["history"])


def _train_stage(args, processes) -> None:
    import torch

    from captionlib.config import DecodingConfig, EngineConfig, ModelConfig
    from captionlib.data import (
        CaptionDataset,
        find_base,
        load_references,
    )
    from captionlib.engine.batches import make_loader
    from captionlib.engine.features import ViewDataset
    from captionlib.engine.loop import train
    from captionlib.engine.objectives import teacher_forcing
    from captionlib.engine.scheduled_sampling import scheduled_sampling
    from captionlib.model import CaptionModel

    folder = Path(args.to)
    stored = _stored_run(folder, args.resume)
    config = _configure(EngineConfig, stored, args, TRAIN_OPTIONS)
    search = _configure(DecodingConfig, stored, args, SEARCH_OPTIONS)
    about = {"data": find_base(args.data), "split": "VAL"}
    about["beam_size"] = args.validation_beam_size
    device = processes.device or _device(args.device)
    vocabulary = CaptionDataset(args.data, "TRAIN").vocabulary
    _, references = load_references(args.data, "VAL")
    if not references:
        raise InputError(
            f"{args.data}: has no validation images, by which the best epoch is chosen"
        )

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    shape = _configure(ModelConfig, stored, args, MODEL_OPTIONS)
    if stored:
        model = CaptionModel.load(folder / "last")
        if shape != model.config:
            raise InputError(
                f"{folder}: has a model of another shape; resume with its own"
            )
    elif args.start_from is not None:
        model = _start_from(args, vocabulary)
    else:
        model = CaptionModel(shape, vocabulary)
    model.search = asdict(search)
    encoded = partial(_images_or_features, args, model, config, device)
    with processes.main_first():  # one encodes, and the others read its files
        views = [
            encoded("TRAIN", mirrored=side)
            for side in (False, True)[: 1 + args.mirrored]
        ]
        validation = encoded("VAL")
    loader = make_loader(
        ViewDataset(args.data, "TRAIN", *views),
        config,
        num_workers=args.workers,
        processes=processes,
    )
    # Plainly searched, so that epochs differ by the model alone and any beam will do.
    validation_search = replace(
        search, **PLAIN | {"beam_size": about["beam_size"]}
    )
    evaluate = _validator(
        validation, references, validation_search, about, device, processes
    )
    history = train(
        model,
        loader,
        evaluate,
        config,
        folder,
        resume=args.resume,
        objective=scheduled_sampling if config.own_words else teacher_forcing,
        processes=processes,
        checkpoint_minutes=args.checkpoint_minutes,
        device=device,
        progress=_bar() and processes.is_main,
    )
    best = max(history, key=lambda epoch: epoch["bleu4"])
    if processes.is_main:
        print(
            f"{folder / 'best'}: epoch {best['epoch']}, BLEU-4 {best['bleu4']:.2f}"
        )


def _configure(kind: type, stored: dict, args, options: dict):
    """A configuration: its defaults, then what a stored run had, then what was asked for."""
    try:
        return kind(**(stored.get(kind.__name__, {}) | given(args, *options)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{error}; captionlib train --help lists the options"
        ) from None


def _stored_run(folder: Path, resume: bool) -> dict:
    """The settings of the training in `folder`, {} where there is none yet."""
    last = folder / "last"
    recover_folder(last)
    if not last.exists():
        return {}
    if not resume:
        raise InputError(
            f"{folder}: holds a training already; --resume it or name another folder"
        )
    model, training = (
        read_json(last / "config.json"),
        read_json(last / "training.json"),
    )
    try:
        return {
            "ModelConfig": model["model"],
            "DecodingConfig": model["search"],
            "EngineConfig": training["config"],
        }
    except (KeyError, TypeError):
        raise InputError(
            f"{last}: is no training of ours; train into another folder"
        ) from None


def _start_from(args, vocabulary):
    from captionlib.model import CaptionModel

    if shape := given(args, *MODEL_OPTIONS):
        names = ", ".join("--" + name.replace("_", "-") for name in shape)
        raise InputError(
            f"{names}: the model of --start-from has its shape; leave this out"
        )
    model = CaptionModel.load(args.start_from)
    if model.vocabulary.word_map != vocabulary.word_map:
        raise InputError(
            f"{args.start_from}: has other words than {args.data}; use its own data"
        )
    return model


def _images_or_features(
    args, model, config, device, split: str, *, mirrored: bool = False
):
    """A split's images, one at a time: as pixels if the encoder learns, else encoded beforehand."""
    from captionlib.data import ImageDataset, image_file
    from captionlib.engine.features import Mirrored, cache_features

    images = image_file(args.data, split)
    if config.fine_tune_encoder or args.cache_features is False:
        return (
            Mirrored(ImageDataset(images))
            if mirrored
            else ImageDataset(images)
        )
    encoder = model.encoder
    kind = "MIRRORED" if mirrored else "FEATURES"
    name = (
        f"{split}_{kind}_{encoder.backbone}_{encoder.grid_size or 'own'}.hdf5"
    )
    to = Path(args.features or args.data) / name.replace("/", "_")
    about = {
        "device": device,
        "bf16": config.bf16,
        "mirrored": mirrored,
        "progress": _bar(),
    }
    return cache_features(
        encoder, images, to, **about, say=partial(print, flush=True)
    )


def _validator(
    images, references: list, search, about: dict, device, processes
):
    """What scores a model after each epoch: captions it writes freely for the validation images."""
    import torch

    from captionlib.beam_search import beam_search
    from captionlib.metrics import score

    @torch.inference_mode()
    def evaluate(model) -> dict:
        hypotheses = []
        mine = processes.share(range(len(images)))
        for numbers in _batches(
            mine, 32, unit="validation images", quiet=not processes.is_main
        ):
            batch = torch.stack(
                [torch.as_tensor(images[i]) for i in numbers]
            ).to(device)
            found = beam_search(
                model.decoder, model.encode(batch), model.vocabulary, search
            )
            hypotheses += [
                model.vocabulary.decode(best.word_ids) for best in found
            ]
        scores = score(references, processes.gather(hypotheses))
        if processes.is_main:
            print(
                f"BLEU-4 {scores['bleu4']:.2f}, CIDEr-D {scores['cider_d']:.2f}",
                flush=True,
            )
        return scores | about | {"images": len(images)}

    return evaluate


# ----------------------------------------------------------------------------- evaluate and caption


def _captioner(args):
    from captionlib.captioner import Captioner

    captioner = Captioner.from_pretrained(args.model)
    if args.beam_size is not None:
        try:
            replace(captioner.search, beam_size=args.beam_size)
        except ValueError as error:
            raise InputError(
                f"--beam-size {args.beam_size}: not with this model; {error}"
            ) from None
    captioner.model.to(_device(args.device))
    return captioner


def _device(name: str | None):
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"--device {name}: torch can't use it here; give cpu"
        ) from None
    return torch.device(name)


def _batches(
    items: Sequence, size: int, *, unit: str, quiet: bool = False
) -> Iterator[Sequence]:
    """`items` in runs of `size`, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    with tqdm(
        total=len(items), unit=f" {unit}", disable=quiet or not _bar()
    ) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))


def _evaluate(args) -> int:
    from captionlib.io.karpathy import read_karpathy
    from captionlib.metrics import score
    from captionlib.scoring.bootstrap import intervals
    from captionlib.scoring.meteor import meteor_command

    for path in (args.save_results, args.save_captions):
        if path is not None and Path(path).is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
    if args.meteor:
        meteor_command()  # is it there? Said now, and not after an hour of captions
    records = read_karpathy(args.karpathy_json, args.images, args.split)
    captioner = _captioner(args)
    hypotheses = []
    for batch in _batches(records, args.batch_size, unit="images"):
        captions = captioner.caption_batch(
            [r.path for r in batch], args.beam_size, len(batch)
        )
        hypotheses += [caption.words for caption in captions]
    references = [
        [list(caption) for caption in record.captions] for record in records
    ]
    result = {
        **score(references, hypotheses),
        "images": len(records),
        "intervals": intervals(references, hypotheses),
    }
    if args.meteor:
        result["meteor"], result["intervals"]["meteor"] = _meteor(
            references, hypotheses
        )
    if args.save_captions is not None:
        names = [record.filename for record in records]
        write_json(
            args.save_captions,
            dict(zip(names, hypotheses, strict=True)),
            indent=1,
        )
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


def _meteor(references: list, hypotheses: list) -> tuple[float, list[float]]:
    """METEOR and its interval, from one run of its program."""
    from captionlib.scoring.bootstrap import percentile_interval, resampled_sums
    from captionlib.scoring.meteor import meteor_of, meteor_statistics

    statistics = meteor_statistics(references, hypotheses)
    bounds = percentile_interval(meteor_of(resampled_sums(statistics)))
    return float(meteor_of(statistics.sum(axis=0))), bounds.tolist()


def _save_results(args, captioner, dataset: str, result: dict) -> None:
    """A result that can be traced: what was measured, on what, with what."""
    from captionlib.io.versions import versions

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


def _caption(args) -> int:
    from captionlib.io.images import read_image

    figures = _figure_paths(args.save_figure, args.images)
    captioner = _captioner(args)
    status = 0
    for batch in _batches(
        list(enumerate(args.images)), args.batch_size, unit="images"
    ):
        good, pixels = [], []
        for number, path in batch:
            try:
                pixels.append(read_image(path))
                good.append(number)
            except InputError as error:
                _say(str(error))
                status = 2
        captions = captioner.caption_batch(
            pixels, args.beam_size, args.batch_size
        )
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
        line = (
            caption.text if len(args.images) == 1 else f"{path}: {caption.text}"
        )
    print(_printable(line), flush=True)


def _figure_paths(to: str | None, images: Sequence[str]) -> list[Path]:
    """Where each image's figure goes, settled before any work: one file, or names in a folder."""
    if to is None:
        return []
    target = Path(to)
    if len(images) == 1:
        if target.is_dir():
            raise InputError(
                f"{to}: is a folder; for one image name a file, such as seen.png"
            )
        return [target]
    if target.exists() and not target.is_dir():
        raise InputError(f"{to}: is a file; for several images name a folder")
    paths, taken = [], set()
    for image in images:
        stem, copy = Path(image).stem, 1
        name = stem
        while (
            name.casefold() in taken
        ):  # photographs of two folders may share a name
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
    return (
        _one_line(line)
        .encode(encoding, errors="backslashreplace")
        .decode(encoding)
    )


# ----------------------------------------------------------------------------------------- convert


def _convert(args) -> int:
    from captionlib.original.convert import convert

    model = convert(args.checkpoint, args.word_map, args.to)
    print(
        f"{args.to}: {model.config.backbone} and {len(model.vocabulary)} words"
    )
    return 0


_COMMANDS = {
    "scenes": _scenes,
    "download": _download,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "caption": _caption,
    "convert": _convert,
}
