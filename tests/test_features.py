"""Grids on disk: the file, and `cache_features`, held against `encode_once`."""

import os
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch
from torch import nn

from captionlib.encoder import Encoder, FeatureDataset, encode_once
from captionlib.engine.features import ViewDataset, cache_features
from captionlib.io.features import Features, new_features
from captionlib.io.files import InputError
from tests.test_encoder import (
    IMAGES,
    LITE0,
    Stub,
    random_images,
    write_split,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lite0():
    return Encoder(LITE0, grid_size=None)


@pytest.fixture
def stub():
    return Stub()


# The file


def test_what_is_written_is_read(tmp_path):
    vectors = np.arange(2 * 6 * 4, dtype=np.float16).reshape(2, 6, 4)
    with new_features(
        tmp_path / "f.hdf5", (2, 2, 3, 4), {"backbone": "x"}
    ) as file:
        file[:] = vectors
    features = Features(tmp_path / "f.hdf5")
    assert features.shape == (2, 6, 4) and features.grid == (2, 3)
    assert features.fingerprint == {"backbone": "x"} and features.nbytes == 96
    np.testing.assert_array_equal(features[1], vectors[1])
    np.testing.assert_array_equal(features[0:2], vectors)
    np.testing.assert_array_equal(features[-1], vectors[1])


def test_a_features_is_a_sequence(tmp_path):
    with new_features(tmp_path / "f.hdf5", (2, 1, 1, 4), {}):
        pass
    features = Features(tmp_path / "f.hdf5")
    assert len(list(features)) == len(features) == 2  # iteration ends
    with pytest.raises(IndexError):
        features[2]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file.*cache_features"):
        Features(tmp_path / "f.hdf5")


def write_text(path):
    path.write_text("not a cache")


def write_other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)


@pytest.mark.parametrize("write", [write_text, write_other_hdf5])
def test_a_foreign_file_is_refused_and_kept(tmp_path, write):
    path = tmp_path / "f.hdf5"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not a feature cache"):
        Features(path)
    assert path.read_bytes() == before


def test_a_failing_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with new_features(tmp_path / "f.hdf5", (2, 1, 1, 4), {}):
            raise RuntimeError
    assert not list(tmp_path.iterdir())


# The cache


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_cache_holds_what_encode_once_gives(tmp_path, lite0, count):
    """Bit by bit, an uneven last batch included."""
    images = random_images(count)
    path = write_split(tmp_path, images)
    features = cache_features(
        lite0, path, tmp_path / "f.hdf5", batch_size=2, progress=False
    )
    batches = encode_once(lite0, torch.from_numpy(images), batch_size=2)
    expected = torch.cat(list(batches))
    assert features.grid == expected.shape[1:3]
    np.testing.assert_array_equal(features[:], expected.flatten(1, 2).numpy())


def test_cache_equals_encoding(tmp_path, lite0):
    path = write_split(tmp_path, random_images(3))
    features = cache_features(
        lite0, path, tmp_path / "f.hdf5", batch_size=2, progress=False
    )
    assert (
        features.shape == (3, 64, 1280)
        and features.grid == (8, 8)
        and len(features) == 3
    )
    assert features.nbytes == 3 * 64 * 1280 * 2
    direct = lite0(lite0.normalise(torch.from_numpy(random_images(3)))).flatten(
        1, 2
    )
    for i in range(3):
        assert features[i].dtype == np.float16
        torch.testing.assert_close(
            torch.from_numpy(features[i]).float(),
            direct[i],
            rtol=1e-3,
            atol=1e-4,
        )


def test_cache_keeps_stretched_and_uneven_grids_in_order(tmp_path, stub):
    images = np.zeros((3, 3, 256, 256), np.uint8)
    images[1, 0, :128, 128:] = 255  # red, above right
    path = write_split(tmp_path, images)
    features = cache_features(
        stub, path, tmp_path / "f.hdf5", batch_size=2, progress=False
    )
    assert features.grid == (2, 2)
    assert features[1].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert not features[0].any() and not features[2].any()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batch_size_changes_nothing(tmp_path, stub, batch_size):
    path = write_split(tmp_path, random_images(IMAGES))
    features = cache_features(
        stub, path, tmp_path / "f.hdf5", batch_size=batch_size, progress=False
    )
    expected = stub(
        stub.normalise(torch.from_numpy(random_images(IMAGES)))
    ).flatten(1, 2)
    torch.testing.assert_close(torch.from_numpy(features[:]), expected.half())


