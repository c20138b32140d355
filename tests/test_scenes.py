"""The toy world: true facts, plain English, the same bytes every time."""

import json
import os
import re
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from PIL import Image

from captionlib.io.files import ASSETS, InputError
from captionlib.toy.scenery import CANVAS, SETTINGS, paint_setting
from captionlib.toy.scenes import (
    KINDS,
    SIZE,
    Scene,
    Thing,
    describe,
    draw_scene,
    random_scene,
    scene_with_captions,
    sentence,
    sprite,
    tokenise,
    write_scenes,
)
from captionlib.toy.words import PLACES, PLURALS, SKIES, SYNONYMS, TEMPLATES

SCENES = [random_scene(Random(seed)) for seed in range(400)]


def ground(scene):
    return [thing for thing in scene.things if not KINDS[thing.name].flies]


def flyers(scene):
    return [thing for thing in scene.things if KINDS[thing.name].flies]


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What there is


def test_at_least_forty_objects_each_with_a_sprite_and_no_sprite_without_an_object():
    drawn = {
        path.stem.replace("_", " ")
        for path in (ASSETS / "sprites").glob("*.png")
    }
    assert len(KINDS) >= 40
    assert drawn == set(KINDS)


def test_sprites_are_small_and_carry_their_licence():
    folder = ASSETS / "sprites"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000
    assert "SIL OPEN FONT LICENSE" in (folder / "OFL.txt").read_text()


def test_tables_speak_of_the_same_things():
    assert set(PLACES) == set(SKIES) == set(SETTINGS)
    assert set(PLURALS) <= set(KINDS)
    assert set(SYNONYMS) <= set(KINDS)
    assert {
        setting for kind in KINDS.values() for setting in kind.settings
    } == set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_enough_to_choose_from(setting):
    here = [kind for kind in KINDS.values() if setting in kind.settings]
    standing = [kind for kind in here if not kind.flies]
    assert len(standing) >= 3
    assert any(kind.name in PLURALS for kind in standing)
    assert any(kind.name in PLURALS for kind in here if kind.flies)


@pytest.mark.parametrize("size", [64, 76, 90, 122])
def test_sprite_has_the_size_asked_for_and_a_mirror_image(size):
    picture = sprite("horse", size)
    assert (picture.mode, max(picture.size)) == ("RGBA", size)
    mirrored = np.asarray(sprite("horse", size, True))
    np.testing.assert_array_equal(mirrored, np.asarray(picture)[:, ::-1])


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_follows_from_its_look(setting):
    picture = paint_setting(setting, 1)
    assert (picture.mode, picture.size) == ("RGB", (CANVAS, CANVAS))
    assert picture.tobytes() == paint_setting(setting, 1).tobytes()
    assert picture.tobytes() != paint_setting(setting, 2).tobytes()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_painted_to_the_last_pixel(setting):
    for look in range(5):
        pixels = np.asarray(paint_setting(setting, look))
        assert (
            pixels.max(axis=-1) > 20
        ).all()  # nowhere the black that it started from


# Scenes


def test_scenes_are_varied():
    assert {len(scene.things) for scene in SCENES} == {1, 2, 3}
    assert {scene.setting for scene in SCENES} == set(SETTINGS)
    assert {thing.name for scene in SCENES for thing in scene.things} == set(
        KINDS
    )
    assert {thing.size for scene in SCENES for thing in scene.things} == {
        "small",
        "",
        "big",
    }
    assert {thing.flipped for scene in SCENES for thing in scene.things} == {
        False,
        True,
    }
    assert {len(group) for scene in SCENES for group in scene.groups} == {
        1,
        2,
        3,
    }
    assert any(ground(scene) and flyers(scene) for scene in SCENES)


def test_everything_is_at_home_and_inside_the_picture():
    for scene in SCENES:
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert scene.setting in KINDS[thing.name].settings
            assert 0 <= x0 < x1 <= SIZE and 0 <= y0 < y1 <= SIZE
            assert (x1 - x0, y1 - y0) == sprite(
                thing.name, max(x1 - x0, y1 - y0)
            ).size


