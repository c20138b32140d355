"""The original's checkpoints: converted, they caption as before; hostile ones are refused."""

import copyreg
import functools
import io
import json
import operator
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from captionlib import Captioner, cli
from captionlib.data import Vocabulary
from captionlib.io.backbones import torchvision
from captionlib.io.files import InputError
from captionlib.model import CaptionModel
from captionlib.original.convert import KINDS, convert, read_original
from captionlib.original.inert import MAGIC, opened

D, A, E, H = 512, 13, 7, 11  # ResNet-18's channels; the rest small
WORDS = [
    "a",
    "dog",
    "cat",
    "runs",
    "sits",
    "on",
    "grass",
    "near",
    "the",
    "ball",
]
ZIP, STREAM = "zip", "stream"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def models():
    """The original's module, as it was called when its checkpoints were saved."""
    spec = spec_from_file_location(
        "models", Path(__file__).with_name("original.py")
    )
    module = module_from_spec(spec)
    sys.modules["models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["models"]


@pytest.fixture(scope="module")
def word_map(tmp_path_factory):
    """As the original numbers words: `<pad>` is 0 and stands last."""
    ids = {
        word: id
        for id, word in enumerate(
            [*WORDS, "<unk>", "<start>", "<end>"], start=1
        )
    }
    path = (
        tmp_path_factory.mktemp("words")
        / "WORDMAP_coco_5_cap_per_img_5_min_word_freq.json"
    )
    path.write_text(json.dumps(ids | {"<pad>": 0}))
    return path


@pytest.fixture(scope="module")
def images():
    """Four images of many colours, as they are stored."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(
        rng.integers(0, 256, (4, 3, 6, 6), dtype=np.uint8)
    )
    return nn.functional.interpolate(
        coarse.float(), (256, 256), mode="bilinear"
    ).to(torch.uint8)


def normalised(images):
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.fixture(scope="module")
def checkpoint(models, images):
    """What the original's train.py would save, after some training."""
    torch.manual_seed(5)
    encoder = models.Encoder(torchvision.models.get_model("resnet18"))
    encoder(
        normalised(images)
    )  # in training mode: batch norm's statistics move
    torch.manual_seed(57)
    decoder = models.DecoderWithAttention(A, E, H, len(WORDS) + 4, D)
    with (
        torch.no_grad()
    ):  # so that images, words and beams differ, and captions end
        for weight in decoder.parameters():
            weight.mul_(4)
        for layer, factor in (
            (decoder.fc, 3),
            (decoder.init_h, 10),
            (decoder.init_c, 10),
        ):
            layer.weight.mul_(factor)
        decoder.attention.encoder_att.weight.mul_(5)
        decoder.decode_step.weight_ih.mul_(2)
        decoder.fc.bias[0] = decoder.fc.bias[
            12
        ] = -50  # neither <pad> nor <start>
        decoder.fc.bias[13] += 1  # <end>
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.0)
    for weight in decoder.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "epoch": 12,
        "epochs_since_improvement": 0,
        "bleu-4": 0.2325,
        "encoder": encoder.eval(),
        "decoder": decoder.eval(),
        "encoder_optimizer": None,
        "decoder_optimizer": optimizer,
    }


def save(checkpoint, path, kind) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(checkpoint, path, _use_new_zipfile_serialization=kind == ZIP)
    return path


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        kind: save(checkpoint, folder / f"{kind}.pth.tar", kind)
        for kind in (ZIP, STREAM)
    }


@pytest.fixture(scope="module")
def converted(files, word_map, tmp_path_factory):
    """The folder that the command makes of the older format."""
    to = tmp_path_factory.mktemp("converted") / "model"
    words = ["convert", files[STREAM], "--word-map", word_map, "--to", to]
    assert cli.main([str(word) for word in words]) == 0
    return to


# --------------------------------------------------------------------------- it captions as before


