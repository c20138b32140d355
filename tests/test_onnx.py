"""A captioner as ONNX graphs: the same numbers, and the same captions without PyTorch."""

import contextlib
import io
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from captionlib import Captioner, cli
from captionlib.attention import Attention
from captionlib.config import ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.io.files import ASSETS, InputError
from captionlib.io.images import read_image
from captionlib.model import CaptionEnsemble, CaptionModel
from captionlib.onnx import write_graphs
from captionlib.onnx.export import FILES, SCRIPT

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore:.*(treespec|axis name)")

BOOK = ASSETS.parent.parent / "book"
PHOTOGRAPHS = sorted(
    {
        path.name: path
        for path in [*BOOK.glob("gallery/*.jpg"), *ASSETS.glob("*.jpg")]
    }.values()
)
TOKENS = "<pad> a dog runs on grass <unk> <start> <end>".split()
WORDS = Vocabulary({word: i for i, word in enumerate(TOKENS)})


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def refused(*words) -> str:
    """The one line with which the command refuses."""
    status, out, err = call("export", *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


# ------------------------------------------------------------------ the same numbers


def make_pair() -> CaptionEnsemble:
    """Two untrained captioners that share an encoder, not the grids' length."""
    torch.manual_seed(0)
    encoder = Encoder("resnet18", grid_size=9, pretrained=False)
    configs = [
        ModelConfig("resnet18", 9, None, dim, 11, 9, 13) for dim in (None, 17)
    ]
    members = [CaptionModel(config, WORDS, encoder) for config in configs]
    return CaptionEnsemble(members).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    """A captioner and an ensemble: the folders of their graphs.

    One replaces an earlier export."""
    folder = tmp_path_factory.mktemp("graphs")
    make_pair().save(folder / "model")
    (folder / "toy").mkdir()
    (folder / "toy" / "step.onnx").write_text("an earlier one")
    for name, model in ("toy", "toy"), ("pair", folder / "model"):
        status, out, err = call(
            "export", "--model", model, "--to", folder / name
        )
        assert (status, err) == (0, "") and out.count("\n") == 1
        assert str(folder / name / "caption.py") in out
    return {"toy": folder / "toy", "pair": folder / "pair"}


def stored(name: str, exported: dict) -> str:
    """What names a captioner."""
    return name if name == "toy" else str(exported[name].with_name("model"))


def tensors(state) -> dict:
    """What a state holds, under the graphs' names."""
    if hasattr(state, "members"):
        return {
            f"members_{number}_{name}": tensor
            for number, member in enumerate(state.members)
            for name, tensor in tensors(member).items()
        }
    return state._asdict()


@pytest.mark.parametrize("name", ["toy", "pair"])
def test_a_weight_is_stored_once(name, exported):
    model, folder = CaptionModel.load(stored(name, exported)), exported[name]
    size = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    weights = 4 * sum(tensor.numel() for tensor in model.parameters())
    assert 0.9 * weights < size < 1.1 * weights


@torch.inference_mode()
@pytest.mark.parametrize("images, rows", [(1, 1), (1, 7), (2, 1), (3, 4)])
@pytest.mark.parametrize("name", ["toy", "pair"])
def test_the_graphs_compute_what_the_model_computes(
    name, images, rows, exported
):
    """From pixels through every step of captions of five words."""
    model, folder = CaptionModel.load(stored(name, exported)), exported[name]
    encoder, step = (
        onnxruntime.InferenceSession(str(folder / f"{graph}.onnx"))
        for graph in ("encoder", "step")
    )
    pixels = np.stack([read_image(path) for path in PHOTOGRAPHS[:images]])
    state = model.decoder.begin(model.encode(torch.from_numpy(pixels)))
    names = [each.name for each in encoder.get_outputs()]
    found = dict(zip(names, encoder.run(None, {"images": pixels}), strict=True))
    for key, tensor in tensors(state).items():
        assert found[key].reshape(tensor.shape) == pytest.approx(
            tensor.numpy(), abs=1e-4
        )
    state = state.select(torch.arange(images).repeat_interleave(rows))
    for key in found:
        if key.endswith(("hidden", "cell")):
            found[key] = found[key].repeat(rows, axis=1)
    names = [each.name for each in step.get_outputs()]
    draw = torch.Generator().manual_seed(0)
    for _ in range(6):
        words = torch.randint(
            len(model.vocabulary), (images, rows), generator=draw
        )
        logits, alpha, state = model.decoder.step(words.flatten(), state)
        given = {"words": words.numpy(), **found}
        results = dict(zip(names, step.run(None, given), strict=True))
        expected = {"log_probs": logits.log_softmax(dim=1), "alpha": alpha}
        for key, tensor in tensors(state).items():
            if f"next_{key}" in results:
                expected[f"next_{key}"] = tensor
                found[key] = results[f"next_{key}"]
        assert expected.keys() == results.keys()
        for key, tensor in expected.items():
            assert results[key].shape[:2] == (images, rows)
            assert results[key].reshape(tensor.shape) == pytest.approx(
                tensor.numpy(), abs=1e-4
            )


# ----------------------------------------------------------------- the same captions


@pytest.mark.parametrize("name", ["toy", "pair"])
def test_the_script_captions_without_pytorch(name, exported, tmp_path):
    """In a process of its own, in which torch and captionlib can't be imported."""
    code = (
        "import runpy, sys\n"
        "barred = 'torch torchvision captionlib onnx onnxscript'\n"
        "sys.modules.update(dict.fromkeys(barred.split()))\n"
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = exported[name] / "caption.py"
    command = [sys.executable, "-c", code, script, *PHOTOGRAPHS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = stored(name, exported)
    _, out, _ = call("caption", "--model", model, *PHOTOGRAPHS)
    assert done.stdout == out and out.count("\n") == len(PHOTOGRAPHS) >= 10


@pytest.mark.parametrize(
    "search",
    [
        SearchConfig(beam_size=1, max_words=4, min_words=4),
        SearchConfig(beam_size=7, length_normalisation=0.7, no_repeat=3),
        SearchConfig(beam_size=4, forbid_unk=True, min_words=12, max_words=20),
        SearchConfig(beam_size=9, length_normalisation=2.0, no_repeat=1),
        SearchConfig(beam_size=500, max_words=2),
    ],
    ids=str,
)
def test_the_script_searches_as_the_package_does(
    search, exported, tmp_path, monkeypatch
):
    folder = shutil.copytree(exported["toy"], tmp_path / "copy")
    settings = json.loads((folder / "captioner.json").read_text("utf-8"))
    settings["search"] = vars(search)
    (folder / "captioner.json").write_text(json.dumps(settings))
    monkeypatch.setattr(sys, "argv", ["caption.py"])
    script = runpy.run_path(str(folder / "caption.py"))
    captioner = Captioner(CaptionModel.load("toy"), search)
    for path in PHOTOGRAPHS[:4]:
        assert script["caption"](path) == captioner.caption(path).text


def test_what_the_graphs_do_not_hold_stands_beside_them(exported):
    folder = exported["toy"]
    beside = json.loads((folder / "captioner.json").read_text("utf-8"))
    assert beside["words"] == CaptionModel.load("toy").vocabulary.words
    assert beside["image_size"] == 256
    # As `captionlib caption` writes: at least one word.
    expected = SearchConfig(beam_size=3, max_words=30, min_words=1)
    assert beside["search"] == vars(expected)
    assert (folder / "caption.py").read_text() == SCRIPT.read_text()
    assert {path.name for path in folder.iterdir()} == FILES


# ------------------------------------------------------------------------ refusals


class Small(nn.Module):
    """A captioner of 3 × 3 mean colours."""

    def __init__(self, encode):
        super().__init__()
        self.encode, self.vocabulary = encode, WORDS
        self.decoder = DecoderWithAttention(5, 4, 6, len(WORDS), encoder_dim=3)


def colours(images):
    return nn.functional.adaptive_avg_pool2d(images.float(), 3).movedim(1, -1)


def only_dark(images):
    grids = colours(images)
    return grids if grids.mean() < 128 else -grids


def noisy(images):
    grids = colours(images)
    return grids + torch.rand_like(grids)


@pytest.mark.parametrize(
    "encode, said",
    [
        (only_dark, "encoder.onnx can't be written"),
        (noisy, "differs from the model by"),
    ],
)
def test_a_model_that_has_no_graph_is_refused(encode, said, tmp_path):
    model = Small(encode).eval()
    with pytest.raises(InputError, match=said):
        write_graphs(model, tmp_path)
    assert type(model.decoder.attention) is Attention  # as it was


def test_what_is_missing_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refused("--model", "none", "--to", tmp_path / "graphs")
    assert "onnxscript" in said and 'pip install "captionlib[onnx]"' in said
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "caption.py").touch()
    (tmp_path / "holiday.jpg").touch()
    assert "holiday.jpg" in refused("--model", "none", "--to", tmp_path)
    said = refused("--model", "none", "--to", tmp_path / "holiday.jpg")
    assert "can't be written" in said
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["none", "/", "."])
def test_a_folder_without_a_captioner_is_refused(name, tmp_path):
    said = refused("--model", name, "--to", tmp_path / "graphs")
    assert "holds no captioner" in said and not list(tmp_path.iterdir())
