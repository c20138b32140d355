"""The projects: their worlds, their last milestones, and what was measured of them."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from captionlib.exercises import judge
from captionlib.exercises.projects import (
    BOARD,
    GENDERS,
    LEAST_GERMAN,
    LEAST_SCALES,
    LEAST_VERBS,
    articles_right,
    german_references,
    verb_facts,
)
from captionlib.toy import german, verbs
from captionlib.toy.scenes import scene_with_captions, tokenise
from tools.experiments import __main__ as experiments
from tools.experiments.projects import page_names

ROOT = Path(__file__).parent.parent
STORED = ROOT / "book" / "results" / "experiments"


@pytest.fixture(scope="module")
def page():
    return page_names()


@pytest.fixture(scope="module")
def runs():
    return json.loads((STORED / "projects.json").read_text("utf-8"))["runs"]


def told(tell, words=tokenise) -> list[list[list[str]]]:
    return [[words(text) for text in tell("test", i)[1]] for i in range(200)]


# -------------------------------------------------------------------------------------- the worlds


def test_a_verb_is_said_of_an_actor_and_seen_in_its_picture():
    looks = {}
    for i in range(60):
        scene, captions = verbs.scene_with_captions("train", i)
        (actor,) = scene.things
        assert len(set(captions)) == 5
        for caption in captions:
            said = tokenise(caption)
            assert said.index(actor.name) < said.index(actor.doing)
        x0, y0, x1, y1 = actor.box
        assert 0 <= x0 < x1 <= 256 and 0 <= y0 < y1 <= 256
        cut = x0 == 0 or x1 == 256
        looks.setdefault(actor.doing, set()).add((cut, y1 < 200))
    assert looks["arriving"] == looks["leaving"] == {(True, False)}
    assert looks["jumping"] == looks["landing"] == {(False, True)}
    assert looks["standing"] == {(False, False)}
    assert set(looks) == set(verbs.VERBS)


def test_pictures_of_verbs_are_drawn_from_facts_alone():
    scene, _ = verbs.scene_with_captions("test", 3)
    one, other = (verbs.draw_scene(scene) for _ in range(2))
    assert one.size == (256, 256) and one.tobytes() == other.tobytes()


def test_german_tells_of_the_same_scenes_and_agrees_with_itself(page):
    for i in range(40):
        scene, captions = german.scene_with_captions("train", i)
        assert scene == scene_with_captions("train", i)[0]
        assert len(set(captions)) == 5
        for caption in captions:
            words = page["words_of"](caption)
            for thing in scene.things:
                noun = german.NOUNS[thing.name][1].lower()
                plural = german.NOUNS[thing.name][-1].lower()
                assert any(w.startswith((noun, plural)) for w in words)
    written = [page["words_of"](c) for c in sum(german_sentences(), [])]
    right, every = page["agreement"](written, GENDERS)
    assert right == every > 500


def german_sentences() -> list[list[str]]:
    return [german.scene_with_captions("val", i)[1] for i in range(80)]


# --------------------------------------------------------------------------- their last milestones


def test_verbs_that_were_seen_pass_and_others_do_not():
    captions = [of_scene[0] for of_scene in told(verbs.scene_with_captions)]
    assert "look alike" in judge("A.4", captions).message
    seen = [["jumping" if w == "landing" else w for w in c] for c in captions]
    status, message = judge("A.4", seen)
    assert status == "right" and "jumping 100%, landing 0%" in message
    same = [c[:-1] for c in captions[1:]] + [["a", "cat", "standing"]]
    assert judge("A.4", same).status == "not quite"
    assert "200 test scenes" in judge("A.4", captions[:7]).message


def test_german_captions_pass_and_english_ones_do_not(page):
    captions = [of_scene[4] for of_scene in german_references()]
    assert "100.0% of the articles" in judge("B.4", captions).message
    wrong = [[w.replace("eine", "ein") for w in words] for words in captions]
    right, every = page["agreement"](wrong, GENDERS)
    assert articles_right(wrong) == right / every < 0.8
    english = [of_scene[0] for of_scene in told(scene_with_captions)]
    assert judge("B.4", english).status == "not quite"


def test_two_scales_are_compared_if_both_were_trained():
    one = {"bleu4": 45.0, "correctness": 0.2}
    two = {"bleu4": 46.5, "correctness": 0.15}
    assert "BLEU-4 +1.5, weight in the box -0.05" in judge("C.4", one, two)[1]
    early = judge("C.4", one, two | {"bleu4": 12.0})
    assert early.status == "not quite" and "two scales" in early.message
    assert judge("C.4", one, 46.5).status == "not quite"


def test_the_race_gives_places():
    references = told(scene_with_captions)
    own = [of_scene[3] for of_scene in references]
    assert "place 1 of" in judge("D.3", own).message
    one = [references[0][0]] * 200
    assert judge("D.3", one).status == "not quite"


# --------------------------------------------------------------------------------- the page's code


def test_a_bias_is_a_bias_on_scores(page):
    torch.manual_seed(0)
    attention = page["TwoScales"](6, 5, 4)
    attention.bias = page["coarse_bias"](16, 4, 0.6)
    values, hidden = torch.randn(2, 16, 6), torch.randn(4, 5)
    keys = attention.keys(values)
    context, alpha = attention(hidden, keys, values)
    query = attention.decoder_att(hidden).view(2, 2, 1, 4)
    scores = attention.full_att(torch.relu(keys[:, None] + query)).squeeze(3)
    scores = scores + torch.cat(
        [torch.zeros(16), torch.full((4,), attention.bias)]
    )
    both = page["two_scales"](values)
    expected = scores.softmax(dim=2)
    torch.testing.assert_close(context, (expected @ both).flatten(0, 1))
    torch.testing.assert_close(alpha, page["on_fine"](expected.flatten(0, 1)))
    torch.nn.init.zeros_(attention.full_att.weight)
    attention(hidden, keys, values)
    assert attention.coarse.tolist() == pytest.approx([0.6] * 4)


@pytest.mark.long
def test_the_experiment_runs_and_goes_on_where_it_stopped(tmp_path):
    command = ["projects", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(tmp_path / "stored.json"), "--seeds", "1"]
    assert experiments.main(command) == 0
    first = json.loads((tmp_path / "stored.json").read_text("utf-8"))
    assert 0.19 < first["result"]["two_scales"]["coarse"]["mean"] < 0.21
    assert 0.48 < first["result"]["even_start"]["coarse"]["mean"] < 0.52
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}
    assert experiments.main(command) == 0  # nothing is trained again
    assert before == {p: p.stat().st_mtime_ns for p in before}


# ------------------------------------------------------------------------------- what was measured


def test_the_milestones_accept_what_was_measured(runs):
    for run in runs["verbs"]:
        assert run["all"] > LEAST_VERBS + 0.1
        assert (run["jumping"] + run["landing"]) / 2 < 0.6
    assert all(run["bleu4"] > LEAST_GERMAN + 3 for run in runs["German"])
    for row in ("one_scale", "two_scales"):
        assert all(run["bleu4"] > LEAST_SCALES + 1 for run in runs[row])


def test_the_board_is_what_was_measured(runs):
    rows = {"LSTM on 2,000 scenes": runs["race"][0]["bleu4"]}
    for name in ("parts", "transformer"):
        stored = json.loads((STORED / f"{name}.json").read_text("utf-8"))
        for row, measures in stored["result"].items():
            rows[row] = measures["bleu4"]["mean"]
    page = (ROOT / "book" / "projects.md").read_text("utf-8")
    listed = re.findall(r"^\| ([^|]+) \| .* \| ([\d.]+) \| \d+ \|$", page, re.M)
    assert {entry: float(bleu4) for entry, bleu4 in listed} == BOARD
    for entry, bleu4 in BOARD.items():
        assert math.isclose(rows[entry], bleu4, abs_tol=0.05), entry
    assert list(BOARD.values()) == sorted(BOARD.values(), reverse=True)


def test_verb_facts_are_those_of_the_scenes():
    truth, actors, doing = verb_facts()
    scene, _ = verbs.scene_with_captions("test", 7)
    assert truth[7] == [(scene.things[0].name, scene.things[0].doing)]
    assert (actors, doing) == (verbs.ACTORS, verbs.VERBS)
