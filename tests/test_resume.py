"""Stopped at any moment and resumed, a training ends as if it had never stopped.

The processes that are killed here are real: started by multiprocessing's fork server, so that each
begins at once, with torch imported and nothing else done.
"""

import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from captionlib import cli
from captionlib.io.files import InputError
from captionlib.model import CaptionModel
from tests.small_training import SETTINGS, run

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["captionlib.training", "matplotlib.figure"])
SCORES = [1.0, 3.0, 2.0, 4.0]
DETAILED = dataclasses.replace(SETTINGS, averaging=0.9, weight_decay=0.1)
WRITTEN = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "shutil.rmtree",
)


def start(target, *arguments) -> multiprocessing.Process:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def train_detailed(folder: Path, **options):
    """Train on a few features, writing a checkpoint after every step."""
    torch.set_num_threads(1)
    options = {"checkpoint_minutes": 0, "resume": True} | options
    settings = options.pop("settings", DETAILED)
    # What an epoch scores is decided by its number, over all lives.
    log = folder / "last" / "training.json"
    done = len(json.loads(log.read_text())["history"]) if log.exists() else 0
    old = folder / ".last.old" / "training.json"
    if not log.exists() and old.exists():
        done = len(json.loads(old.read_text())["history"])
    return run(
        folder, settings, lambda epoch: SCORES[done + epoch - 1], **options
    )


def train_and_be_killed(folder: Path, touches: int) -> None:
    """Train, and be killed when `folder` is about to be touched for the n-th time."""
    left = touches

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in WRITTEN and str(arguments[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    train_detailed(folder)


def files(folder: Path) -> dict[str, bytes]:
    """What must come out the same, to the bit."""
    kinds = ("best/model", "last/model", "last/optimizer", "last/average")
    return {
        f"{kind}.safetensors": (folder / f"{kind}.safetensors").read_bytes()
        for kind in kinds
        if (folder / f"{kind}.safetensors").exists()
    }


def rows(folder: Path) -> list:
    history = json.loads((folder / "last" / "training.json").read_text())[
        "history"
    ]
    return [
        {k: v for k, v in row.items() if not k.endswith("seconds")}
        for row in history
    ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    process = start(train_detailed, folder)
    process.join(300)
    assert process.exitcode == 0
    assert (
        len(files(folder)) == 4
        and [row["bleu4"] for row in rows(folder)] == SCORES
    )
    return folder


def test_killed_at_every_kind_of_moment_it_resumes_to_the_same_weights(
    tmp_path, unbroken
):
    """SIGKILL in the middle of writing: between files, between renames, while sweeping up."""
    folder, lives, unfinished = tmp_path / "killed", 0, set()
    rng = random.Random(0)
    while True:
        process = start(train_and_be_killed, folder, rng.randint(20, 170))
        process.join(300)
        unfinished.update(path.name for path in folder.glob(".*"))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        lives += 1
    assert lives >= 5
    assert unfinished & {
        ".last.new",
        ".last.old",
    }  # some died in the middle of a checkpoint
    assert files(folder) == files(unbroken) and len(files(folder)) == 4
    assert rows(folder) == rows(unbroken)
    assert rows(folder)[-1]["bleu4"] == max(SCORES)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best", "curve.png", "last", "log.jsonl",
    ]  # fmt: skip


def test_resume_keeps_the_best_by_its_score(tmp_path, unbroken):
    folder = tmp_path / "killed"
    settings = dataclasses.replace(DETAILED, epochs=3)

    def lights_out(epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return SCORES[epoch - 1]

    with pytest.raises(KeyboardInterrupt):
        run(folder, settings, lights_out, checkpoint_minutes=0)
    # Its last checkpoint is in the third epoch, behind its last step.
    place = json.loads((folder / "last" / "training.json").read_text())
    assert (len(place["history"]), place["so_far"]["steps"]) == (2, 3)
    best = (folder / "best" / "model.safetensors").read_bytes()
    train_detailed(
        folder, settings=settings
    )  # the third epoch scores less than the second
    assert (folder / "best" / "model.safetensors").read_bytes() == best
    assert CaptionModel.load(folder).metrics["training"]["epoch"] == 2


# A full disk


def train_with_small_files(folder: Path) -> None:
    """Train where no file may be larger than a model's half."""
    limit = (folder / "last" / "model.safetensors").stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(InputError) as error:
        train_detailed(folder)
    (folder.parent / "said").write_text(str(error.value))


def begin_training(folder: Path) -> None:
    """Train, and stop in the second epoch, when all its steps are done."""
    torch.set_num_threads(1)

    def lights_out(epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return SCORES[0]

    with contextlib.suppress(KeyboardInterrupt):
        run(folder, DETAILED, lights_out, checkpoint_minutes=0)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_resumes(
    tmp_path, unbroken
):
    folder = tmp_path / "limited"
    begin_training(folder)
    before = files(folder)
    process = start(train_with_small_files, folder)
    process.join(300)
    assert process.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert (
        said.startswith(f"{folder}: a file would be larger")
        and "make room and resume" in said
    )
    assert "\n" not in said
    assert files(folder) == before and not list(folder.glob(".*"))
    train_detailed(folder)
    assert files(folder) == files(unbroken)


ON_A_SMALL_DISK = """
    import os, subprocess, sys
    from pathlib import Path
    disk = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    from test_resume import begin_training, files, train_detailed
    from captionlib.io.files import InputError
    folder = disk / "model"
    begin_training(folder)
    before = files(folder)
    with open(disk / "other", "wb", buffering=0) as other:  # somebody else's file takes the rest
        try:
            while True:
                other.write(bytes(4096))
        except OSError:
            pass
    try:
        train_detailed(folder)
    except InputError as error:
        print(error)
    assert files(folder) == before
    os.unlink(disk / "other")
    train_detailed(folder)
    assert files(folder) == files(Path(sys.argv[2]))
    print("and went on")
"""


def test_a_full_disk_leaves_the_checkpoint_before_and_resumes(
    tmp_path, unbroken
):
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    tried = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command, *tried]).returncode
    ):
        pytest.skip(
            "a small disk needs `unshare --user --mount`, which is not allowed here"
        )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here)])
    command += [
        sys.executable,
        "-c",
        textwrap.dedent(ON_A_SMALL_DISK),
        tmp_path,
        unbroken,
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path}/model: the disk is full; the previous checkpoint is kept; "
        "make room and resume",
        "and went on",
    ]