def test_nothing_hides_anything():
    for scene in SCENES:
        for number, a in enumerate(scene.things):
            for b in scene.things[number + 1 :]:
                across = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
                down = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
                assert across <= 0 or down <= 0, scene


def test_what_stands_comes_from_left_to_right_and_what_flies_is_above():
    for scene in SCENES:
        lefts = [thing.box[0] for thing in ground(scene)]
        assert lefts == sorted(lefts)
        assert scene.things == (*ground(scene), *flyers(scene))
        for low in ground(scene):
            assert all(high.box[3] <= low.box[1] for high in flyers(scene))


def test_small_is_smaller_than_big():
    longest = {"small": set(), "": set(), "big": set()}
    for scene in SCENES:
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            longest[thing.size].add(max(x1 - x0, y1 - y0))
    assert (
        max(longest["small"])
        < min(longest[""])
        <= max(longest[""])
        < min(longest["big"])
    )


def test_no_word_names_two_groups_of_a_scene():
    for scene in SCENES:
        words = [
            word
            for group in scene.groups
            for word in KINDS[group[0].name].words
        ]
        assert len(words) == len(set(words))


# Pictures


def test_picture_is_rgb_and_follows_from_the_scene():
    picture = draw_scene(SCENES[0])
    assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))
    assert picture.tobytes() == draw_scene(SCENES[0]).tobytes()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_thing_is_drawn_into_its_box_and_nowhere_else_but_for_its_shadow(
    setting,
):
    kind = next(
        k for k in KINDS.values() if setting in k.settings and not k.flies
    )
    width, height = sprite(kind.name, 90).size
    box = 100, 120, 100 + width, 120 + height
    scene = Scene(setting, 3, (Thing(kind.name, "", box, False),))
    empty = np.asarray(draw_scene(Scene(setting, 3, ()))).astype(int)
    drawn = np.asarray(draw_scene(scene)).astype(int)
    changed = (drawn != empty).any(axis=-1)
    assert changed[120 : 120 + height, 100 : 100 + width].mean() > 0.25
    below = np.s_[
        120 + height, 100 + width // 4 : 100 + 3 * width // 4
    ]  # nothing hides it there
    assert (drawn[below].sum(-1) < empty[below].sum(-1)).all() != (
        setting == "water"
    )
    changed[120 : 120 + height + 5, 100 : 100 + width] = (
        False  # the box, and a shadow below
    )
    assert not changed.any()


def test_drawing_leaves_the_kept_sprites_alone():
    water = next(
        scene for scene in SCENES if scene.setting == "water" and ground(scene)
    )
    first = draw_scene(water).tobytes()
    assert draw_scene(water).tobytes() == first


# Captions


def test_captions_are_lower_case_words():
    for scene in SCENES:
        for token in describe(scene, Random(0)):
            assert re.fullmatch(r"[a-z]+", token)


def test_a_sentence_and_its_tokens_agree():
    assert tokenise("A dog, a cat and an owl.") == [
        "a",
        "dog",
        "a",
        "cat",
        "and",
        "an",
        "owl",
    ]
    for scene in SCENES[:50]:
        assert tokenise(sentence(scene, Random(5))) == describe(
            scene, Random(5)
        )


def test_articles_and_numbers_are_good_english():
    text = [
        f" {' '.join(describe(scene, Random(n)))} "
        for n in range(3)
        for scene in SCENES
    ]
    assert any(" an " in caption for caption in text) and any(
        " two " in t for t in text
    )
    plurals = "|".join(set(PLURALS.values()) - {"sheep"})
    for caption in text:
        assert not re.search(
            r" a [aeiou]| an [^aeiou]| an? (two|three) |  .", caption
        ), caption
        assert not re.search(rf" an? (\w+ )?({plurals}) ", caption), caption
        assert not re.search(rf" ({plurals}) is ", caption), caption
        for number in re.findall(
            r" (?:two|three) (?:small |little |big |large )?(\w+)", caption
        ):
            assert number in PLURALS.values(), caption


