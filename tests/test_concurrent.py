"""Trainings and preparations at the same time, killed at random: nothing wrong is ever read.

Two trainings, each with its own image size, read one folder of data, which others prepare anew
from other captions meanwhile. Whatever survives ends with the weights of an undisturbed training.
"""

import contextlib
import io
import os
import random
import sys
import time
from pathlib import Path

import pytest
import torch

from captionlib import cli
from captionlib.io.files import InputError, read_json, write_json
from captionlib.io.identity import of_data
from captionlib.model import CaptionModel
from tests.small_training import make_model
from tests.test_resume import PROCESSES, files, rows
from tests.trees import flickr_tree

SIZES, EPOCHS = (64, 96), 2
SMALL = "--attention-dim 8 --embed-dim 8 --decoder-dim 8 --max-words 6"
TRAIN = f"{SMALL} --batch-size 2 --epochs {EPOCHS} --averaging 0.9 --mirrored"
TRAIN += " --resume --checkpoint-minutes 0"
# What a process may say that was not killed.
IN_ORDER = (
    "is being prepared or read by another process",
    "was begun with other data (other training captions, other validation",
    "holds no prepared data; prepare it first",  # its preparation was killed
)


def command(words: list, said: Path, ready) -> None:
    torch.set_num_threads(1)
    ready.set()
    err = io.StringIO()
    out = contextlib.redirect_stdout(io.StringIO())
    with out, contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    said.write_text(err.getvalue())
    sys.exit(status)


class World:
    """Data sets A and B, which differ in captions alone, and what is made of them."""

    def __init__(self, folder: Path):
        self.folder, self.data, self.started = folder, folder / "data", 0
        first, self.images = flickr_tree(folder, train=8)
        stored = read_json(first)
        for image in stored["images"]:
            for sentence in image["sentences"]:
                sentence["tokens"].reverse()
        write_json(folder / "B.json", stored)
        self.json = {"A": first, "B": folder / "B.json"}
        self.identity = {}
        self.trainings = {size: folder / f"m{size}" for size in SIZES}

    def start(self, words: list):
        ready = PROCESSES.Event()
        self.started += 1
        process = PROCESSES.Process(
            target=command,
            args=(words, self.folder / f"said{self.started}", ready),
        )
        process.said = self.folder / f"said{self.started}"
        process.start()
        ready.wait(60)
        return process

    def prepare(self, name: str, to: Path | None = None):
        words = ["prepare", "--karpathy-json", self.json[name], "--to"]
        words += [to or self.data, "--images", self.images]
        return self.start([*words, "--min-word-freq", 1, "--workers", 1])

    def train(self, size: int, to: Path, data: Path | None = None):
        words = ["train", "--to", to, "--data", data or self.data]
        return self.start([*words, "--image-size", size, *TRAIN.split()])

    def remember(self) -> None:
        """Prepare both data sets in folders where nobody disturbs them."""
        for name in self.json:
            finish(self.prepare(name, self.folder / name))
            self.identity[name] = of_data(self.folder / name)

    def undisturbed(self, name: str, size: int) -> Path:
        to = self.folder / f"whole{name}{size}"
        if not to.exists():
            finish(self.train(size, to, self.folder / name))
        return to

    def name_of(self, training: Path) -> str:
        """The data that a training was begun with; A, if it never was."""
        for last in (training / "last", training / ".last.old"):
            if (last / "training.json").exists():
                found = read_json(last / "training.json")["data"]["contents"]
                return next(n for n in self.json if self.identity[n] == found)
        return "A"


def finish(process) -> None:
    process.join(300)
    assert process.exitcode == 0, process.said.read_text()


def disturb(world: World, rng: random.Random, seconds: float) -> int:
    """Let all run at once, and kill some; return how many."""
    wanted = world.name_of(world.trainings[rng.choice(SIZES)])
    if rng.random() < 0.8:  # else one may have to wait for its data
        finish(world.prepare(wanted))
    processes = [world.train(size, to) for size, to in world.trainings.items()]
    time.sleep(rng.uniform(0, seconds / 2))
    processes.append(world.prepare(rng.choice("AB")))
    kills = 0
    rng.shuffle(processes)
    for process in processes[: rng.randint(1, 3)]:
        process.join(rng.uniform(0, seconds / 2))
        kills += process.exitcode is None
        process.kill()
    for process in processes:
        process.join(300)
        if process.exitcode not in (0, -9):
            said = process.said.read_text()
            assert process.exitcode == 2 and said.count("\n") == 1, said
            assert any(line in said for line in IN_ORDER), said
    return kills


def check(world: World, size: int) -> None:
    """Compare a training that is over with an undisturbed one."""
    to = world.trainings[size]
    whole = world.undisturbed(world.name_of(to), size)
    assert files(to) == files(whole) and rows(to) == rows(whole)


@pytest.mark.kills
def test_killed_beside_each_other_they_read_nothing_wrong(tmp_path):
    anything = random.SystemRandom().randrange(10**6)
    seed = int(os.environ.get("KILLS_SEED", anything))
    least = int(os.environ.get("KILLS", 12))
    world, rng, kills = World(tmp_path), random.Random(seed), 0
    rounds, over = 0, len(SIZES)
    world.remember()
    finish(world.prepare("A"))
    began = time.monotonic()
    world.undisturbed("A", SIZES[0])
    seconds = time.monotonic() - began
    while kills < least:
        kills += disturb(world, rng, seconds)
        rounds += 1
        for size, to in world.trainings.items():
            if len(rows(to) if (to / "last").exists() else []) == EPOCHS:
                check(world, size)
                over += 1
                world.trainings[size] = tmp_path / f"m{size}.{rounds}"
    for size, to in world.trainings.items():
        finish(world.prepare(world.name_of(to)))
        finish(world.train(size, to))
        check(world, size)
    print(
        f"\n{kills} kills in {rounds} rounds (KILLS_SEED={seed}): {over} "
        "trainings, all to the weights of undisturbed ones"
    )


# A model that is read while it is replaced


def save_again_and_again(folder: Path, stop) -> None:
    torch.set_num_threads(1)
    model, number = make_model(), 0
    while not stop.is_set():
        number += 1
        model.metrics = {"number": number}
        torch.nn.init.constant_(model.decoder.fc.bias, number)
        model.save(folder / "best")
        # A reader needs a moment between two models, as between two epochs.
        stop.wait(random.uniform(0, 0.2))


def test_a_model_that_is_being_replaced_is_read_whole(tmp_path):
    """Never the weights of one epoch with the scores of another, and never an error."""
    stop = PROCESSES.Event()
    writer = PROCESSES.Process(
        target=save_again_and_again, args=(tmp_path, stop)
    )
    writer.start()
    seen, until = set(), time.monotonic() + 60
    try:
        while len(seen) < 12 and time.monotonic() < until:
            try:
                model = CaptionModel.load(tmp_path)
            except InputError:
                assert not seen, "it was there before"
                continue
            number = model.metrics["number"]
            assert (model.decoder.fc.bias == number).all()
            seen.add(number)
    finally:
        stop.set()
        writer.join(60)
    assert len(seen) >= 2 and writer.exitcode == 0
