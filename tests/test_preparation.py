"""The engine's `prepare` against chapter 01's, and what only the engine's can do."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from trees import (
    coco_tree,
    contents,
    entry,
    flickr_tree,
    long_and_short_tree,
    paint,
    say,
)

from captionlib import data
from captionlib.config import DataConfig
from captionlib.data import (
    CaptionDataset,
    find_base,
    load_references,
)
from captionlib.engine import preparation
from captionlib.engine.preparation import decode_in_order, prepare
from captionlib.io.files import InputError
from captionlib.io.images import read_image
from captionlib.io.karpathy import read_karpathy

SMALL = DataConfig(captions_per_image=5, min_word_freq=2, max_len=10)


@pytest.fixture
def flickr(tmp_path):
    return flickr_tree(tmp_path / "flickr")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared tree, and the records it was made of."""
    folder = tmp_path_factory.mktemp("flickr")
    tree = flickr_tree(folder)
    prepare(*tree, folder / "data", SMALL, workers=1, progress=False)
    return folder / "data", read_karpathy(*tree)


# The plain form and this one


TREES = {
    "flickr": lambda folder: flickr_tree(folder, captions=5),
    "few captions": lambda folder: flickr_tree(folder, captions=2),
    "many captions": lambda folder: flickr_tree(folder, captions=9),
    "no test images": lambda folder: flickr_tree(folder, test=0),
    "coco": coco_tree,
    "long captions": long_and_short_tree,
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("workers", [1, 2])
def test_it_writes_what_the_plain_form_writes(
    tmp_path, tree, workers, monkeypatch
):
    """The same bytes; of HDF5 files, which are laid out in two ways, the same contents."""
    monkeypatch.setattr(preparation, "BATCH", 1)  # so that both processes work
    source = TREES[tree](tmp_path / "source")
    config = DataConfig(min_word_freq=2, max_len=10, seed=3)
    base = data.prepare(*source, tmp_path / "plain", config)
    done = prepare(
        *source, tmp_path / "engine", config, workers=workers, progress=False
    )
    assert done.base == base
    plain, engine = contents(tmp_path / "plain"), contents(tmp_path / "engine")
    del engine[f"IDENTITY_{base}.json"]
    assert plain.keys() == engine.keys() and len(plain) == 11
    for name in plain:
        if name.endswith(".json"):
            assert plain[name] == engine[name], name
            continue
        with (
            h5py.File(tmp_path / "plain" / name) as a,
            h5py.File(tmp_path / "engine" / name) as b,
        ):
            assert list(a) == list(b) == ["images"]
            assert dict(a.attrs) == dict(b.attrs)
            assert a["images"].dtype == b["images"].dtype
            assert np.array_equal(a["images"][:], b["images"][:])


def test_nothing_to_train_on(tmp_path):
    tree = flickr_tree(tmp_path, train=0)
    with pytest.raises(InputError, match="leaves no image to train on"):
        prepare(*tree, tmp_path / "data", SMALL, workers=1, progress=False)
    assert not (tmp_path / "data").exists()


def test_a_script_may_prepare_in_its_arguments_order(flickr, tmp_path):
    """config is optional, and a fresh default for each call."""
    base = prepare(*flickr, tmp_path / "data", progress=False).base
    assert base == "flickr8k_5_cap_per_img_5_min_word_freq"


def test_an_image_without_a_short_caption_is_named(tmp_path):
    _, skipped, *_ = prepare(
        *long_and_short_tree(tmp_path),
        tmp_path / "data",
        SMALL,
        workers=1,
        progress=False,
    )
    assert len(skipped) == 1
    assert "b.jpg: none of its captions has 10 words or fewer" in skipped[0]


# All or nothing, and again


def test_report_7_48_160_166_183_a_rerun_gives_the_same_bytes(flickr, tmp_path):
    to = tmp_path / "data"
    (to / "mine").mkdir(parents=True)
    prepare(*flickr, to, SMALL, workers=1, progress=False)
    before = {
        path: path.read_bytes() for path in to.iterdir() if path.is_file()
    }
    prepare(*flickr, to, SMALL, progress=False)
    assert {
        path: path.read_bytes() for path in to.iterdir() if path.is_file()
    } == before
    assert (to / "mine").is_dir() and len(list(to.iterdir())) == len(before) + 1


def test_report_7_48_160_166_183_a_failed_run_changes_nothing(flickr, tmp_path):
    karpathy_json, images = flickr
    to = tmp_path / "data"
    bad = (
        images / json.loads(karpathy_json.read_text())["images"][-1]["filename"]
    )
    good = bad.read_bytes()
    bad.write_bytes(good[:-200])
    for attempt in ("first", "over a good one"):
        with pytest.raises(InputError, match="is damaged"):
            prepare(*flickr, to, SMALL, workers=1, progress=False)
        if attempt == "first":
            assert list(to.iterdir()) == []
            bad.write_bytes(good)
            prepare(*flickr, to, SMALL, workers=1, progress=False)
            before = contents(to)
            bad.write_bytes(good[:-200])
    assert contents(to) == before


@pytest.mark.skipif(os.name == "nt", reason="kills as Unix does")
@pytest.mark.parametrize("after", [0.0, 0.15])
def test_report_7_48_160_166_183_a_killed_run_leaves_nothing_half_made(
    tmp_path, after
):
    tree = flickr_tree(tmp_path, train=80, val=2, test=2)
    to = tmp_path / "data"
    code = f"""
    from captionlib.engine import preparation
    preparation.BATCH = 2
    preparation.Vocabulary.save = None  # it would fail, did it come so far
    open_images = preparation.new_hdf5
    def say_so(path):
        print("ready", flush=True)
        return open_images(path)
    preparation.new_hdf5 = say_so
    preparation.prepare({str(tree[0])!r}, {str(tree[1])!r}, {str(to)!r}, workers=2)
    """
    script = (
        tmp_path / "script.py"
    )  # one that lacks `if __name__ == "__main__"`
    script.write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [
        path.name for path in to.iterdir() if not path.name.startswith(".")
    ] == []
    with pytest.raises(InputError, match="holds no prepared data"):
        find_base(to)
    base = prepare(*tree, to, SMALL, workers=1, progress=False).base
    assert all(
        path.name.endswith((f"{base}.json", f"{base}.hdf5"))
        for path in to.iterdir()
    )


def test_report_7_48_160_166_183_too_little_room_is_said_first(
    flickr, tmp_path, monkeypatch
):
    def decode(*arguments):
        raise AssertionError("work has started")

    monkeypatch.setattr(preparation, "decode_in_order", decode)
    usage = type("Usage", (), {"free": 8 * 3 * 256 * 256})
    monkeypatch.setattr(
        "captionlib.io.files.shutil.disk_usage", lambda path: usage
    )
    with pytest.raises(InputError, match="GB are needed and 0.00 GB are free"):
        prepare(*flickr, tmp_path / "data", SMALL)
    assert not (tmp_path / "data").exists()


def test_the_room_asked_for_is_the_room_taken(prepared, monkeypatch):
    folder, records = prepared
    asked = []
    monkeypatch.setattr(
        preparation,
        "require_free_space",
        lambda folder, needed: asked.append(needed),
    )
    root = records[0].path.parent
    json_path = root.parent / "dataset_flickr8k.json"
    prepare(
        json_path,
        root,
        folder.parent / "again",
        SMALL,
        workers=1,
        progress=False,
    )
    taken = sum(
        path.stat().st_size for path in (folder.parent / "again").iterdir()
    )
    assert taken <= asked[0] < taken + 2**24 + 8 * 10_000


def test_report_7_48_160_166_183_a_disk_that_fills_up_is_one_line(
    flickr, tmp_path, monkeypatch
):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "write_json_rows", full)
    with pytest.raises(InputError, match="the disk is full; make room"):
        prepare(*flickr, tmp_path / "data", SMALL, workers=1, progress=False)
    assert list((tmp_path / "data").iterdir()) == []


