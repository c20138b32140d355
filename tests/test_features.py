"""The feature cache's file."""

import h5py
import numpy as np
import pytest

from captionlib.io.features import Features, new_features
from captionlib.io.files import InputError


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
