"""Train, select and store the shipped captioner: `python -m tools.captioner
--help`.

From Flickr8k's photographs to captionlib/assets/flickr8k, in one command that
can be interrupted and run again: train the recipe in
captionlib/assets/recipes/shipped.json, choose its stage and search settings on
the validation split, and score. Then train a second captioner from the first:
a new decoder on its encoder, then both further; and join the two. Only the
train split is trained on; only the validation split is used to choose.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from captionlib.beam_search import beam_search
from captionlib.config import DataConfig, SearchConfig
from captionlib.data import ImageDataset, load_references
from captionlib.engine import evaluate_split, train_recipe
from captionlib.engine.preparation import prepare_data
from captionlib.engine.recipes import read_recipe
from captionlib.io.files import ASSETS, read_json, write_json
from captionlib.io.prepared import find_base, image_file
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.model import CaptionEnsemble, CaptionModel

TO = ASSETS / "flickr8k"
# The model card, and the licence of the encoder.
BESIDE = ("README.md", "LICENSE-encoder")
SCORES = Path(__file__).parent.parent / "book" / "results" / "recipe"
RECIPE = "shipped"
STAGES = ("decoder", "encoder")  # what each stage of the recipe trains first
SECOND = (12, 6)  # epochs of the second captioner in these stages
SEARCHES = [
    SearchConfig(
        beam,
        max_words=30,
        length_normalisation=power,
        forbid_unk=True,
        no_repeat=n,
    )
    for beam, power, n in [
        (1, 0.0, 0),
        (3, 0.0, 0),
        (3, 0.7, 0),
        (5, 0.0, 0),
        (5, 0.7, 0),
    ]
    + [(3, 0.7, 3), (5, 0.7, 3), (5, 1.0, 3), (7, 0.7, 3), (7, 1.0, 3)]
]


@torch.inference_mode()
def write_captions(
    model: CaptionEnsemble | CaptionModel,
    grids: list[torch.Tensor],
    search: SearchConfig,
) -> list:
    """The words of each image's caption; `grids` are batches (B, h, w, D)."""
    return [
        model.vocabulary.decode(hypothesis.word_ids)
        for batch in grids
        for hypothesis in beam_search(
            model.decoder, batch, model.vocabulary, search
        )
    ]


