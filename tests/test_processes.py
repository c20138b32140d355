"""Two processes that Accelerate starts train as one does. They are real, and talk through gloo."""

import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from captionlib.engine.batches import make_loader
from captionlib.engine.loop import train
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.processes import ALONE, Processes
from captionlib.io.files import read_json
from tests.small_training import SETTINGS, FewFeatures, make_model

HERE = Path(__file__).parent
EIGHT = dataclasses.replace(
    SETTINGS, batch_size=8, label_smoothing=0.1
)  # all images in one batch
RECIPE = {
    "scenes": {"train": 9, "val": 3, "test": 0, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 1, "max_len": 20},
    # Each process drops out what it will: without dropout there is nothing to tell them apart.
    "model": {
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
        "dropout": 0.0,
    },
    "mirrored": True,
    "stages": [
        # Three batches of three images, two for one process and one for the other. Adam divides by
        # a gradient's size, and so makes much of the rounding of small ones: the rate is a low one.
        {
            "epochs": 2,
            "batch_size": 3,
            "learning_rate": 1e-3,
            "label_smoothing": 0.1,
        },
        {
            "epochs": 1,
            "batch_size": 3,
            "fine_tune_encoder": True,
            "averaging": 0.9,
        },
    ],
    "search": {"max_words": 8},
}


def a_free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def launch(command: list, folder: Path) -> str:
    """What a command prints, started in the project's folder."""
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_train_as_one_does(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    train = [
        "-m",
        "captionlib.cli",
        "train",
        "--device",
        "cpu",
        "--recipe",
        "recipe.json",
        "--to",
    ]
    launch([*train, "one"], tmp_path)
    two = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    two += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    printed = launch(
        [*two, "--main_process_port", a_free_port(), *train, "two"], tmp_path
    )

    scored = [
        line for line in printed.splitlines() if line.startswith("BLEU-4")
    ]
    assert len(scored) == 4  # three epochs, and what stage two starts from
    for stage in ("stage1", "."):
        rows = [
            [
                json.loads(row)
                for row in (tmp_path / run / stage / "log.jsonl").open()
            ]
            for run in ("one", "two")
        ]
        for one, two in zip(*rows, strict=True):
            assert (one["processes"], two["processes"]) == (1, 2)
            assert one["images"] == two["images"] == 3  # each once
            # Rounding, which Adam enlarges, reaches 4e-4 in the third epoch on
            # some processors. Gradients that are not averaged make it 2e-2.
            for name in ("loss", "nats", "penalty"):
                assert two[name] == pytest.approx(one[name], rel=1e-3), name
            assert two["bleu4"] == pytest.approx(one["bleu4"], rel=1e-3)
    written = [
        sorted(
            str(path.relative_to(tmp_path / run))
            for path in (tmp_path / run).rglob("*")
        )
        for run in ("one", "two")
    ]
    assert written[0] == written[1]


def compute_gradient(processes: Processes) -> torch.Tensor:
    """The gradient of one batch that is all the data, without dropout, as one long vector."""
    model = make_model()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    batch = next(iter(make_loader(FewFeatures(), EIGHT, processes=processes)))
    features, captions, lengths = batch
    loss_of = processes.prepare(teacher_forcing, model)
    loss, _ = loss_of(
        features,
        captions.flatten(0, 1),
        lengths.flatten(),
        EIGHT,
        processes=processes,
    )
    loss.total.backward()
    return torch.cat(
        [weight.grad.flatten() for weight in model.decoder.parameters()]
    )


class PowerCut(Exception):
    pass


def train_together(folder: str) -> None:
    """What each of two processes does in the test below; it writes down what it has seen."""
    torch.set_num_threads(1)
    processes = Processes.join("cpu")
    # Only the main process writes: what the other one is told to write to stays away.
    place = Path(folder) / str(processes.number)
    steps = []

    def run(name, dataset=None, objective=teacher_forcing, resume=False):
        model = make_model()  # with dropout
        # It may change, and nothing reads it: the features are there. So it gets no gradient.
        next(model.encoder.parameters()).requires_grad_(True)
        loader = make_loader(
            dataset or FewFeatures(), SETTINGS, processes=processes
        )
        to = (Path(folder) / "0" if resume else place) / name
        options = {
            "objective": objective,
            "resume": resume,
            "processes": processes,
        }
        train(
            model,
            loader,
            lambda model: {
                "bleu4": float(processes.number)
            },  # they must agree on one
            SETTINGS,
            to,
            checkpoint_minutes=0,
            progress=False,
            **options,
        )
        return model

    def until_the_lights_go_out(*batch, **options):
        steps.append(1)
        if len(steps) == 8:
            raise PowerCut
        return teacher_forcing(*batch, **options)

    gradients = [compute_gradient(each) for each in (ALONE, processes)]
    unbroken = run("unbroken")
    with pytest.raises(PowerCut):
        run("cut", objective=until_the_lights_go_out)
    stopped = read_json(Path(folder) / "0" / "cut" / "last" / "training.json")
    resumed = run("cut", resume=True)

    spoiled = FewFeatures()
    if processes.number == 1:
        spoiled.features[:] = math.inf
    with pytest.raises(FloatingPointError, match="epoch 1, step 1") as error:
        run("spoiled", spoiled)
    result = {
        "processes": processes.count,
        "off": (
            (gradients[0] - gradients[1]).norm() / gradients[0].norm()
        ).item(),
        "stopped": [len(stopped["history"]), stopped["so_far"]["steps"]],
        "equal": all(
            torch.equal(weight, resumed.state_dict()[name])
            for name, weight in unbroken.state_dict().items()
        ),
        "weights": sum(
            weight.double().sum().item() for weight in unbroken.parameters()
        ),
        "written": sorted(path.name for path in place.glob("*/*")),
        "order": processes.gather(list(processes.share(range(5)))),
        "error": str(error.value),
    }
    (Path(folder) / f"result{processes.number}.json").write_text(
        json.dumps(result)
    )


def test_processes_from_a_notebook_resume_to_the_same_weights(tmp_path):
    code = f"""
        from accelerate import notebook_launcher
        from test_processes import train_together
        notebook_launcher(train_together, ({str(tmp_path)!r},), num_processes=2, use_port="{{}}")
    """
    launch(["-c", textwrap.dedent(code).format(a_free_port())], tmp_path)
    main, other = (
        read_json(tmp_path / f"result{number}.json") for number in (0, 1)
    )
    assert main["processes"] == other["processes"] == 2
    assert max(main["off"], other["off"]) < 1e-6
    assert main["stopped"] == [2, 1]  # in the third epoch, after its first step
    assert main["equal"] and other["equal"]
    assert main["weights"] == other["weights"]
    assert {"best", "last", "log.jsonl"} <= set(main["written"]) and other[
        "written"
    ] == []
    assert main["order"] == other["order"] == list(range(5))
    assert (
        main["error"] == other["error"] and "epoch 1, step 1" in main["error"]
    )
    history = read_json(tmp_path / "0" / "unbroken" / "last" / "training.json")[
        "history"
    ]
    assert {row["bleu4"] for row in history} == {0.0}  # the main process's


def test_alone_there_is_nobody_to_ask(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.join()
    assert (alone.count, alone.number, alone.is_main, alone.device) == (
        1,
        0,
        True,
        None,
    )
    assert alone.even_counts(4, 0) == [4, 0]
    assert alone.agree("x") == "x" and alone.share([1, 2]) == alone.gather(
        [1, 2]
    ) == [1, 2]
    assert alone.prepare(max, 3)(2) == 3
    with alone.main_first():
        alone.wait()