@torch.no_grad()
def write(
    decoder, encoder_out, start: int, end: int, k: int
) -> tuple[list[int], float]:
    """The original's search for one image's pixels (1, P, D), in plain Python: best of k ended."""
    live, ended = [(0.0, [start], decoder.start(encoder_out))], []
    for _ in range(51):
        candidates = []
        for total, words, state in live:
            logits, state, _ = decoder.step(
                torch.tensor([words[-1]]), state, encoder_out
            )
            for word, log_prob in enumerate(
                logits[0].log_softmax(dim=0).tolist()
            ):
                candidates.append((total + log_prob, [*words, word], state))
        chosen = sorted(candidates, key=lambda one: -one[0])[: k - len(ended)]
        ended += [one for one in chosen if one[1][-1] == end]
        live = [one for one in chosen if one[1][-1] != end]
        if not live:
            break
    total, words, _ = max(ended, key=lambda one: one[0])
    return words[1:-1], total


@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_a_converted_checkpoint_says_the_same_words(
    checkpoint, converted, word_map, images, beam_size
):
    vocabulary = Vocabulary.load(word_map)
    with torch.no_grad():
        grids = checkpoint["encoder"](normalised(images)).flatten(1, 2)
    found = Captioner.from_pretrained(converted).caption_batch(
        images.numpy(), beam_size
    )
    said = set()
    for grid, caption in zip(grids, found, strict=True):
        ends = (vocabulary.start, vocabulary.end)
        words, total = write(
            checkpoint["decoder"], grid[None], *ends, beam_size
        )
        assert caption.words == vocabulary.decode(words) and caption.finished
        assert caption.log_prob == pytest.approx(total, rel=1e-3)
        assert caption.alphas.shape == (len(words), 14, 14)
        said.add(caption.text)
    assert len(said) == 4  # not the same for every image


def test_logits_and_alphas_are_the_originals(
    checkpoint, models, word_map, images, tmp_path
):
    torch.manual_seed(0)
    decoder = models.DecoderWithAttention(A, E, H, len(WORDS) + 4, D).eval()
    old = save(checkpoint | {"decoder": decoder}, tmp_path / "old", STREAM)
    model = read_original(old, word_map)
    captions = torch.randint(
        1, 11, (4, 9), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        output = model(images, captions, torch.tensor([9] * 4))
        grids = checkpoint["encoder"](normalised(images)).flatten(1, 2)
        size = float(grids.abs().max())  # rounding grows with the numbers
        assert_close(
            model.encode(images).flatten(1, 2), grids, atol=1e-5 * size, rtol=0
        )
        state, steps = decoder.start(grids), []
        for t in range(8):
            logits, state, alpha = decoder.step(captions[:, t], state, grids)
            steps.append(logits)
            assert_close(output.alphas[:, t], alpha, atol=1e-5, rtol=0)
    packed = torch.stack(steps).flatten(
        0, 1
    )  # step after step, as packing has it
    assert_close(output.logits.data, packed, atol=1e-5, rtol=0)


def test_both_formats_give_one_model(files, word_map, converted, tmp_path):
    assert zipfile.is_zipfile(files[ZIP]) and not zipfile.is_zipfile(
        files[STREAM]
    )
    convert(files[ZIP], word_map, tmp_path)
    for name in ("model.safetensors", "vocabulary.json", "config.json"):
        assert (tmp_path / name).read_bytes() == (
            converted / name
        ).read_bytes(), name


def test_the_folder_says_what_the_original_had_fixed(converted, checkpoint):
    stored = json.loads((converted / "config.json").read_text())
    shape = {
        "backbone": "resnet18",
        "grid_size": 14,
        "image_size": 256,
        "dropout": 0.5,
    }
    shape |= {"attention_dim": A, "embed_dim": E, "decoder_dim": H}
    assert shape.items() <= stored["model"].items()
    assert stored["encoder_weights"] == "saved"  # it may have been fine-tuned
    about = {
        "epoch": 13,
        "teacher_forced_bleu4": 23.25,
        "mean": MEAN,
        "std": STD,
    }
    assert stored["metrics"] == {"converted": about}
    assert (
        stored["search"]["beam_size"] == 5
        and stored["search"]["length_normalisation"] == 0
    )
    ours = CaptionModel.load(converted).encoder.trunk.layer1[0].bn1
    assert_close(
        ours.running_var, checkpoint["encoder"].resnet[4][0].bn1.running_var
    )


def test_what_pytorch_0_4_wrote_is_read(
    light, files, word_map, monkeypatch, tmp_path
):
    """Parameters, modules and batch norm were saved differently by the tutorial's own version."""
    thnn = ModuleType("torch.nn.backends.thnn")

    def _get_thnn_function_backend():
        raise AssertionError("a name in the file was called")

    class Backend:
        def __reduce__(self):
            return thnn._get_thnn_function_backend, ()

    _get_thnn_function_backend.__module__ = thnn.__name__
    _get_thnn_function_backend.__qualname__ = "_get_thnn_function_backend"
    thnn._get_thnn_function_backend = _get_thnn_function_backend
    monkeypatch.setitem(
        sys.modules, "torch.nn.backends", ModuleType("torch.nn.backends")
    )
    monkeypatch.setitem(sys.modules, thnn.__name__, thnn)
    expected = read_original(save(light, tmp_path / "new", STREAM), word_map)
    for module in [*light["encoder"].modules(), *light["decoder"].modules()]:
        monkeypatch.setattr(module, "_backend", Backend(), raising=False)
        if isinstance(module, nn.BatchNorm2d):
            monkeypatch.delitem(module._buffers, "num_batches_tracked")
    monkeypatch.setattr(
        nn.Parameter,
        "__reduce_ex__",
        lambda self, _: (nn.Parameter, (self.data, True)),
    )
    old = save(light, tmp_path / "old", STREAM)
    assert (
        b"thnn\n_get_thnn" in old.read_bytes()
        and b"num_batches" not in old.read_bytes()
    )
    found = read_original(old, word_map).state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor) or name.endswith(
            "num_batches_tracked"
        ), name


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW]
)
def test_an_optimizer_of_any_usual_kind_is_passed_over(kind, tmp_path):
    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    path = save(
        {"optimizer": optimizer, "weight": weight}, tmp_path / "old", ZIP
    )
    with opened(path, KINDS) as (root, numbers):
        assert root["optimizer"].kind.split()[1] == kind.__name__
        assert torch.equal(numbers(root["weight"]), weight.detach())