# Several processes, and memory


def test_several_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "BATCH", 2)
    tree = flickr_tree(tmp_path, train=50, val=3, test=0, captions=1)
    (tree[1] / "1000268206_train5.jpg").write_text("text")
    found = {}
    for workers in (1, 3):
        to = tmp_path / f"by {workers}"
        _, skipped, *_ = prepare(
            *tree, to, SMALL, skip_bad=True, workers=workers, progress=False
        )
        found[workers] = contents(to), skipped
    assert found[1] == found[3] and len(found[1][1]) == 1
    for workers in (1, 3):
        with pytest.raises(InputError, match="train5.jpg: is not an image"):
            prepare(
                *tree, tmp_path / "none", SMALL, workers=workers, progress=False
            )
        assert multiprocessing.active_children() == []


def test_images_come_in_order_and_errors_in_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "BATCH", 3)
    paths = [
        paint(tmp_path / f"{i:03}.png", i, (20 + i, 20)) for i in range(70)
    ]
    paths[33] = tmp_path / "missing.png"
    for workers in (1, 2):
        decoded = list(decode_in_order(paths, workers))
        assert len(decoded) == len(paths) and isinstance(
            decoded.pop(33), InputError
        )
        good = [path for path in paths if path.exists()]
        assert all(
            (a == read_image(b)).all()
            for a, b in zip(decoded, good, strict=True)
        )