def score_searches(folder: Path, data: Path, device: str) -> list[dict]:
    """Validation scores of the captioner in `folder` at each search setting."""
    model = CaptionModel.load(folder).to(device)
    _, references = load_references(data, "VAL")
    images = DataLoader(ImageDataset(image_file(data, "VAL")), batch_size=50)
    with torch.inference_mode():
        grids = [model.encode(batch.to(device)) for batch in images]
    rows = []
    for search in SEARCHES:
        scores = score(references, write_captions(model, grids, search))
        rows.append(asdict(search) | scores)
        print(folder.parent.name, json.dumps(rows[-1]), flush=True)
    return rows


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.captioner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--karpathy-json", required=True, metavar="F", help="Flickr8k's splits"
    )
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="folder of the images"
    )
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for intermediate files",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of weights, data order and views (0)",
    )
    parser.add_argument(
        "--first",
        type=Path,
        metavar="DIR",
        help="the first captioner (train it)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="where to train (cpu)"
    )
    parser.add_argument(
        "--ship", action="store_true", help="store the model in the package"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Do every step that is not done yet."""
    args = parse(argv)
    data, run = args.to / "data", args.to / f"seed{args.seed}"
    # Beside the seeds' folders, since all of them read it.
    if not data.exists():
        prepare_data(args.karpathy_json, args.images, data, DataConfig())
    first = args.first or train_first(args, data, run)
    second = train_second(args, data, first, args.seed + 1)
    model = CaptionEnsemble([CaptionModel.load(f) for f in (first, second)])
    model.metrics = CaptionModel.load(first).metrics
    model.metrics["second"] = {"seed": args.seed + 1, "epochs": SECOND}
    # Only the search is left to choose.
    joined = run / "joined" / "best"
    model.save(joined, "int8")
    rows = score_searches(joined, data, args.device)
    search, _ = best_search(rows)
    model.search = asdict(search)
    stored = {"scores": rows, "chosen": asdict(search), "versions": versions()}
    write_json(SCORES / "both.json", _about(data) | stored, indent=1)
    to = TO if args.ship else run / "model"
    keep(model, to)
    # The card states what `captionlib evaluate` reports for the shipped files.
    done = evaluate_split(args.karpathy_json, args.images, "val", model=str(to))
    write_json(run / "result.json", done.report(), indent=1)
    model.metrics["validation"] = done.scores | _about(data)
    keep(model, to)


def _about(data: Path) -> dict:
    images = len(load_references(data, "VAL")[0])
    return {"data": find_base(data), "split": "VAL", "images": images}


def best_search(rows: list[dict]) -> tuple[SearchConfig, dict]:
    """The search of `SEARCHES` with the best scores, and these."""
    # A percent of one score is worth a percent of the other.
    return max(
        zip(SEARCHES, rows, strict=True),
        key=lambda pair: pair[1]["bleu4"] * pair[1]["cider_d"],
    )


def train_first(args: argparse.Namespace, data: Path, run: Path) -> Path:
    """Train the recipe, choose its stage and search, and return its folder."""
    recipe = read_recipe(RECIPE)
    trained = train_recipe(
        RECIPE,
        to=run,
        data=str(data),
        seed=args.seed,
        device=args.device,
        resume=True,
    )
    stages, found = {}, {}
    for name, folder in zip(STAGES, trained.stages, strict=True):
        rows = score_searches(folder / "best", data, args.device)
        found[name] = best_search(rows)
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        seconds = sum(json.loads(line)["train_seconds"] for line in lines)
        stages[name] = {
            "scores": rows,
            "epochs": len(lines),
            "train_seconds": round(seconds),
        }
    products = {
        name: scores["bleu4"] * scores["cider_d"]
        for name, (_, scores) in found.items()
    }
    stage = max(products, key=products.get)
    best = {
        "product": products[stage],
        "stage": stage,
        "search": asdict(found[stage][0]),
    }
    stored = {"seed": args.seed, **_about(data), "stages": stages}
    write_json(
        SCORES / f"seed{args.seed}.json",
        stored | {"chosen": best, "versions": versions()},
        indent=1,
    )
    model = CaptionModel.load(trained.stages[STAGES.index(stage)] / "best")
    model.search = best["search"]
    model.metrics["recipe"] = {"seed": args.seed}
    for name, folder, settings in zip(
        STAGES, trained.stages, recipe.stages, strict=True
    ):
        used = read_json(folder / "last" / "training.json")["config"]
        model.metrics["recipe"][name] = settings | {"bf16": used["bf16"]}
    model.save(run / "first")
    return run / "first"


def train_second(
    args: argparse.Namespace, data: Path, first: Path, seed: int
) -> Path:
    """Train a second captioner from `first`, and return its folder.

    It differs by its decoder, which starts from other random numbers, and, in
    the end, by its encoder, which goes on learning with that decoder.
    """
    start = args.to / f"start{seed}"
    if not start.exists():
        given = CaptionModel.load(first)
        torch.manual_seed(seed)
        CaptionModel(given.config, given.vocabulary, given.encoder).save(start)
    recipe = read_recipe(RECIPE)
    for stage, epochs, frozen in zip(
        recipe.stages, SECOND, (True, False), strict=True
    ):
        trained = train_recipe(
            replace(
                recipe,
                stages=[stage | {"epochs": epochs}],
                last_stages=0 if frozen else recipe.last_stages,
            ),
            to=args.to / f"second{seed}" / ("decoder" if frozen else "both"),
            data=str(data),
            start_from=str(start),
            seed=seed,
            device=args.device,
            resume=True,
        )
        start = trained.best.parent
    return start


def keep(model: CaptionEnsemble | CaptionModel, folder: Path) -> None:
    """Save as int8; keep the hand-written card and licence."""
    written = {
        name: (folder / name).read_bytes()
        for name in BESIDE
        if (folder / name).exists()
    }
    model.save(folder, "int8")
    for name, content in written.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
