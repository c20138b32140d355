"""The recipe of the captioner that ships: `python -m tools.captioner --help`.

From Flickr8k's photographs to captionlib/assets/flickr8k, in one command that may be stopped and
given again: prepare; take four views of each image through the encoder's first stages once; teach
the decoder alone, then the decoder with the encoder's last stages; choose stage and search setting
on the validation split; score. Only the train split teaches; only the validation split chooses.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import h5py
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from captionlib import cli
from captionlib.beam_search import beam_search
from captionlib.config import EngineConfig, ModelConfig, SearchConfig
from captionlib.data import find_base, image_file, load_references
from captionlib.encoder import Encoder
from captionlib.engine.batches import make_loader
from captionlib.engine.features import ViewDataset, cache_features
from captionlib.engine.fine_tuning import (
    HalfEncoded,
    first_stages,
    free_last_stages,
)
from captionlib.engine.loop import train
from captionlib.engine.preparation import prepare
from captionlib.engine.recipes import read_recipe
from captionlib.io.files import ASSETS, atomic_file, read_json, write_json
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.model import CaptionModel

TO = ASSETS / "flickr8k"
BESIDE = (
    "README.md",
    "LICENSE-encoder",
)  # the model card; whose work the encoder was
SCORES = Path(__file__).parent.parent / "book" / "results" / "recipe"
LAST = 3  # stages of the encoder that learn: two rows of blocks and the head, three quarters of it
RECIPE = read_recipe("flickr8k")
MODEL = ModelConfig(**RECIPE.model)
ENCODER = RECIPE.stages[0] | {
    "epochs": 10,
    "encoder_learning_rate": 5e-4,
    "averaging": 0.997,
}
STAGES = {"decoder": RECIPE.stages[0], "encoder": ENCODER}
CROPS = "TRAIN_CROPS.hdf5"
SEARCH = SearchConfig(
    5, max_words=30, length_normalisation=0.7, forbid_unk=True, no_repeat=3
)
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
    model: CaptionModel, grids: torch.Tensor, search: SearchConfig
) -> list:
    """The words that `model` finds for each image's grid (I, P, D)."""
    found, device = [], next(model.parameters()).device
    for batch in grids.split(50):
        encoder_out = model.encode(batch.to(device))
        found += beam_search(
            model.decoder, encoder_out, model.vocabulary, search
        )
    return [
        model.vocabulary.decode(hypothesis.word_ids) for hypothesis in found
    ]


def averaged(folder: Path) -> HalfEncoded:
    """A trained model with its weights' average, as it was when the training ended.

    Where the learning rate falls to nothing the end is the place to stop: no epoch is chosen.
    """
    model = HalfEncoded.load(folder / "last")
    weights = load_file(folder / "last" / "average.safetensors")
    del weights["updates"]
    model.load_state_dict(weights, strict=False)
    model.last = LAST
    return model


def write_crops(image_file: Path, to: Path, seed: int = 0) -> Path:
    """An HDF5 file like `image_file`, of images cropped at random, a side 84 to 97 % as long."""
    if to.exists():
        return to
    generator = torch.Generator().manual_seed(seed)
    with (
        h5py.File(image_file) as source,
        atomic_file(to) as path,
        h5py.File(path, "w") as file,
    ):
        images = source["images"]
        file.attrs.update(source.attrs)
        crops = file.create_dataset("images", images.shape, "uint8")
        for i, image in enumerate(map(torch.from_numpy, images)):
            share, top, left = torch.rand(3, generator=generator).tolist()
            side = int(image.shape[1] * (0.84 + 0.13 * share))
            top, left = (
                int(place * (image.shape[1] - side + 1))
                for place in (top, left)
            )
            crop = image[None, :, top : top + side, left : left + side].float()
            size = image.shape[1:]
            crops[i] = interpolate(
                crop, size, mode="bilinear", align_corners=False
            )[0].round()
    return to