def test_bf16_is_close_and_kept_apart(tmp_path, lite0):
    path = write_split(tmp_path, random_images(1))
    exact = cache_features(lite0, path, tmp_path / "f.hdf5", progress=False)[
        0
    ].astype(float)
    fast = cache_features(
        lite0, path, tmp_path / "f.hdf5", bf16=True, progress=False
    )
    assert fast.fingerprint["bf16"]
    difference = np.linalg.norm(fast[0] - exact) / np.linalg.norm(exact)
    assert 0 < difference < 0.25


def test_mirrored_cache_is_that_of_mirrored_images(tmp_path, stub):
    images = random_images(3)
    path = write_split(tmp_path, images)
    (tmp_path / "other").mkdir()
    flipped = write_split(
        tmp_path / "other", np.ascontiguousarray(images[..., ::-1])
    )
    mirrored = cache_features(
        stub, path, tmp_path / "m.hdf5", mirrored=True, progress=False
    )
    expected = cache_features(
        stub, flipped, tmp_path / "f.hdf5", progress=False
    )
    np.testing.assert_array_equal(mirrored[:], expected[:])
    plain = cache_features(
        stub, path, tmp_path / "m.hdf5", progress=False
    )  # not taken for it
    assert (
        plain.fingerprint != mirrored.fingerprint
        and (plain[:] != expected[:]).any()
    )


@pytest.fixture
def cached(tmp_path, stub):
    """A cache that is there already: (image file, cache file, number of encodings so far)."""
    path, to = write_split(tmp_path, random_images(IMAGES)), tmp_path / "f.hdf5"
    cache_features(stub, path, to, progress=False)
    return path, to, stub.calls


def test_cache_is_used_again(stub, cached):
    path, to, calls = cached
    os.utime(path, (1, 1))  # another time, the same images
    cache_features(stub, path, to, progress=False)
    assert stub.calls == calls


def test_a_caches_size_is_said_before_it_is_written(tmp_path, stub):
    path, said = write_split(tmp_path, random_images(IMAGES)), []
    to = tmp_path / "f.hdf5"

    def say(line):
        said.append((line, to.exists()))

    for _ in range(
        2
    ):  # the second time there is nothing to write, and nothing to say
        features = cache_features(stub, path, to, progress=False, say=say)
    [(line, existed)] = said
    assert not existed and str(to) in line and f"{IMAGES} images" in line
    assert f"{features.nbytes / 1e9:.2f} GB" in line
    assert (
        to.stat().st_size < features.nbytes + 2**14
    )  # half precision, and nothing besides


def test_cache_is_used_again_for_a_copy(tmp_path, stub, cached):
    path, to, calls = cached
    copy = Path(shutil.copy(path, tmp_path / "copy.hdf5"))
    cache_features(stub, copy, to, progress=False)
    assert stub.calls == calls


def test_cache_is_renewed_for_other_images_of_the_same_age(stub, cached):
    path, to, calls = cached
    before, old = path.stat(), Features(to)[2]
    with h5py.File(path, "r+") as file:
        file["images"][2] = 255 - file["images"][2]
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    features = cache_features(stub, path, to, progress=False)
    assert stub.calls > calls and not np.allclose(features[2], old)


def change_weight(stub):
    stub.weight.data.mul_(0.5)


def change_backbone(stub):
    stub.backbone = "another"


def change_normalisation(stub):
    stub.mean.add_(0.1)


@pytest.mark.parametrize(
    "change", [change_weight, change_backbone, change_normalisation]
)
def test_cache_is_renewed_for_another_encoder(stub, cached, change):
    path, to, calls = cached
    change(stub)
    features = cache_features(stub, path, to, progress=False)
    assert stub.calls > calls
    again = Features(to)
    assert again.fingerprint == features.fingerprint


def stop_at(stub, call, error):
    def forward(images):
        stub.calls += 1
        if stub.calls == call:
            raise error
        return Stub.forward(stub, images)

    stub.forward, stub.calls = forward, 0


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, RuntimeError("out of memory")]
)
def test_report_7_48_166_160_183_interrupted_cache_leaves_nothing(
    tmp_path, stub, error
):
    path = write_split(tmp_path, random_images(IMAGES))
    there = sorted(tmp_path.iterdir())
    stop_at(stub, 5, error)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        cache_features(
            stub, path, tmp_path / "f.hdf5", batch_size=1, progress=False
        )
    assert sorted(tmp_path.iterdir()) == there