# ------------------------------------------------------------------- other models than the original


@pytest.fixture(scope="module")
def light(checkpoint, models):
    """The same model in a file of a fifth the size: the encoder's weights share one storage."""
    torch.manual_seed(0)
    encoder = models.Encoder(torchvision.models.get_model("resnet18"))
    shared = torch.randn(max(weight.numel() for weight in encoder.parameters()))
    for weight in encoder.parameters():
        weight.data = shared[: weight.numel()].view(weight.shape)
    return checkpoint | {"encoder": encoder, "decoder_optimizer": None}


def one_line(error) -> str:
    line = str(error.value)
    assert line and "\n" not in line and len(line) < 400
    return line


DIFFERENT = [
    ("encoder.resnet.1", "eps", 1e-3, "another eps"),
    ("encoder.resnet.5.0.conv1", "stride", (1, 1), "another stride"),
    ("encoder.resnet.5", "_modules", {}, "blocks of BasicBlock"),
    ("encoder.resnet", "_modules", {}, "not a ResNet"),
    ("encoder", "fc", nn.Linear(2, 2), "not a ResNet"),
    ("encoder.adaptive_pool", "output_size", (14, 7), "not square"),
    ("encoder.adaptive_pool", "output_size", 2**30, "not square"),
    ("decoder.attention", "relu", nn.Sigmoid(), "no attention.relu"),
    ("decoder.attention", "full_att", nn.Linear(13, 2), "another shape"),
    ("decoder.attention", "extra", nn.Linear(2, 2), "no attention.extra"),
    ("decoder.fc", "bias", None, "other weights"),
    (
        "decoder.f_beta",
        "weight",
        nn.Parameter(torch.full((D, H), torch.nan)),
        "not finite",
    ),
    (
        "decoder.embedding",
        "weight",
        nn.Parameter(torch.zeros(0, E)),
        "shape is wrong",
    ),
    (
        "decoder.embedding",
        "weight",
        nn.Parameter(torch.zeros(9, E)),
        "was trained with 9",
    ),
    (
        "decoder.init_h",
        "weight",
        nn.Parameter(torch.zeros(H, D).half()),
        "HalfStorage",
    ),
    ("decoder.dropout", "p", 2.0, "dropout must be"),
]