def main(argv: list[str] | None = None) -> None:
    """Every stage that is not done yet."""
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
        help="for all on the way",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of weights, order, views, samples (0)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="where to train (cpu)"
    )
    parser.add_argument(
        "--ship", action="store_true", help="put the model into the package"
    )
    args = parser.parse_args(argv)

    device, data, run = (
        args.device,
        args.to / "data",
        args.to / f"seed{args.seed}",
    )
    if not data.exists():
        prepare(args.karpathy_json, args.images, data)
    encoder = Encoder(
        MODEL.backbone, grid_size=MODEL.grid_size, image_size=MODEL.image_size
    )
    first = first_stages(encoder, LAST)
    photographs = image_file(data, "TRAIN")
    views = []
    for kind, images in [
        ("", photographs),
        ("CROPS_", write_crops(photographs, data / CROPS)),
    ]:
        for mirrored in (False, True):
            to = (
                data / f"TRAIN_{kind}{'MIRRORED' if mirrored else 'PLAIN'}.hdf5"
            )
            view = cache_features(
                first,
                images,
                to,
                batch_size=16,
                device=device,
                bf16=True,
                mirrored=mirrored,
            )
            views.append(
                torch.from_numpy(view[:])
            )  # in memory, 0.5 GB each: drawn in any order
    validation = cache_features(
        first,
        image_file(data, "VAL"),
        data / "VAL.hdf5",
        batch_size=16,
        device=device,
    )
    grids = torch.from_numpy(validation[:])
    names, references = load_references(data, "VAL")
    about = {"data": find_base(data), "split": "VAL", "images": len(names)}

    def evaluate(model: CaptionModel) -> dict:
        scores = score(references, write_captions(model, grids, SEARCH))
        print(
            f"BLEU-4 {scores['bleu4']:.2f}, CIDEr-D {scores['cider_d']:.2f}",
            flush=True,
        )
        return scores | about | {"beam_size": SEARCH.beam_size}

    dataset = ViewDataset(data, "TRAIN", *views)
    for stage, settings in STAGES.items():
        config = EngineConfig(**settings, seed=args.seed)
        torch.manual_seed(args.seed)
        if stage == "decoder":
            model = HalfEncoded(MODEL, dataset.vocabulary, encoder)
            model.own_encoder = False  # unchanged so far, and in a package
        else:
            model = averaged(run / "decoder")
            free_last_stages(model, LAST)
        model.last = LAST
        loader = make_loader(dataset, config)
        train(
            model,
            loader,
            evaluate,
            config,
            run / stage,
            resume=True,
            device=device,
        )

    stages, best = {}, {"product": -1.0}
    for stage in STAGES:
        model = averaged(run / stage).to(device)
        rows = []
        for search in SEARCHES:
            scores = score(references, write_captions(model, grids, search))
            rows.append(asdict(search) | scores)
            print(stage, json.dumps(rows[-1]), flush=True)
            product = (
                scores["bleu4"] * scores["cider_d"]
            )  # a percent of one is worth one of the other
            if product > best["product"]:
                best = {
                    "product": product,
                    "stage": stage,
                    "search": asdict(search),
                }
        log = (
            (run / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
        )
        seconds = sum(json.loads(row)["train_seconds"] for row in log)
        stages[stage] = {
            "scores": rows,
            "epochs": len(log),
            "train_seconds": round(seconds),
        }

    model = averaged(run / best["stage"])
    model.search = best["search"]
    last = (
        (run / best["stage"] / "log.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()[-1]
    )
    model.metrics["training"] = {
        "seed": args.seed,
        **json.loads(last),
    }  # not of the best epoch
    model.metrics["recipe"] = {"seed": args.seed, **STAGES}
    stored = {"seed": args.seed, **about, "stages": stages, "chosen": best}
    write_json(
        SCORES / f"seed{args.seed}.json",
        stored | {"versions": versions()},
        indent=1,
    )
    to = TO if args.ship else run / "model"
    keep(model, to)

    # What the card says is what `captionlib evaluate` says of the files as they are.
    evaluate = [
        "evaluate",
        "--karpathy-json",
        args.karpathy_json,
        "--images",
        args.images,
    ]
    where = [
        "--split",
        "val",
        "--model",
        str(to),
        "--save-results",
        str(run / "result.json"),
    ]
    if cli.main([*evaluate, *where]):
        raise SystemExit(1)
    model.metrics["validation"] = (
        read_json(run / "result.json")["result"] | about
    )
    keep(model, to)


def keep(model: CaptionModel, folder: Path) -> None:
    """Save in half precision; the card and the licence, which people wrote, stay."""
    written = {
        name: (folder / name).read_bytes()
        for name in BESIDE
        if (folder / name).exists()
    }
    model.save(folder, half=True)
    for name, content in written.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