def test_report_7_48_166_160_183_interrupted_renewal_keeps_the_old_cache(
    stub, cached
):
    path, to, _ = cached
    before = to.read_bytes()
    change_weight(stub)
    stop_at(stub, 5, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        cache_features(stub, path, to, batch_size=1, progress=False)
    assert to.read_bytes() == before


def test_report_7_48_166_160_183_a_full_disk_is_said_first(
    tmp_path, lite0, monkeypatch
):
    path = write_split(tmp_path, random_images(IMAGES))
    Usage = namedtuple("Usage", "total used free")
    size = IMAGES * 64 * 1280 * 2
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: Usage(2 * size, size, size)
    )
    there = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="needed.*free"):
        cache_features(lite0, path, tmp_path / "f.hdf5", progress=False)
    assert sorted(tmp_path.iterdir()) == there


def test_report_57_98_memory_holds_one_batch(tmp_path, stub):
    path = write_split(
        tmp_path, np.zeros((400, 3, 256, 256), np.uint8)
    )  # 79 MB of images
    process, seen = psutil.Process(), []

    def forward(images):
        seen.append(process.memory_info().rss)
        assert len(images) <= 16 and torch.is_inference_mode_enabled()
        return nn.functional.interpolate(images, 64).permute(
            0, 2, 3, 1
        )  # 10 MB of vectors

    stub.forward = forward
    cache_features(
        stub, path, tmp_path / "f.hdf5", batch_size=16, progress=False
    )
    assert max(seen[5:]) - min(seen[3:5]) < 25e6


def test_an_encoder_in_training_is_refused(tmp_path):
    path = write_split(tmp_path, random_images(1))
    resnet = Encoder("resnet18", pretrained=False)
    resnet.fine_tune()
    with pytest.raises(ValueError, match=r"fine_tune\(False\)"):
        cache_features(resnet, path, tmp_path / "f.hdf5", progress=False)


def test_numbers_too_large_for_float16_are_said(tmp_path, stub):
    path = write_split(tmp_path, random_images(1))
    stub.weight.data.fill_(1e6)
    with pytest.raises(ValueError, match="float16"):
        cache_features(stub, path, tmp_path / "f.hdf5", progress=False)
    assert not (tmp_path / "f.hdf5").exists()


def test_an_empty_split_is_said(tmp_path, stub):
    path = write_split(tmp_path, random_images(0))
    with pytest.raises(InputError, match="no images"):
        cache_features(stub, path, tmp_path / "f.hdf5", progress=False)


def test_size_is_stated(tmp_path, stub, monkeypatch):
    path, said = write_split(tmp_path, random_images(1)), []

    class Bar:
        def __init__(self, **options):
            said.append(options["desc"])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n):
            said.append(n)

    monkeypatch.setattr("captionlib.engine.features.tqdm", Bar)
    cache_features(stub, path, tmp_path / "f.hdf5")
    assert "GB" in said[0] and sum(said[1:]) == 1


# Views of the images


def test_views_follow_each_other_and_share_their_captions(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    views = [torch.rand(IMAGES, 4, 3) for _ in range(3)]
    dataset = ViewDataset(tmp_path, "TRAIN", *views)
    assert len(dataset) == len(list(dataset)) == 3 * IMAGES
    for number, (grid, captions, lengths) in enumerate(dataset):
        view, image = divmod(number, IMAGES)
        assert torch.equal(grid, views[view][image])
        assert torch.equal(captions, dataset[image][1]) and torch.equal(
            lengths, dataset[image][2]
        )


def test_one_view_is_a_feature_dataset(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    vectors = torch.rand(IMAGES, 4, 3)
    plain = FeatureDataset(tmp_path, "TRAIN", vectors)
    viewed = ViewDataset(tmp_path, "TRAIN", vectors)
    assert len(plain) == len(viewed)
    for one, other in zip(plain, viewed, strict=True):
        assert all(map(torch.equal, one, other))


def test_every_view_is_of_the_splits_images(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    views = torch.rand(IMAGES, 4, 3), torch.rand(IMAGES + 1, 4, 3)
    with pytest.raises(InputError, match=f"{IMAGES} images.*{IMAGES + 1}"):
        ViewDataset(tmp_path, "TRAIN", *views)


@pytest.mark.parametrize("workers", [0, 2])
def test_report_15_119_143_53_features_reach_any_number_of_workers(
    tmp_path, stub, workers
):
    path = write_split(tmp_path, random_images(IMAGES))
    dataset = FeatureDataset(
        tmp_path,
        "TRAIN",
        cache_features(stub, path, tmp_path / "f.hdf5", progress=False),
    )
    expected = torch.stack(
        [dataset[i][0] for i in range(IMAGES)]
    )  # opened here, before forking
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=workers
    )
    assert torch.equal(torch.cat([batch[0] for batch in loader]), expected)
    sent = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(sent[1][0], expected[1])