# The long form, `make kills`: the command itself, from an empty folder, killed at random moments

RECIPE = {
    "scenes": {"train": 9, "val": 3, "test": 1, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 1, "max_len": 20},
    "model": {
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
    },
    "mirrored": True,
    "stages": [
        {"epochs": 9, "batch_size": 3, "averaging": 0.9, "own_words": 0.3},
        {"epochs": 3, "batch_size": 3, "fine_tune_encoder": True, "bf16": True},
    ],
    "search": {"max_words": 8},
    "validation_beam_size": 2,
}


def train_by_command(folder: Path, ready) -> None:
    torch.set_num_threads(1)
    ready.set()  # all is imported, which took longer than the training will
    words = [
        "train",
        "--to",
        str(folder),
        "--resume",
        "--checkpoint-minutes",
        "0",
    ]
    if not (
        folder / "recipe.json"
    ).exists():  # from then on the folder knows what it is for
        words += ["--recipe", str(folder.parent / "recipe.json")]
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        status = cli.main(words)
    if status:
        (folder.parent / "said").write_text(said.getvalue())
    sys.exit(status)


@pytest.mark.kills
def test_twenty_kills_at_random_moments_and_the_command_resumes(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    whole = tmp_path / "whole"
    ready = PROCESSES.Event()
    process = start(train_by_command, whole, ready)
    ready.wait()
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0, (tmp_path / "said").read_text()
    seconds = time.monotonic() - began

    seed = int(
        os.environ.get("KILLS_SEED", random.SystemRandom().randrange(10**6))
    )
    rng, kills, runs = random.Random(seed), 0, 0
    places: dict[str, int] = {}
    while kills < 20:
        folder = tmp_path / f"run{runs}"
        runs += 1
        while True:
            ready.clear()
            process = start(train_by_command, folder, ready)
            ready.wait()
            process.join(
                rng.uniform(0.02, 0.9) * seconds if kills < 20 else None
            )
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
            place = where_it_stands(folder)
            places[place] = places.get(place, 0) + 1
        assert process.exitcode == 0, (tmp_path / "said").read_text()
        for stage in (".", "stage1"):
            assert files(folder / stage) == files(whole / stage)
            assert rows(folder / stage) == rows(whole / stage)
    print(
        f"\n{kills} kills in {runs} trainings (KILLS_SEED={seed}), all to the same weights:"
    )
    for place, count in sorted(places.items()):
        print(f"{count:4}  {place}")


def where_it_stands(folder: Path) -> str:
    """What a killed training was doing, by what it has left."""
    if any(folder.rglob(".last.*")) or any(folder.rglob(".best.*")):
        return "while a checkpoint was being written"
    if not list(folder.glob("data/WORDMAP_*")):
        return "before the data were there"
    if not list(folder.rglob("last")):
        return "before the first checkpoint"
    return "between checkpoints"
