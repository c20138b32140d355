"""Read a file that `torch.save` wrote, without running any code in it.

Such a file is a pickle: a program that may import and call any function. Here
the program is read as data. `pickletools` splits it into instructions, and the
few that occur in a checkpoint build dictionaries, lists and stand-ins. A file
that names a class or function outside the allowed ones, or uses any other
instruction, is rejected. Nothing that a file names is imported or called, and
the sizes that it states are checked against its bytes.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from captionlib.io.files import InputError

__all__ = ["Object", "Storage", "Weight", "opened"]

MOST = 2_000_000  # instructions; a ResNet-101 with its optimizers takes 87,000
# The start of files from before torch.save wrote zip archives.
MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(eq=False)
class Object:
    """Stands for an object of an allowed class, which is never created."""

    kind: str  # module and class, a space between
    state: dict = field(default_factory=dict)  # its attributes


@dataclass(frozen=True)
class Storage:
    """A row of numbers stored elsewhere in the file."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor: a strided view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.size, *self.stride)
        whole = all(
            type(n) is int and 0 <= n <= self.storage.numel for n in numbers
        )
        if (
            not whole
            or len(self.size) != len(self.stride)
            or len(self.size) > 8
        ):
            raise ValueError("a tensor's shape is wrong")
        last = self.offset + sum(
            (n - 1) * s for n, s in zip(self.size, self.stride, strict=True)
        )
        if (
            math.prod(self.size) > self.storage.numel
            or last >= self.storage.numel
        ):
            # This rules out overlapping strides, too.
            raise ValueError("a tensor is larger than its storage")


