"""Data sets from a real server, up to a trained model; every way in which that goes wrong."""

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from server import Fault, serve
from trees import coco_tree, flickr_tree

from captionlib import cli
from captionlib.datasets import download as module
from captionlib.datasets.download import DATA_SETS, download
from captionlib.datasets.fetch import DownloadError, Patience, checksum_of
from captionlib.io.files import InputError, read_json
from captionlib.io.karpathy import read_karpathy

HASTY = Patience(tries=2, timeout=0.5, pause=0)


def zipped(folder: Path, top: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{top}{path.relative_to(folder)}")
    return content.getvalue()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class World:
    """Data sets in the shape of the real ones, a server that has them, and a table that says so."""

    def __init__(self, folder: Path, site):
        self.site, self.folder, self.to = site, folder, folder / "to"
        coco, self.coco_images = coco_tree(folder / "coco", copies=2)
        eight, eight_images = flickr_tree(folder / "flickr")
        thirty = folder / "dataset_flickr30k.json"
        thirty.write_text(
            eight.read_text().replace('"flickr8k"', '"flickr30k"')
        )
        captions = io.BytesIO()
        with zipfile.ZipFile(captions, "w", zipfile.ZIP_DEFLATED) as file:
            for path in (coco, eight, thirty):
                file.write(path, path.name)
        self.table = read_json(DATA_SETS)
        self.put(self.table["captions"], captions.getvalue())
        for part in self.table["sets"]["coco"]["archives"]:
            place = self.coco_images / part["folder"]
            self.put(part, zipped(place, f"{part['folder']}/"))
        self.put(
            self.part("flickr8k"), zipped(eight_images, "Flicker8k_Dataset/")
        )
        self.tar = folder / "flickr30k-images.tar.gz"
        with tarfile.open(self.tar, "w:gz") as file:
            file.add(eight_images, "flickr30k-images")
        self.part("flickr30k")["bytes"] = self.tar.stat().st_size
        self.part("flickr30k")["checksum"] = checksum_of(self.tar)

    def part(self, name: str, number: int = 0) -> dict:
        return self.table["sets"][name]["archives"][number]

    def put(self, part: dict, content: bytes) -> None:
        self.site.files[part["file"]] = content
        part["addresses"] = [self.site.address(part["file"])]
        part["bytes"], part["checksum"] = len(content), sha256(content)

    def get(self, name: str, *archives, **options):
        table = self.folder / "table.json"
        table.write_text(json.dumps(self.table))
        options = {
            "patience": HASTY,
            "progress": False,
            "table": table,
        } | options
        return download(name, self.to, archives, **options)

    def asked(self) -> list[str]:
        return [path for path, _ in self.site.asked]


@pytest.fixture
def world(tmp_path):
    with serve() as site:
        (tmp_path / "coco").mkdir()
        (tmp_path / "flickr").mkdir()
        yield World(tmp_path, site)


@pytest.mark.parametrize("name", ["flickr8k", "coco"])
def test_a_set_arrives_as_prepare_wants_it(world, name):
    done = world.get(name)
    records = read_karpathy(done.karpathy_json, done.images)
    assert {record.split for record in records} == {"TRAIN", "VAL", "TEST"}
    listed = {record.filename for record in records}
    there = {
        p.relative_to(done.images).as_posix()
        for p in done.images.rglob("*")
        if p.is_file()
    }
    assert there == listed and done.notes == []
    kept = {path.name for path in world.to.iterdir()}
    assert kept == {done.karpathy_json.name, done.images.name, "checksums.json"}


def test_coco_from_the_server_to_a_trained_model(world, monkeypatch, capsys):
    """The commands as a reader types them: download, prepare, train; restval is trained on."""
    (world.folder / "table.json").write_text(json.dumps(world.table))
    monkeypatch.setattr(module, "DATA_SETS", world.folder / "table.json")
    monkeypatch.setitem(
        download.__kwdefaults__, "table", world.folder / "table.json"
    )

    def run(*words):
        assert cli.main([str(word) for word in words]) == 0, (
            capsys.readouterr().err
        )
        return capsys.readouterr().out

    said = run("download", "coco", "--to", world.to)
    words = said.split()
    assert words[:2] == ["captionlib", "prepare"] and words[-2:] == [
        "--to",
        "...",
    ]
    data, model = world.folder / "data", world.folder / "model"
    run(*words[1:-1], data, "--min-word-freq", 1, "--workers", 1)
    base = "coco_5_cap_per_img_1_min_word_freq"
    assert len(read_json(data / f"TRAIN_CAPLENS_{base}.json")) == 5 * 6
    assert "giraffe" in read_json(
        data / f"WORDMAP_{base}.json"
    )  # restval's word
    small = (
        "--attention-dim",
        8,
        "--embed-dim",
        8,
        "--decoder-dim",
        8,
        "--max-words",
        5,
    )
    run(
        "train",
        "--data",
        data,
        "--to",
        model,
        "--epochs",
        1,
        "--batch-size",
        2,
        *small,
    )
    image = next((world.to / "images" / "val2014").iterdir())
    line = run("caption", image, "--model", model, "--beam-size", 1, "--json")
    assert json.loads(line)["image"] == str(image)


def test_what_is_there_is_not_fetched_again(world):
    world.get("coco")
    asked = len(world.site.asked)
    world.get("coco")
    assert len(world.site.asked) == asked


def test_a_photograph_that_was_lost_comes_back(world):
    done = world.get("coco")
    lost = next((done.images / "train2014").iterdir())
    lost.unlink()
    asked = len(world.site.asked)
    world.get("coco")
    assert lost.is_file() and world.asked()[asked:] == ["train2014.zip"]


def test_archives_stay_where_that_is_asked_for(world):
    world.get("coco", keep_archives=True)
    kept = {path.name for path in (world.to / "downloads").iterdir()}
    assert kept == {"caption_datasets.zip", "train2014.zip", "val2014.zip"}


def test_archives_that_were_fetched_by_hand_are_taken_and_left(world):
    """By their names, where a set has several; nothing is asked of the server but the rest."""
    by_hand = world.folder / "val2014.zip"
    by_hand.write_bytes(world.site.files["val2014.zip"])
    world.get("coco", by_hand)
    assert (
        world.asked() == ["caption_datasets.zip", "train2014.zip"]
        and by_hand.is_file()
    )
    record = read_json(world.to / "checksums.json")
    assert record["val2014.zip"]["from"] == str(by_hand)


def test_a_form_is_named_before_anything_is_fetched(world):
    with pytest.raises(
        InputError, match=r"form; fill it in at https://\S+, .*--archive"
    ):
        world.get("flickr30k")
    assert world.asked() == [] and not world.to.exists()


@pytest.mark.parametrize("called", ["flickr30k-images.tar.gz", "download (3)"])
def test_the_file_behind_the_form_is_taken_under_any_name(world, called):
    by_hand = world.tar.rename(world.folder / called)
    done = world.get("flickr30k", by_hand)
    assert (
        len(read_karpathy(done.karpathy_json, done.images)) == 8
        and done.notes == []
    )
    assert (
        world.get("flickr30k").images == done.images
    )  # and is not asked for again


def test_a_file_by_hand_that_was_packed_anew_is_taken_with_a_word(world):
    """What is in it counts: another top folder, another sort, other bytes."""
    again = world.folder / "mine.zip"
    again.write_bytes(
        zipped(world.folder / "flickr" / "Flicker8k_Dataset", "a/b/")
    )
    done = world.get("flickr30k", again)
    assert (
        len(done.notes) == 1
        and "its checksum is not the published one" in done.notes[0]
    )
    assert len(read_karpathy(done.karpathy_json, done.images)) == 8
    assert "flickr30k-images.tar.gz" not in read_json(
        world.to / "checksums.json"
    )


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda w: w.folder / "gone", "gone: no such file"),
        (lambda w: w.folder, "no such file"),
        (
            lambda w: w.folder / "table.json",
            "is neither a zip nor a tar archive",
        ),
        (
            lambda w: w.folder / "coco" / "dataset_coco.json",
            "is neither a zip nor a tar",
        ),
    ],
)
def test_a_file_by_hand_that_is_none(world, make, match):
    with pytest.raises(InputError, match=match) as raised:
        world.get("flickr30k", make(world))
    assert "\n" not in str(raised.value)