def test_every_template_uses_every_thing_and_the_place():
    wanted = {
        "alone": "a",
        "beside": "ab",
        "above": "ab",
        "three": "abc",
        "above two": "abc",
    }
    assert set(wanted) == set(TEMPLATES)
    for layout, letters in wanted.items():
        for template in TEMPLATES[layout]:
            assert all(
                f"{{{letter}}}" in template for letter in (*letters, "place")
            ), template


def test_a_caption_names_every_thing_by_one_of_its_words():
    for scene in SCENES:
        said = describe(scene, Random(1))
        for thing in scene.things:
            assert set(KINDS[thing.name].words) & set(said)


def first_said(name, said):
    return min(said.index(word) for word in KINDS[name].words if word in said)


def test_relations_are_true():
    checked = set()
    for number, scene in enumerate(SCENES):
        for seed in range(4):
            said = describe(scene, Random(1000 * number + seed))
            names = [group[0].name for group in scene.groups]
            order = sorted(names, key=lambda name: first_said(name, said))
            box = {thing.name: thing.box for thing in scene.things}
            first, last = box[order[0]], box[order[-1]]
            for word in {
                "left",
                "right",
                "above",
                "over",
                "under",
                "below",
                "between",
            } & set(said):
                if word == "over" and len(names) == 1:
                    continue  # over the sea, not over another thing
                if word == "under" and len(names) == 1:
                    continue  # under the stars
                checked.add(word)
                if word == "left":
                    assert first[2] <= last[0], said
                if word == "right":
                    assert first[0] >= last[2], said
                if word in ("above", "over") and len(flyers(scene)) != len(
                    scene.things
                ):
                    high = [thing.box[3] for thing in flyers(scene)]
                    assert max(high) <= min(
                        thing.box[1] for thing in ground(scene)
                    ), said
                if word == "between":
                    assert box[order[1]][2] <= first[0] <= first[2] <= last[
                        0
                    ] or (
                        last[2] <= first[0] <= first[2] <= box[order[1]][0]
                    ), said
    assert checked == {
        "left",
        "right",
        "above",
        "over",
        "under",
        "below",
        "between",
    }


def test_sizes_are_true():
    sizes = {"small": "small", "little": "small", "big": "big", "large": "big"}
    for number, scene in enumerate(SCENES):
        said = describe(scene, Random(number))
        for position, word in enumerate(said):
            if word in sizes:
                named = {
                    thing.size
                    for thing in scene.things
                    if KINDS[thing.name].words
                    and said[position + 1] in KINDS[thing.name].words
                }
                assert named == {sizes[word]}, said


# The data set


def test_a_scene_and_its_captions_depend_on_seed_split_and_number_alone():
    assert scene_with_captions("val", 3) == scene_with_captions("val", 3)
    others = [("val", 4, 0), ("test", 3, 0), ("val", 3, 1)]
    assert all(
        scene_with_captions(*other) != scene_with_captions("val", 3)
        for other in others
    )


def test_five_captions_no_two_alike():
    for index in range(100):
        _, sentences = scene_with_captions("train", index)
        assert len(sentences) == len(set(sentences)) == 5


def test_another_process_draws_the_same(tmp_path):
    write_scenes(tmp_path / "here", train=2, val=1, test=1, seed=7)
    program = (
        "import sys; from captionlib.toy.scenes import write_scenes; "
        "write_scenes(sys.argv[1], train=2, val=1, test=1, seed=7)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment)
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_asking_for_more_changes_nothing_that_was_there(tmp_path):
    write_scenes(tmp_path / "few", train=2, val=2, test=1)
    write_scenes(tmp_path / "many", train=5, val=3, test=2)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) == 5
    assert all(few[name] == many[name] for name in pictures)

    def captions(folder):
        images = json.loads((folder / "dataset_scenes.json").read_text())[
            "images"
        ]
        return {
            image["filename"]: [s["raw"] for s in image["sentences"]]
            for image in images
        }

    assert (
        captions(tmp_path / "few").items()
        <= captions(tmp_path / "many").items()
    )


