"""The recipe of the captioner that ships: `python -m tools.captioner --help`.

From Flickr8k's photographs to captionlib/assets/flickr8k, in one command that may be stopped and
given again: prepare, encode each image and its mirror image once, learn words by cross-entropy,
then whole captions by self-critical training, choose stage and search setting on the validation
split, and score. Only the train split teaches; only the validation split chooses.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from captionlib import cli
from captionlib.beam_search import SearchConfig, beam_search
from captionlib.data import find_base, image_file, load_references, prepare
from captionlib.decoder import CaptionModel, ModelConfig, versions
from captionlib.encoder import Encoder, FeatureDataset, cache_features
from captionlib.files import ASSETS, read_json, write_json
from captionlib.metrics import score
from captionlib.self_critical import SelfCritical
from captionlib.training import TrainConfig, make_loader, train

TO = ASSETS / "flickr8k"
CARD = "README.md"  # the model card
SCORES = Path(__file__).parent.parent / "book" / "results" / "recipe"
MODEL = ModelConfig(
    backbone="tf_efficientnet_lite2",
    image_size=288,
    feature_dim=512,
    attention_dim=256,
    embed_dim=256,
    decoder_dim=512,
    dropout=0.5,
    feature_dropout=0.3,
)
WORDS = {
    "epochs": 12,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "schedule": "one_cycle",
    "label_smoothing": 0.1,
    "weight_decay": 0.1,
    "averaging": 0.998,
    "bf16": True,
}
CAPTIONS = {
    "epochs": 6,
    "batch_size": 64,
    "learning_rate": 2e-4,
    "schedule": "one_cycle",
    "averaging": 0.99,
    "bf16": True,
}
SEARCHES = [
    SearchConfig(beam, max_words=30, length_normalisation=power, forbid_unk=True)
    for beam, power in [(1, 0.0), (3, 0.0), (3, 0.7), (5, 0.0), (5, 0.7), (5, 1.0)]
]


@torch.inference_mode()
def write_captions(model: CaptionModel, grids: torch.Tensor, search: SearchConfig) -> list:
    """The words that `model` finds for each image's grid (I, P, D)."""
    found = []
    for batch in grids.split(50):
        found += beam_search(model.decoder, model.encode(batch), model.vocabulary, search)
    return [model.vocabulary.decode(hypothesis.word_ids) for hypothesis in found]


def main(argv: list[str] | None = None) -> None:
    """Every stage that is not done yet."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.captioner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--karpathy-json", required=True, metavar="F", help="Flickr8k's splits")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="for all on the way")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, views, samples (0)")
    parser.add_argument("--ship", action="store_true", help="put the model into the package")
    args = parser.parse_args(argv)

    data, run = args.to / "data", args.to / f"seed{args.seed}"
    if not data.exists():
        prepare(args.karpathy_json, args.images, data)
    encoder = Encoder(MODEL.backbone, grid_size=MODEL.grid_size, image_size=MODEL.image_size)
    views = []
    for mirrored in (False, True):
        name = f"TRAIN_{'MIRRORED' if mirrored else 'FEATURES'}.hdf5"
        images = image_file(data, "TRAIN")
        view = cache_features(
            encoder, images, data / name, batch_size=16, bf16=True, mirrored=mirrored
        )
        views.append(torch.from_numpy(view[:]))  # in memory, 1.2 GB each: drawn in any order
    validation = cache_features(
        encoder, image_file(data, "VAL"), data / "VAL_FEATURES.hdf5", batch_size=16
    )
    grids = torch.from_numpy(validation[:])
    names, references = load_references(data, "VAL")
    about = {"data": find_base(data), "split": "VAL", "images": len(names)}

    def validator(search: SearchConfig):
        def evaluate(model: CaptionModel) -> dict:
            scores = score(references, write_captions(model, grids, search))
            print(f"BLEU-4 {scores['bleu4']:.2f}, CIDEr-D {scores['cider_d']:.2f}", flush=True)
            return scores | about | {"beam_size": search.beam_size}

        return evaluate

    dataset = FeatureDataset(data, "TRAIN", *views)
    words = TrainConfig(**WORDS, seed=args.seed)
    torch.manual_seed(args.seed)
    model = CaptionModel(MODEL, dataset.vocabulary, encoder)
    model.own_encoder = False  # unchanged, and in a package
    loader = make_loader(dataset, words)
    greedy = SearchConfig(1, max_words=30, forbid_unk=True)
    train(model, loader, validator(greedy), words, run / "words", resume=True)

    captions = TrainConfig(**CAPTIONS, seed=args.seed)
    model = CaptionModel.load(run / "words")
    objective = SelfCritical(dataset.captions, dataset.lengths, dataset.vocabulary)
    train(
        model,
        make_loader(dataset, captions),
        validator(SearchConfig(3, max_words=30, forbid_unk=True)),
        captions,
        run / "captions",
        resume=True,
        objective=objective,
    )

    stages, best = {}, {"total": -1.0}
    for stage in ("words", "captions"):
        model = CaptionModel.load(run / stage)
        rows = []
        for search in SEARCHES:
            scores = score(references, write_captions(model, grids, search))
            rows.append(asdict(search) | scores)
            print(stage, json.dumps(rows[-1]), flush=True)
            total = scores["bleu4"] + scores["cider_d"]
            if total > best["total"]:
                best = {"total": total, "stage": stage, "search": asdict(search)}
        log = (run / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
        seconds = sum(json.loads(row)["train_seconds"] for row in log)
        stages[stage] = {"scores": rows, "epochs": len(log), "train_seconds": round(seconds)}

    model = CaptionModel.load(run / best["stage"])
    model.search = best["search"]
    model.metrics["recipe"] = {"seed": args.seed, "words": WORDS, "captions": CAPTIONS}
    stored = {"seed": args.seed, **about, "stages": stages, "chosen": best}
    write_json(SCORES / f"seed{args.seed}.json", stored | {"versions": versions()}, indent=1)
    to = TO if args.ship else run / "model"
    keep(model, to)

    # What the card says is what `captionlib evaluate` says of the files as they are.
    evaluate = ["evaluate", "--karpathy-json", args.karpathy_json, "--images", args.images]
    where = ["--split", "val", "--model", str(to), "--save-results", str(run / "result.json")]
    if cli.main([*evaluate, *where]):
        raise SystemExit(1)
    model.metrics["validation"] = read_json(run / "result.json")["result"] | about
    keep(model, to)


def keep(model: CaptionModel, folder: Path) -> None:
    """Save in half precision; the model card, which people write, stays."""
    card = folder / CARD
    text = card.read_bytes() if card.exists() else None
    model.save(folder, half=True)
    if text is not None:
        card.write_bytes(text)


if __name__ == "__main__":
    main()