def test_only_a_few_images_are_under_way(monkeypatch, tmp_path):
    """What a slow disk has not yet taken is not piled up in memory."""
    from concurrent.futures import Future
    from contextlib import contextmanager

    sent = []

    @contextmanager
    def pool(workers, batches, size):
        def submit(batch):
            sent.append(batch)
            answer = Future()
            answer.set_result([np.zeros(1)] * len(batch))
            return answer

        yield submit

    monkeypatch.setattr(preparation, "decoding_pool", pool)
    taken = 0
    for _ in decode_in_order([Path("x")] * 1000, workers=2):
        taken += 1
        assert (
            len(sent) * preparation.BATCH - taken
            <= preparation.MOST * 2 * preparation.BATCH
        )
    assert taken == 1000


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="reads its memory in /proc"
)
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    karpathy_json, images = flickr_tree(tmp_path, train=1, val=0, test=0)
    listed = json.loads(karpathy_json.read_text())
    original = images / listed["images"][0]["filename"]
    for i in range(500):
        os.link(original, images / f"{i}.jpg")
        listed["images"].append(entry(f"{i}.jpg", "train", [say(i)]))
        if i in (99, 499):
            (tmp_path / f"{i}.json").write_text(json.dumps(listed))
    code = """
    import sys
    from captionlib.engine.preparation import prepare
    for name in ("99.json", "499.json"):  # the 400 more are 79 MB of pixels
        prepare(f"{sys.argv[1]}/{name}", sys.argv[2], sys.argv[3], workers=2, progress=False)
        print(next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(code),
            tmp_path,
            images,
            tmp_path / "data",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = (int(kibibytes) / 1024 for kibibytes in done.stdout.split())
    assert many - few < 20, f"{few:.0f} MiB, then {many:.0f} MiB"


# Bad input


def break_missing(json_path, images):
    next(images.glob("*_val0.jpg")).unlink()
    return "_val0.jpg: no such image"


def break_truncated(json_path, images):
    path = next(images.glob("*_train1.jpg"))
    path.write_bytes(path.read_bytes()[:-300])
    return "_train1.jpg: is damaged"


def break_text(json_path, images):
    next(images.glob("*_test1.jpg")).write_text("hello")
    return "_test1.jpg: is not an image"


def break_entry(change, complaint):
    def edit(json_path, images):
        listed = json.loads(json_path.read_text())
        change(listed["images"])
        json_path.write_text(json.dumps(listed))
        return complaint

    return edit


BREAKAGES = {
    "missing image": break_missing,
    "truncated image": break_truncated,
    "text named .jpg": break_text,
    "no tokens": break_entry(
        lambda images: images[0]["sentences"][2].update(tokens=[]),
        "caption 2 has no tokens",
    ),
    "unknown split": break_entry(
        lambda images: images[0].update(split="holdout"),
        "unknown split 'holdout'",
    ),
    "listed twice": break_entry(
        lambda images: images.append(images[0] | {"split": "val"}),
        "is listed twice",
    ),
    "climbs out": break_entry(
        lambda images: images[1].update(filename="../../x.jpg"),
        "outside the image folder",
    ),
}


@pytest.mark.parametrize("kind", BREAKAGES)
def test_bad_input_is_one_line_or_is_skipped(flickr, tmp_path, kind):
    complaint = BREAKAGES[kind](*flickr)
    with pytest.raises(InputError) as caught:
        prepare(*flickr, tmp_path / "data", SMALL, progress=False)
    message = str(caught.value)
    assert complaint in message and "\n" not in message and "; " in message
    assert str(flickr[0]) in message or str(flickr[1]) in message
    _, skipped, *_ = prepare(
        *flickr, tmp_path / "data", SMALL, skip_bad=True, progress=False
    )
    assert len(skipped) == 1 and skipped[0] == message
    total = sum(
        len(CaptionDataset(tmp_path / "data", s).images)
        for s in ("train", "val", "test")
    )
    assert total == (8 if kind in ("no tokens", "listed twice") else 7)
    for split in ("VAL", "TEST"):
        names, _ = load_references(tmp_path / "data", split)
        assert len(names) == len(
            CaptionDataset(tmp_path / "data", split).images
        )


def test_words_of_a_skipped_image_are_not_counted(flickr, tmp_path):
    break_entry(
        lambda images: images[1]["sentences"][0].update(tokens=["ghost"] * 9),
        "",
    )(*flickr)
    break_truncated(*flickr)
    prepare(*flickr, tmp_path / "data", SMALL, skip_bad=True, progress=False)
    assert (
        "ghost"
        not in CaptionDataset(tmp_path / "data", "train").vocabulary.word_map
    )


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_a_target_that_is_no_folder(flickr, tmp_path, where):
    (tmp_path / "taken").write_text("")
    to = tmp_path / "taken" / ("" if where == "a file" else "below")
    with pytest.raises(InputError, match="taken"):
        prepare(*flickr, to, SMALL, workers=1, progress=False)


def test_real_photographs(tmp_path):
    if not os.environ.get("FLICKR8K_DIR"):
        pytest.skip("FLICKR8K_DIR is not set: no real photographs here")
    root = Path(os.environ["FLICKR8K_DIR"])
    listed = json.loads((root / "dataset_flickr8k.json").read_text())
    by_split = {
        split: [i for i in listed["images"] if i["split"] == split]
        for split in ("train", "val")
    }
    listed["images"] = by_split["train"][:40] + by_split["val"][:10]
    small = tmp_path / "dataset_flickr8k.json"
    small.write_text(json.dumps(listed))
    images = root / "Flicker8k_Dataset"
    base, skipped, *_ = prepare(
        small, images, tmp_path / "data", progress=False
    )
    assert base == "flickr8k_5_cap_per_img_5_min_word_freq" and skipped == []
    dataset = CaptionDataset(tmp_path / "data", "train")
    assert (
        len(dataset) == 200
        and len({image.numpy().tobytes() for image in dataset.images}) == 40
    )
    assert (
        20 < dataset.images[0].float().std() < 120
    )  # a photograph, not a flat or scaled one
    _, references = load_references(tmp_path / "data", "val")
    assert references[0] == [
        s["tokens"] for s in by_split["val"][0]["sentences"]
    ]
