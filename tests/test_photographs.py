"""The comparisons on photographs, on a few drawn scenes."""

import json

import pytest

from captionlib.config import DataConfig
from captionlib.data import prepare
from captionlib.io.files import read_json
from captionlib.toy.scenes import write_scenes
from tools import comparisons
from tools.experiments import __main__ as experiments
from tools.experiments import photographs
from tools.experiments._toy import summary

SOME = ["all parts", "hard", "Transformer", "twelve epochs"]
SOME += ["three epochs more", "one epoch more, encoder tuned"]
MIXED = photographs.name_of(*photographs.MIXED)
SOME += [MIXED, "three after twelve", f"after twelve, {MIXED}"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    karpathy = write_scenes(folder / "scenes", train=24, val=6, test=1)
    data = folder / "data"
    config = DataConfig(min_word_freq=1, max_len=30)
    prepare(karpathy, folder / "scenes" / "images", data, config)
    store, work = folder / "stored", folder / "work"
    store.mkdir()
    command = ["photographs", "--quick", "--data", str(data), "--work"]
    command += [str(work), "--store", str(store), "--seeds", "2"]
    assert experiments.main([*command, "--only", *SOME]) == 0
    return command, work, store


@pytest.mark.long
def test_each_table_has_the_rows_that_have_run(ran):
    _, _, store = ran
    tables = {path.stem: read_json(path) for path in store.iterdir()}
    assert set(tables) == set(photographs.TABLES)
    assert list(tables["hard_flickr8k"]["runs"]) == ["soft", "hard"]
    assert len(tables["self_critical_flickr8k"]["runs"]) == 3
    about = tables["parts_flickr8k"]["settings"]["about"]
    assert "24 photographs" in about and "6 of the validation" in about


@pytest.mark.long
def test_the_comparison_goes_on_where_it_stopped(ran):
    command, work, store = ran
    before = {p: p.stat().st_mtime_ns for p in work.iterdir()}
    first = (store / "hard_flickr8k.json").read_text()
    (store / "hard_flickr8k.json").unlink()
    assert experiments.main([*command, "--only", "all parts", "hard"]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in work.iterdir()}
    assert json.loads((store / "hard_flickr8k.json").read_text()) == json.loads(
        first
    )


def test_a_row_with_one_seed_has_neither_spread_nor_interval():
    runs = {
        "all": [{"seed": s, "bleu4": 20.0 + s} for s in (1, 2, 3)],
        "once": [{"seed": 2, "bleu4": 30.0}],
        "twice": [{"seed": s, "bleu4": 21.0 + s} for s in (2, 3)],
    }
    found = summary(runs, "all")
    assert found["once"]["bleu4"] == {"mean": 30.0}
    assert found["twice"]["bleu4"]["gap"]["mean"] == pytest.approx(1.0)
    assert comparisons.cell(found["once"]["bleu4"], "bleu4") == "30.0"