@contextmanager
def opened(
    path: str | Path, kinds: Collection[str]
) -> Iterator[tuple[object, Callable[[Weight], torch.Tensor]]]:
    """Open a file from `torch.save`, in either format.

    Args:
        path: the file.
        kinds: the classes that it may name, each as "module class".

    Yields:
        the saved value, made of plain values, `Object` and `Weight`; and a
        function that reads the tensor of a `Weight`.

    Raises:
        InputError: if the file asks for anything else, or is damaged; also for
            any other exception in the block, where damage may first show.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: is not a file; name a checkpoint")
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data[:4] == b"PK\x03\x04":
                with zipfile.ZipFile(file) as archive:
                    yield _from_archive(archive, len(data), kinds)
            else:
                yield _from_stream(data, kinds)
    except _Refused as error:
        raise InputError(
            f"{path}: {error}, so it is not read; is it the right file?"
        ) from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror or error}); check the file"
        ) from None
    except Exception as error:  # a damaged file can go wrong in any way at all
        about = str(error).split("\n")[0][:80] or type(error).__name__
        raise InputError(
            f"{path}: is not a checkpoint, or is damaged ({about}); fetch it "
            "again"
        ) from None


class _Refused(Exception):
    """The file asks for something that no checkpoint needs."""


# -------------------------------------------------------------- the two formats


def _from_archive(
    archive: zipfile.ZipFile, length: int, kinds: Collection[str]
):
    """The format since PyTorch 1.6: a zip archive of a pickle and its
    storages."""

    def member(name: str, size: int | None = None) -> bytes:
        info = archive.getinfo(f"{folder}/{name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > length:
            # torch.save never compresses; a zip bomb does.
            raise ValueError(f"{name} is compressed")
        if size is not None and info.file_size != size:
            raise ValueError(f"{name} has another size")
        return archive.read(info)

    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("no data.pkl in it")
    folder = names[0].removesuffix("/data.pkl")
    if (
        f"{folder}/byteorder" in archive.namelist()
        and member("byteorder") != b"little"
    ):
        raise ValueError("its numbers are big-endian")
    root = _Machine(kinds).run(io.BytesIO(member("data.pkl")))
    return root, _reader(
        lambda storage: member(f"data/{storage.key}", storage.nbytes)
    )


def _from_stream(data: mmap.mmap, kinds: Collection[str]):
    """The older format: five pickles in a row, followed by the storages."""
    if _Machine().run(data) != MAGIC:
        raise ValueError("it lacks the magic number")
    _Machine().run(data)  # the protocol's version, always 1001
    if not _Machine().run(data)["little_endian"]:
        raise ValueError("its numbers are big-endian")
    machine = _Machine(kinds)
    root, places = machine.run(data), {}
    keys = _Machine().run(data)
    position = data.tell()
    for key in keys:
        storage = machine.storages[key]
        numel = int.from_bytes(data[position : position + 8], "little")
        places[key] = position + 8
        position += 8 + storage.nbytes
        if numel != storage.numel or position > len(data):
            raise ValueError(f"storage {key} has another size")

    def read(storage: Storage) -> bytes:
        return data[places[storage.key] : places[storage.key] + storage.nbytes]

    return root, _reader(read)


def _reader(
    read: Callable[[Storage], bytes],
) -> Callable[[Weight], torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}  # several weights may share a storage

    def tensor(weight: Weight) -> torch.Tensor:
        storage = weight.storage
        if storage.key not in flat:
            flat[storage.key] = torch.frombuffer(
                bytearray(read(storage)), dtype=storage.dtype
            )
        return flat[storage.key].as_strided(
            weight.size, weight.stride, weight.offset
        )

    return tensor


# ------------------------------------------------------------------ the machine


@dataclass(frozen=True)
class _Kind:
    name: str


def _ordered_dict() -> dict:
    return {}


def _default_dict(kind: _Kind) -> dict:
    return {}


def _set(items: list) -> list:
    return items


def _backend() -> None:  # every module of PyTorch 0.4 names a "backend"
    return None


def _weight(
    storage: Storage, offset: int, size: tuple, stride: tuple, *_
) -> Weight:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return Weight(storage, offset, size, stride)


def _parameter(weight: Weight, *_) -> Weight:
    if not isinstance(weight, Weight):
        raise TypeError("a parameter without a tensor")
    return weight


# What stands in for each name; the name's own function or class is never
# imported.
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch LongStorage": torch.int64,
}
_CALLS = {
    "collections OrderedDict": _ordered_dict,
    "collections defaultdict": _default_dict,
    "__builtin__ set": _set,
    "torch._utils _rebuild_tensor": _weight,
    "torch._utils _rebuild_tensor_v2": _weight,
    "torch._utils _rebuild_parameter": _parameter,
    "torch.nn.parameter Parameter": _parameter,
    "torch.nn.backends.thnn _get_thnn_function_backend": _backend,
}
_KINDS = {"__builtin__ dict": _Kind("dict")}  # the factory of a defaultdict

_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}


class _Machine:
    """Runs pickles of protocol 2, as `torch.save` writes them."""

    def __init__(self, kinds: Collection[str] | None = None):
        self.names: dict[str, object] = {}
        if kinds is not None:
            self.names = (
                _DTYPES
                | _CALLS
                | _KINDS
                | {kind: _Kind(kind) for kind in kinds}
            )
        self.storages: dict[str, Storage] = {}

    def run(self, file) -> object:
        """The value that the next pickle in `file` describes."""
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        for count, (instruction, argument, _) in enumerate(
            pickletools.genops(file)
        ):
            if count > MOST:
                raise ValueError("it is too long")
            self._do(instruction.name, argument)
        return self.stack.pop()

    def _do(self, name: str, argument) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._take(int(name[-1]))))
        elif name in ("APPEND", "APPENDS"):
            items = self._take(1) if name == "APPEND" else self._since_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._take(2) if name == "SETITEM" else self._since_mark()
            for key, value in zip(items[::2], items[1::2], strict=True):
                # Hashing a deeply nested tuple could crash the process.
                if not isinstance(key, (str, Weight)):
                    raise TypeError(
                        "a dictionary's key is neither a name nor a tensor"
                    )
                self._top(dict)[key] = value
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            if argument not in self.names:
                wanted = argument.replace(" ", ".")[:80]
                raise _Refused(
                    f"asks for {wanted}, which no checkpoint of the tutorial "
                    "needs"
                )
            stack.append(self.names[argument])
        elif name == "BINPERSID":
            stack.append(self._stored(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._take(2)
            if not any(function is call for call in _CALLS.values()):
                raise _Refused("calls a function that no checkpoint calls")
            stack.append(function(*arguments))
        elif name == "NEWOBJ":
            kind, arguments = self._take(2)
            if not isinstance(kind, _Kind) or arguments != ():
                raise _Refused("creates an object that no checkpoint holds")
            stack.append(Object(kind.name))
        elif name == "BUILD":
            (state,) = self._take(1)
            if not isinstance(state, dict):
                raise TypeError("an object's state is not a dictionary")
            # Attributes of an OrderedDict are dropped.
            if type(stack[-1]) is not dict:
                self._top(Object).state = state
        elif name not in ("PROTO", "STOP"):
            raise _Refused(
                f"uses the pickle instruction {name}, which no checkpoint needs"
            )

    def _take(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError("a value is missing")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _top(self, kind: type):
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"a value is not a {kind.__name__}")
        return self.stack[-1]

    def _stored(self, about):
        """The target of a persistent id: a storage or, before PyTorch 1.6, a
        module."""
        if (
            isinstance(about, tuple)
            and about[0] == "module"
            and isinstance(about[1], _Kind)
        ):
            return about[1]  # its source code is ignored
        what, dtype, key, _location, numel, *view = about
        if what != "storage" or dtype not in _DTYPES.values() or any(view):
            raise TypeError("a storage of an unknown kind")
        if (
            type(key) is not str
            or type(numel) is not int
            or not 0 <= numel < 2**40
        ):
            raise ValueError("a storage of an impossible size")
        storage = Storage(key, dtype, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} has two sizes")
        return storage