@pytest.mark.parametrize(("where", "name", "value", "said"), DIFFERENT)
def test_a_model_that_would_caption_otherwise_is_refused(
    light, word_map, monkeypatch, tmp_path, where, name, value, said
):
    part, *path = where.split(".")
    module = light[part].get_submodule(".".join(path))
    own = module._parameters if name in module._parameters else module._modules
    if name in own or isinstance(value, nn.Module):
        monkeypatch.setitem(own, name, value)
    else:
        monkeypatch.setattr(module, name, value)
    old = save(light, tmp_path / "old.pth.tar", ZIP)
    with pytest.raises(InputError, match=said) as error:
        convert(old, word_map, tmp_path / "new")
    assert str(tmp_path) in one_line(error)
    assert not (tmp_path / "new").exists()


def test_other_files_are_refused(light, word_map, tmp_path):
    other = {
        "a state dict": light["decoder"].state_dict(),
        "a module": light["decoder"],
        "a list": [1, 2],
        "no decoder": {"encoder": light["encoder"]},
    }
    for name, value in other.items():
        with pytest.raises(InputError, match="holds no pickled") as error:
            read_original(save(value, tmp_path / name, ZIP), word_map)
        one_line(error)
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(word_map, "storages")
    (tmp_path / "empty").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "empty zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    for name in ("tar", "empty", "empty zip"):
        with pytest.raises(InputError) as error:
            read_original(tmp_path / name, word_map)
        one_line(error)


def test_converting_spares_what_is_in_the_folder(light, word_map, tmp_path):
    old = save(light, tmp_path / "old", ZIP)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "notes.txt").write_text("mine")
    for _ in range(2):  # again is no harm
        convert(old, word_map, tmp_path / "to")
    assert (tmp_path / "to" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "to").iterdir())) == 4
    (tmp_path / "training" / "best").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a training"):
        convert(old, word_map, tmp_path / "training")


# --------------------------------------------------------------------------------- hostile pickles


