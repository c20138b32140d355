"""The recipe of the shipped captioner runs from images to a model, and can be stopped between."""

import json

import pytest
import torch

from captionlib import Captioner
from captionlib.engine.recipes import RECIPES
from captionlib.toy.scenes import write_scenes
from tools import captioner

SMALL = {
    "image_size": 64,
    "feature_dim": 8,
    "attention_dim": 8,
    "embed_dim": 8,
    "decoder_dim": 8,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return write_scenes(folder, train=12, val=4, test=0), folder / "images"


def cook(monkeypatch, scenes, to, epochs):
    monkeypatch.setattr(captioner, "SECOND", (1, 1))
    recipe = json.loads(RECIPES["shipped"].read_text())
    small = {"epochs": epochs, "batch_size": 4, "bf16": False}
    recipe |= {
        "model": recipe["model"]
        | SMALL
        | {"backbone": "tf_efficientnet_lite0"},
        "stages": [stage | small for stage in recipe["stages"]],
    }
    (to / "shipped.json").write_text(json.dumps(recipe))
    monkeypatch.setitem(RECIPES, "shipped", to / "shipped.json")
    monkeypatch.setattr(captioner, "TO", to / "shipped")
    (to / "scores").mkdir(exist_ok=True)
    monkeypatch.setattr(captioner, "SCORES", to / "scores")
    where = [
        "--karpathy-json",
        str(scenes[0]),
        "--images",
        str(scenes[1]),
        "--to",
        str(to),
    ]
    captioner.main([*where, "--ship"])


def test_the_recipe_ends_in_a_captioner_and_keeps_its_card(
    monkeypatch, scenes, tmp_path
):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "README.md").write_text("the card")
    (tmp_path / "shipped" / "config.json").write_text("the last captioner's")
    cook(monkeypatch, scenes, tmp_path, epochs=1)
    shipped = tmp_path / "shipped"
    assert (shipped / "README.md").read_text() == "the card"
    model = Captioner.from_pretrained(shipped)
    assert model.caption(next(scenes[1].iterdir())).alphas.shape[1:] == (2, 2)
    stored = json.loads((shipped / "config.json").read_text())
    assert (
        stored["search"]["forbid_unk"]
        and stored["metrics"]["validation"]["images"] == 4
    )
    assert stored["metrics"]["recipe"]["seed"] == 0
    scores = json.loads((tmp_path / "scores" / "seed0.json").read_text())
    assert (
        scores["stages"].keys() == {"decoder", "encoder"}
        and scores["images"] == 4
    )
    rows = [
        row for stage in scores["stages"].values() for row in stage["scores"]
    ]
    assert scores["chosen"]["product"] == max(
        row["bleu4"] * row["cider_d"] for row in rows
    )
    both = json.loads((tmp_path / "scores" / "both.json").read_text())
    assert both["chosen"] == stored["search"]
    one, other = model.model.members
    assert len(model.model.encoders) == 2
    for part in ("encoder", "decoder"):
        pairs = zip(
            getattr(one, part).parameters(),
            getattr(other, part).parameters(),
            strict=True,
        )
        assert any(not torch.equal(*pair) for pair in pairs)

    # Given again, it trains nothing anew.
    logs = sorted(tmp_path.rglob("log.jsonl"))
    assert sorted(log.parent.name for log in logs) == [
        "both",
        "decoder",
        "seed0",
        "stage1",
    ]
    before = [log.stat().st_mtime_ns for log in logs]
    weights = (shipped / "model.safetensors").read_bytes()
    cook(monkeypatch, scenes, tmp_path, epochs=1)
    assert [log.stat().st_mtime_ns for log in logs] == before
    assert (shipped / "model.safetensors").read_bytes() == weights