def test_an_archive_of_something_else_leaves_nothing(world):
    other = world.folder / "other.zip"
    other.write_bytes(zipped(world.coco_images))
    with pytest.raises(InputError, match="lacks 8 of 8 files.*right archive"):
        world.get("flickr30k", other)
    assert not (world.to / "flickr30k-images").exists()


def test_of_two_archives_a_name_must_say_which(world):
    other = world.folder / "other.zip"
    other.write_bytes(b"")
    with pytest.raises(
        InputError,
        match="not one of this set's archives.*train2014.zip, val2014.zip",
    ):
        world.get("coco", other)
    with pytest.raises(InputError, match="is given twice"):
        world.get("flickr30k", world.tar, world.tar)


def test_a_published_checksum_is_held_to(world):
    world.site.always["train2014.zip"] = Fault(flip=100)
    with pytest.raises(DownloadError, match="train2014.zip.*checksum differs"):
        world.get("coco")
    assert not (world.to / "images" / "train2014").exists()
    world.site.always = {}
    world.get("coco")
    record = read_json(world.to / "checksums.json")
    assert {file["published"] for file in record.values()} == {True}


def test_without_a_published_checksum_later_downloads_equal_the_first(world):
    world.part("coco")["checksum"] = None
    done = world.get("coco")
    entry = read_json(world.to / "checksums.json")["train2014.zip"]
    first = world.site.files["train2014.zip"]
    assert entry == {
        "checksum": sha256(first),
        "published": False,
        "from": world.site.address("train2014.zip"),
    }
    lost = next((done.images / "train2014").iterdir())
    lost.unlink()
    world.site.files["train2014.zip"] = (
        first + b" "
    )  # still a zip, with the same photographs
    with pytest.raises(
        DownloadError,
        match=r"differs.* that of the first download, in .*checksums",
    ):
        world.get("coco")
    assert not lost.exists()
    world.site.files["train2014.zip"] = first
    world.get("coco")
    assert lost.is_file()