class Evil:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    "os.system": lambda mark: Evil(os.system, f"touch {mark}"),
    "eval": lambda mark: Evil(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Evil(exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Evil(open, str(mark), "w"),
    "getattr": lambda mark: Evil(getattr, [], "append"),
    "__import__": lambda mark: Evil(__import__, "os"),
    "map": lambda mark: Evil(map, print, [1]),
    "Popen": lambda mark: Evil(subprocess.Popen, ["touch", str(mark)]),
    "partial": lambda mark: Evil(functools.partial, os.system, f"touch {mark}"),
    "attrgetter": lambda mark: Evil(operator.attrgetter, "system"),
    "methodcaller": lambda mark: Evil(operator.methodcaller, "touch"),
    "_reconstructor": lambda mark: Evil(
        copyreg._reconstructor, Path, object, None
    ),
    "loads": lambda mark: Evil(
        pickle.loads, pickle.dumps(Evil(open, str(mark), "w"))
    ),
    "torch.load": lambda mark: Evil(torch.load, str(mark)),
    "hub.load": lambda mark: Evil(torch.hub.load, str(mark), "x"),
    "_load_from_bytes": lambda mark: Evil(torch.storage._load_from_bytes, b""),
    "other layer": lambda mark: nn.LSTM(2, 2),
    "array": lambda mark: np.zeros(3),
    "size": lambda mark: torch.Size([2, 2]),
    "generator": lambda mark: Path(mark),
}


@pytest.mark.parametrize("kind", [ZIP, STREAM])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_asks_for_anything_else_is_refused(
    models, word_map, tmp_path, monkeypatch, attack, kind
):
    mark = tmp_path / "it ran"
    decoder = models.DecoderWithAttention(A, E, H, 9, D)
    decoder.note = ATTACKS[attack](mark)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    optimizer.state[weight]["step"] = ATTACKS[attack](mark)
    places = {
        "alone": ATTACKS[attack](mark),
        "in a module": {"decoder": decoder},
        "in a list of lists": {"epoch": [[ATTACKS[attack](mark)]]},
        "in an optimizer": {"decoder_optimizer": optimizer},
        "in a set": {"epoch": {1, "two", ATTACKS[attack](mark)}}
        if attack != "array"
        else None,
        "as a class": {
            "epoch": ATTACKS[attack](mark).__class__,
            "x": ATTACKS[attack](mark),
        },
    }
    for place, value in places.items():
        if value is None:
            continue
        old = save(value, tmp_path / "old", kind)
        with pytest.raises(InputError, match="asks for") as error:
            read_original(old, word_map)
        assert "which no checkpoint of the tutorial needs" in one_line(error), (
            place
        )
        assert not mark.exists()


def test_nothing_that_a_file_names_is_imported(word_map, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(
        "raise SystemExit('it was imported')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stream(tmp_path / "old", b"cevil_module\nanything\n.")
    with pytest.raises(InputError, match=r"asks for evil_module\.anything"):
        read_original(tmp_path / "old", word_map)
    assert "evil_module" not in sys.modules


def stream(path, root: bytes, keys=(), storages: bytes = b"") -> Path:
    """A file of the older format, around any pickle."""
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(
        pickle.dumps(value, protocol=2) for value in (MAGIC, 1001, about)
    )
    path.write_bytes(
        head + root + pickle.dumps(list(keys), protocol=2) + storages
    )
    return path


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
INSTRUCTIONS = {
    "INST": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "OBJ": b"(cmodels\nEncoder\no.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "EXT1": b"\x82\x01.",
    "NEWOBJ_EX": b"cmodels\nEncoder\n)}\x92.",
    "PERSID": b"Pstorage\n.",
    "call of a class": b"cmodels\nEncoder\n)R.",
    "call of a number type": b"ctorch\nFloatStorage\n)R.",
    "call of a word": b"X\x04\x00\x00\x00eval)R.",
    "call without arguments": b"R.",
    "call with another number of arguments": TENSOR + b")R.",
    "call on a list": b"c__builtin__\nset\n]R.",
    "object of a function": TENSOR + b")\x81.",
    "object with arguments": b"cmodels\nEncoder\nK\x01\x85\x81.",
    "state of a function": TENSOR + b"}b.",
    "state that is no dictionary": b"cmodels\nEncoder\n)\x81]b.",
    "state that wants to be called": b"}X\x07\x00\x00\x00encodercmodels\nEncoder\n)\x81"
    b"}X\x0c\x00\x00\x00__setstate__" + TENSOR + b"sb}bs.",
    "append to a dictionary": b"}K\x01a.",
    "item of a list": b"]X\x01\x00\x00\x00xK\x01s.",
    "key without a value": b"}(X\x01\x00\x00\x00xu.",
    "key that is a deep tuple": b"})" + b"\x85" * 150_000 + b"K\x01s.",
    "deep tuple": b")" + b"\x85" * 150_000 + b".",
    "deep list": b"]" * 150_000 + b"a" * 149_999 + b".",
    "text of four gigabytes": b"X\xff\xff\xff\xfftext.",
    "number of two gigabytes": b"\x8b\xff\xff\xff\x7f1.",
    "never remembered": b"h\x05.",
    "nothing": b".",
    "no end": b"]]]",
    "unknown instruction": b"\xff.",
    "storage of nothing": b"X\x07\x00\x00\x00storage\x85Q.",
    "no storage": b"NQ.",
    "module that is none": b"X\x06\x00\x00\x00modulecmodels\nmodels\n\x86Q.",
    "tensor without storage": TENSOR + b"(NK\x00))tR.",
    "parameter without tensor": b"ctorch._utils\n_rebuild_parameter\nN\x85R.",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_odd_program_ends_in_one_line(word_map, tmp_path, name):
    old = stream(tmp_path / "old", INSTRUCTIONS[name])
    if "gigabytes" in name:
        tracemalloc.start()
    with pytest.raises(InputError) as error:
        read_original(old, word_map)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert str(old) in one_line(error)


def test_a_program_without_end_is_stopped(word_map, tmp_path, monkeypatch):
    monkeypatch.setattr("captionlib.original.inert.MOST", 1000)
    with pytest.raises(InputError, match="too long"):
        read_original(stream(tmp_path / "old", b"N" * 2000 + b"."), word_map)


def test_a_module_inside_itself_is_refused(
    light, word_map, tmp_path, monkeypatch
):
    monkeypatch.setitem(light["decoder"]._modules, "again", light["decoder"])
    with pytest.raises(InputError, match="contains itself"):
        read_original(save(light, tmp_path / "old", STREAM), word_map)


class Claim:
    """A storage of so many numbers, says the file."""

    def __init__(self, numel, key="0"):
        self.numel, self.key = numel, key


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Claim):
            return (
                "storage",
                torch.FloatStorage,
                value.key,
                "cpu",
                value.numel,
                None,
            )
        return None


SHAPES = {  # storage, offset, size, stride
    "a storage of terabytes": (Claim(2**39), 0, (2**39,), (1,)),
    "a storage beyond any": (Claim(2**70), 0, (2,), (1,)),
    "a negative storage": (Claim(-4), 0, (2,), (1,)),
    "a storage of half a number": (Claim(1.5), 0, (1,), (1,)),
    "one number, repeated": (Claim(4), 0, (2**36,), (0,)),
    "four numbers, repeated": (Claim(4), 0, (2, 2, 2, 2), (0, 0, 0, 0)),
    "beyond the end": (Claim(4), 3, (2,), (1,)),
    "before the start": (Claim(4), -1, (2,), (1,)),
    "backwards": (Claim(4), 3, (2,), (-1,)),
    "too wide a step": (Claim(4), 0, (2,), (4,)),
    "fewer steps than sides": (Claim(4), 0, (2, 2), (1,)),
    "many sides": (Claim(4), 0, (1,) * 99, (1,) * 99),
    "a side that is no number": (Claim(4), 0, ("2",), (1,)),
    "another place": (Claim(4, key="../../etc/passwd"), 0, (4,), (1,)),
}


@pytest.mark.parametrize("kind", [ZIP, STREAM])
@pytest.mark.parametrize("name", SHAPES)
def test_a_size_that_is_a_lie_costs_nothing(tmp_path, name, kind):
    buffer = io.BytesIO()
    tensor = Evil(
        torch._utils._rebuild_tensor_v2, *SHAPES[name], False, OrderedDict()
    )
    Pickler(buffer, protocol=2).dump(tensor)
    old, numbers = tmp_path / "old", np.arange(4, dtype="<f4").tobytes()
    if kind == ZIP:
        with zipfile.ZipFile(old, "w") as archive:
            archive.writestr(
                "archive/data.pkl", buffer.getvalue().replace(b"Nt", b"t")
            )
            archive.writestr("archive/data/0", numbers)
    else:
        stream(old, buffer.getvalue(), ["0"], struct.pack("<q", 4) + numbers)
    tracemalloc.start()
    with pytest.raises(InputError) as error, opened(old, KINDS) as (root, read):
        read(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(old) in one_line(error)
    assert peak < 5e6


def test_a_compressed_archive_is_refused(files, word_map, tmp_path):
    with zipfile.ZipFile(
        tmp_path / "old", "w", zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N" * 10_000 + b".")
    with pytest.raises(InputError, match="compressed"):
        read_original(tmp_path / "old", word_map)


# ------------------------------------------------------------------------------------ damaged files


def read_or_refuse(old, word_map) -> bool:
    """Whether it gives a model; anything but a model or one clear line fails the test."""
    try:
        model = read_original(old, word_map)
    except InputError as error:
        line = str(error)
        assert line and "\n" not in line and len(line) < 400
        return False
    assert isinstance(model, CaptionModel)
    return True


@pytest.mark.parametrize("kind", [ZIP, STREAM])
def test_a_file_cut_short_is_refused(light, word_map, tmp_path, kind):
    old = save(light, tmp_path / "old", kind)
    size = old.stat().st_size
    rng = random.Random(0)
    for length in sorted(
        (size - 1, *(rng.randrange(size) for _ in range(20))), reverse=True
    ):
        os.truncate(old, length)
        assert not read_or_refuse(old, word_map)


@pytest.mark.parametrize("kind", [ZIP, STREAM])
def test_flipped_bytes_give_a_model_or_one_line(
    light, word_map, tmp_path, kind
):
    old = save(light, tmp_path / "old", kind)
    content = old.read_bytes()
    # Where the program is, and what lies about the storages; then anywhere, mostly in weights.
    program = content.index(b"epochs_since_improvement") + 120_000
    tail = len(content) - 10_000
    rng = random.Random(1)
    places = [rng.randrange(program) for _ in range(85)]
    places += [rng.randrange(tail, len(content)) for _ in range(15)]
    places += [rng.randrange(len(content)) for _ in range(10)]
    models = 0
    with open(old, "r+b", buffering=0) as file:
        for place in places:
            for byte in (
                content[place] ^ (1 << rng.randrange(8)),
                content[place],
            ):
                file.seek(place)
                file.write(bytes([byte]))
                if byte != content[place]:
                    models += read_or_refuse(old, word_map)
    assert old.read_bytes() == content
    assert 0 < models < len(places)