def test_karpathy_format(tmp_path):
    path = write_scenes(tmp_path, train=3, val=2, test=1)
    assert path == tmp_path / "dataset_scenes.json"
    data = json.loads(path.read_text())
    assert data["dataset"] == "scenes"
    assert [image["split"] for image in data["images"]] == ["train"] * 3 + [
        "val"
    ] * 2 + ["test"]
    assert [image["imgid"] for image in data["images"]] == list(range(6))
    sentids = [
        sentid for image in data["images"] for sentid in image["sentids"]
    ]
    assert sentids == list(range(30))
    for image in data["images"]:
        with Image.open(tmp_path / "images" / image["filename"]) as picture:
            assert (picture.format, picture.mode, picture.size) == (
                "PNG",
                "RGB",
                (SIZE, SIZE),
            )
        for sentence_, sentid in zip(
            image["sentences"], image["sentids"], strict=True
        ):
            assert set(sentence_) == {"tokens", "raw", "imgid", "sentid"}
            assert (sentence_["imgid"], sentence_["sentid"]) == (
                image["imgid"],
                sentid,
            )
            assert sentence_["tokens"] == tokenise(sentence_["raw"])


def test_answer_sheet_fits_the_pictures(tmp_path):
    write_scenes(tmp_path, train=20, val=0, test=0)
    objects = json.loads((tmp_path / "objects_scenes.json").read_text())
    data = json.loads((tmp_path / "dataset_scenes.json").read_text())
    assert list(objects) == [image["filename"] for image in data["images"]]
    for number, image in enumerate(data["images"]):
        scene, _ = scene_with_captions("train", number)
        rows = objects[image["filename"]]
        assert [row["name"] for row in rows] == [
            thing.name for thing in scene.things
        ]
        assert [tuple(row["box"]) for row in rows] == [
            thing.box for thing in scene.things
        ]
        for row in rows:
            assert all(
                set(row["words"]) & set(s["tokens"]) for s in image["sentences"]
            )


def test_report_7_48_160_166_183_a_rerun_over_scenes_is_safe(tmp_path):
    write_scenes(tmp_path, train=3, val=1, test=1)
    before = files(tmp_path)
    (tmp_path / "images" / "train_00001.png").write_bytes(b"broken off")
    (tmp_path / "mine.txt").write_text("not to be touched")
    write_scenes(tmp_path, train=3, val=1, test=1)
    assert files(tmp_path) == {**before, "mine.txt": b"not to be touched"}


def test_report_7_48_160_166_183_too_little_disk_is_said_before_drawing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})()
    )
    with pytest.raises(InputError, match="are free"):
        write_scenes(tmp_path / "new", train=3)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_no_data_set(tmp_path, monkeypatch):
    drawn = []

    def draw_two_then_stop(scene):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(scene)
        return draw_scene(scene)

    monkeypatch.setattr("captionlib.toy.scenes.draw_scene", draw_two_then_stop)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path, train=5)
    assert sorted(files(tmp_path)) == [
        "images/train_00000.png",
        "images/train_00001.png",
    ]


def test_the_generator_agrees_with_itself_but_not_wholly():
    from nltk.translate.bleu_score import corpus_bleu

    worlds = [scene_with_captions("val", index) for index in range(100)]
    references = [
        [tokenise(raw) for raw in sentences] for _, sentences in worlds
    ]
    rng = Random(1)
    fresh = [describe(scene, rng) for scene, _ in worlds]
    strangers = fresh[1:] + fresh[:1]
    assert 0.4 < corpus_bleu(references, fresh) < 0.8
    assert corpus_bleu(references, strangers) < 0.5 * corpus_bleu(
        references, fresh
    )