def test_a_login_page_is_not_remembered_as_the_first_download(world):
    part, right = world.part("coco"), world.site.files["train2014.zip"]
    part["checksum"] = None
    world.site.files["train2014.zip"] = b"<html>please log in</html>" * 10
    with pytest.raises(InputError, match="is neither a zip nor a tar archive"):
        world.get("coco")
    assert "train2014.zip" not in read_json(world.to / "checksums.json")
    world.site.files["train2014.zip"] = right
    world.get("coco")


def test_the_second_address_helps_out(world):
    world.part("coco")["addresses"].insert(0, world.site.address("gone.zip"))
    world.get("coco")
    assert world.asked() == [
        "caption_datasets.zip",
        "gone.zip",
        "train2014.zip",
        "val2014.zip",
    ]


def test_room_is_asked_for_before_anything_is_fetched(world):
    world.part("coco", 1)["bytes"] = 10**16
    with pytest.raises(InputError, match="GB are needed"):
        world.get("coco")
    assert world.asked() == []


@pytest.mark.parametrize(
    "evil", ["../../evil.jpg", "/evil.jpg", "a\\..\\..\\evil.jpg"]
)
def test_a_list_of_photographs_that_leads_out_is_refused(world, evil):
    """Karpathy's JSON is not trusted either, whatever its checksum."""
    captions = io.BytesIO()
    listed = read_json(world.folder / "coco" / "dataset_coco.json")
    listed["images"][0]["filename"] = evil
    with zipfile.ZipFile(captions, "w") as file:
        file.writestr("dataset_coco.json", json.dumps(listed))
    world.put(world.table["captions"], captions.getvalue())
    with pytest.raises(InputError, match="outside the image folder"):
        world.get("coco")
    assert not list(world.folder.rglob("evil*"))


def test_an_unknown_set_is_said(world):
    with pytest.raises(InputError, match="flickr8k, flickr30k, coco"):
        world.get("imagenet")


def test_no_server_is_one_line_and_not_the_users_mistake(
    world, monkeypatch, capsys
):
    world.part("flickr8k")["addresses"] = [world.site.address("gone")]
    (world.folder / "table.json").write_text(json.dumps(world.table))
    monkeypatch.setitem(
        download.__kwdefaults__, "table", world.folder / "table.json"
    )
    assert cli.main(["download", "flickr8k", "--to", str(world.to)]) == 1
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.count("\n") == 1
        and "404" in err
        and "Traceback" not in err
    )


def test_the_table_says_who_published_each_checksum():
    table = read_json(DATA_SETS)
    sets = table["sets"]
    assert list(sets) == ["flickr8k", "flickr30k", "coco"]
    for part in [
        table["captions"],
        *(p for one in sets.values() for p in one["archives"]),
    ]:
        method, _, digits = (part["checksum"] or "md5:" + "0" * 32).partition(
            ":"
        )
        assert (
            len(digits) == {"md5": 32, "sha256": 64}[method]
            and int(digits, 16) >= 0
        )
        assert (part["checksum"] is None) == (part["published_by"] is None)
        assert (
            bool(part["addresses"]) != bool(part.get("form"))
            and part["bytes"] > 10**7
        )
        assert all(
            address.startswith(("http://", "https://"))
            for address in part["addresses"]
        )
