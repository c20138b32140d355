"""The small drawn world, and how its trainings are compared."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from captionlib.config import ModelConfig
from captionlib.io.files import read_json, write_json
from captionlib.io.images import read_image
from captionlib.toy.scenes import write_scenes
from captionlib.toy.world import (
    CONFIG,
    draw_world,
    new_model,
    train_on,
    yardsticks,
)
from captionlib.training import epoch_loader, make_optimizer, train_one_epoch
from tools import comparisons
from tools.comparisons import table_of
from tools.experiments import _toy
from tools.experiments._toy import paired, run_once, summary

SMALL = ModelConfig(attention_dim=8, embed_dim=8, decoder_dim=8, dropout=0.5)


@pytest.fixture(scope="module")
def world():
    return draw_world(train=12, val=2, test=4)


def test_its_scenes_are_those_that_are_written_as_files(world, tmp_path):
    write_scenes(tmp_path, train=12, val=2, test=4)
    images = read_json(tmp_path / "dataset_scenes.json")["images"]
    sheet = read_json(tmp_path / "objects_scenes.json")
    test = [image for image in images if image["split"] == "test"]
    for i, image in enumerate(test):
        pixels = read_image(tmp_path / "images" / image["filename"])
        assert np.array_equal(pixels, world.test.pixels[i].numpy())
        told = [sentence["tokens"] for sentence in image["sentences"]]
        assert told == world.test.captions[i]
        boxes = [thing["box"] for thing in sheet[image["filename"]]]
        assert boxes == [list(t["box"]) for t in world.test.things[i]]


def test_its_loop_is_chapter_05s(world):
    config = replace(CONFIG, epochs=2, batch_size=5)
    ours, theirs = (new_model(world, 3, SMALL) for _ in range(2))
    train_on(world, ours, config)
    optimizer, history = make_optimizer(theirs, config), []
    for epoch in range(2):
        loader = epoch_loader(world.pairs(), config, epoch)
        train_one_epoch(theirs, loader, optimizer, config, history)
        history.append({"bleu4": 0.0})
    for name, weight in theirs.decoder.state_dict().items():
        torch.testing.assert_close(ours.decoder.state_dict()[name], weight)


def test_yardsticks_are_finite_and_an_even_map_has_the_boxes_share(world):
    model = new_model(world, 3, SMALL)
    torch.nn.init.zeros_(model.decoder.attention.full_att.weight)
    found = yardsticks(model, world.test, beam_size=1)
    assert all(map(math.isfinite, found.values()))
    assert found["correctness"] == pytest.approx(found["before"], abs=0.05)
    assert 0 < found["correctness"] < 0.3


def test_a_paired_interval_is_students():
    found = paired([2.0, 3.0, 5.0], [1.0, 1.0, 1.0])
    assert found["mean"] == pytest.approx(7 / 3)
    half = 4.302653 * math.sqrt(7 / 3 / 3)
    assert found["low"] == pytest.approx(7 / 3 - half, abs=1e-3)
    assert found["high"] == pytest.approx(7 / 3 + half, abs=1e-3)


def test_a_summary_pairs_rows_with_the_baseline_by_seed():
    runs = {
        "all": [{"seed": 1, "bleu4": 1.0}, {"seed": 2, "bleu4": 5.0}],
        "less": [{"seed": 1, "bleu4": 0.0}, {"seed": 2, "bleu4": 4.0}],
    }
    found = summary(runs, "all")
    assert found["less"]["bleu4"]["gap"]["low"] == pytest.approx(-1)
    assert found["less"]["bleu4"]["gap"]["high"] == pytest.approx(-1)
    assert "gap" not in found["all"]["bleu4"]


def test_costs_are_multiples_of_the_first_rows(monkeypatch):
    monkeypatch.setattr(_toy, "draw_world", lambda *sizes: None)
    seconds = iter([2.0, 6.0, 4.0, 5.0, 3.0, 9.0])
    rows = dict.fromkeys(("all", "more"), lambda *_: {"seconds": next(seconds)})
    rows["thief"] = lambda *_: {"bleu4": 1.0}
    assert _toy.costs(rows) == {"all": 1.0, "more": 2.5}


def test_a_stored_run_is_not_computed_again(tmp_path):
    times = []

    def compute():
        times.append(1)
        return {"bleu4": 1.0}

    first = run_once(tmp_path / "a.json", compute)
    assert run_once(tmp_path / "a.json", compute) == first
    assert len(times) == 1 and first["bleu4"] == 1


def test_a_table_marks_what_differs_and_survives_a_second_writing(tmp_path):
    runs = {
        "all": [{"seed": s, "bleu4": v} for s, v in ((1, 50.0), (2, 52.0))],
        "none": [{"seed": s, "bleu4": v} for s, v in ((1, 40.0), (2, 42.0))],
        "α_c: 0": [{"seed": s, "bleu4": v} for s, v in ((1, 53.0), (2, 50.0))],
    }
    stored = {
        "data": {"train": 1000, "test": 200},
        "settings": {"baseline": "all", "columns": ["bleu4"]},
        "result": summary(runs, "all"),
        "runs": runs,
        "versions": {"torch": "2"},
    }
    lines = table_of(stored)
    assert "| all | 51.0<br>± 1.4 |" in lines
    assert "| none | **41.0**<br>(\u221210.0 to \u221210.0) |" in lines
    assert lines[4].startswith("| α<sub>c</sub>: 0 | 51.5<br>(")
    write_json(tmp_path / "book/results/experiments/parts.json", stored)
    chapter = tmp_path / "notebooks" / "12_parts.py"
    chapter.parent.mkdir()
    chapter.write_text(
        "# Before\n# <!-- comparison parts: written by tools.results -->\n"
        "# <!-- comparison: end -->\n# After\n"
    )
    (page,) = comparisons.pages(tmp_path).values()
    assert "# | all | 51.0" in page and page.endswith("# After\n")
    chapter.write_text(page)
    assert comparisons.pages(tmp_path) == {chapter: page}
