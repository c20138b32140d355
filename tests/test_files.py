import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from captionlib.io import files
from captionlib.io.files import (
    InputError,
    atomic_file,
    atomic_folder,
    atomic_group,
    new_hdf5,
    package_folder,
    read_json,
    recover_folder,
    require_free_space,
    write_json,
    write_json_rows,
)


def start(tmp_path, code):
    """Another Python process that has printed "ready" and now waits to be killed."""
    code = f"import time\nfrom captionlib.io.files import *\n{textwrap.dedent(code)}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_input_error_is_one_plain_line():
    assert str(InputError("a.jpg: bad\nname\x1b[2J; rename it")) == (
        "a.jpg: bad\\nname\\x1b[2J; rename it"
    )
    assert str(InputError("été.jpg: fine")) == "été.jpg: fine"
    assert isinstance(InputError("x"), ValueError)


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(KeyError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


def test_a_killed_process_leaves_the_old_file_and_the_next_run_tidies_up(
    tmp_path,
):
    path = tmp_path / "a.json"
    write_json(path, "old")
    process = start(
        tmp_path,
        """
        with atomic_file("a.json") as temporary:
            temporary.write_text('"half')
            print("ready", flush=True)
            time.sleep(60)
        """,
    )
    with atomic_file(
        path
    ) as temporary:  # a second run at the same time does not disturb the first
        temporary.write_text('"mine"')
    assert len(names(tmp_path)) == 2
    kill(process)
    assert read_json(path) == "mine" and len(names(tmp_path)) == 2
    write_json(path, "new")
    assert read_json(path) == "new" and names(tmp_path) == ["a.json"]


def test_a_folder_is_swapped_whole(tmp_path):
    path = tmp_path / "model"
    for text in ("first", "second"):
        with atomic_folder(path) as fresh:
            (fresh / text).write_text(text)
        assert names(path) == [text]
    with pytest.raises(KeyError), atomic_folder(path) as fresh:
        (fresh / "third").write_text("half")
        raise KeyError
    assert names(tmp_path) == ["model"] and names(path) == ["second"]


def test_a_folder_survives_a_kill_while_it_is_written(tmp_path):
    with atomic_folder(tmp_path / "model") as fresh:
        (fresh / "good").write_text("good")
    process = start(
        tmp_path,
        """
        with atomic_folder("model") as fresh:
            (fresh / "bad").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
        """,
    )
    kill(process)
    recover_folder(tmp_path / "model")
    assert names(tmp_path / "model") == ["good"]
    with atomic_folder(tmp_path / "model") as fresh:
        (fresh / "better").write_text("better")
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == [
        "better"
    ]


def test_a_folder_survives_a_kill_between_the_two_renames(tmp_path):
    with atomic_folder(tmp_path / "model") as fresh:
        (fresh / "good").write_text("good")
    process = start(
        tmp_path,
        """
        import os
        rename = os.rename
        def rename_once(source, target):
            rename(source, target)
            print("ready", flush=True)
            time.sleep(60)
        os.rename = rename_once
        with atomic_folder("model") as fresh:
            (fresh / "better").write_text("better")
        """,
    )
    kill(process)
    assert not (tmp_path / "model").exists()
    recover_folder(tmp_path / "model")
    assert names(tmp_path / "model") == ["good"]


def test_a_group_appears_together_and_leaves_the_rest_alone(tmp_path):
    (tmp_path / "mine").write_text("untouched")
    for text in ("first", "second"):
        with atomic_group(tmp_path, seal="SEAL") as folder:
            for name in ("SEAL", "a", "z"):
                (folder / name).write_text(text)
            assert (tmp_path / "SEAL").exists() == (text == "second")
        assert names(tmp_path) == ["SEAL", "a", "mine", "z"]
        assert {
            (tmp_path / name).read_text() for name in ("SEAL", "a", "z")
        } == {text}
    with pytest.raises(KeyError), atomic_group(tmp_path, seal="SEAL") as folder:
        (folder / "a").write_text("half")
        raise KeyError
    assert (tmp_path / "a").read_text() == "second" and len(
        names(tmp_path)
    ) == 4
    assert (tmp_path / "mine").read_text() == "untouched"


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_the_seal_never_stands_over_a_broken_group(tmp_path, renames):
    for name in ("SEAL", "a", "z"):
        (tmp_path / name).write_text("old")
    process = start(
        tmp_path,
        f"""
        import os
        replace, done = os.replace, []
        def replace_few(source, target):
            if len(done) == {renames}:
                print("ready", flush=True)
                time.sleep(60)
            replace(source, target)
            done.append(target)
        os.replace = replace_few
        with atomic_group(".", seal="SEAL") as folder:
            for name in ("SEAL", "a", "z"):
                (folder / name).write_text("new")
        print("ready", flush=True)
        time.sleep(60)
        """,
    )
    kill(process)
    texts = {(tmp_path / name).read_text() for name in ("a", "z")}
    assert (tmp_path / "SEAL").exists() == (renames == 3)
    if renames == 3:
        assert texts == {"new"}
    with atomic_group(tmp_path, seal="SEAL") as folder:
        for name in ("SEAL", "a", "z"):
            (folder / name).write_text("again")
    assert names(tmp_path) == ["SEAL", "a", "z"]


def test_a_full_disk_is_an_input_error_of_a_group(tmp_path):
    with (
        pytest.raises(InputError, match="disk is full"),
        atomic_group(tmp_path, seal="S"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_group(tmp_path, seal="S"):
        raise FileNotFoundError("another error stays what it is")
    assert names(tmp_path) == []


@pytest.mark.skipif(
    os.name == "nt", reason="limits the size of files as only Unix can"
)
@pytest.mark.parametrize("limit", [100, 3000, 400_000, 1_300_000])
def test_hdf5_does_not_crash_where_no_more_can_be_written(tmp_path, limit):
    code = f"""
    import resource, signal
    import numpy as np
    from captionlib.io.files import new_hdf5
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        with new_hdf5("a.hdf5") as file:
            images = file.create_dataset("images", (9, 65536 * 3), np.uint8, chunks=(1, 65536 * 3))
            for i in range(9):
                images[i] = i
    except OSError as error:
        print(error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "File too large\n",
        "",
    )


def test_hdf5_is_written_like_any_other(tmp_path):
    import h5py

    with new_hdf5(tmp_path / "a.hdf5") as file:
        file["x"] = [1, 2, 3]
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["x"][:].tolist() == [1, 2, 3]


def test_too_little_room_is_said_before_work_starts(tmp_path, monkeypatch):
    require_free_space(tmp_path / "not" / "yet", 1)
    monkeypatch.setattr(
        files.shutil,
        "disk_usage",
        lambda path: type("Usage", (), {"free": 10**9})(),
    )
    with pytest.raises(
        InputError, match=r"new: 2\.00 GB are needed and 1\.00 GB are free"
    ):
        require_free_space(tmp_path / "new", 2 * 10**9)


def test_json_is_read_and_refused(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, 2]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2]}
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "bom.json") == [1]
    (tmp_path / "deep.json").write_text("[" * 200_000)
    for name, text in (("b.json", "{"), ("c.json", ""), ("d.json", "\x00")):
        (tmp_path / name).write_text(text)
    (tmp_path / "e.json").write_bytes(b"\xff\xfe\x00")
    for name in ("b", "c", "d", "e", "deep"):
        with pytest.raises(InputError, match=f"{name}.json: is not JSON"):
            read_json(tmp_path / f"{name}.json")
    with pytest.raises(InputError, match="missing.json: no such file"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(InputError, match="is a folder"):
        read_json(tmp_path)


@pytest.mark.parametrize("rows", [[], [[1, 2]], [[1], "é", {"a": None}]])
def test_rows_are_written_as_a_list(tmp_path, rows):
    write_json_rows(tmp_path / "rows.json", iter(rows))
    assert (
        json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == rows
    )


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
        with (
            pytest.raises(InputError, match="taken"),
            atomic_group(folder, seal="S"),
        ):
            pass
        with (
            pytest.raises(InputError, match="taken"),
            atomic_file(folder / "a.json"),
        ):
            pass


def test_a_model_folder_is_found(tmp_path):
    with pytest.raises(InputError, match="holds no captioner"):
        package_folder(tmp_path)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text("{}")
    assert (
        package_folder(tmp_path)
        == tmp_path / "best"
        == package_folder(tmp_path / "best")
    )


def test_a_number_that_is_no_running_process_is_swept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stale = tmp_path / f".a.{process.pid}.json"
    running = tmp_path / f".a.{os.getppid()}.json"
    other = tmp_path / ".a.backup.json"
    for path in (stale, running, other):
        path.write_text("")
    write_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == sorted([running.name, other.name, "a.json"])
