"""Unpacking: what is asked for comes out, and nothing else can happen."""

import gzip
import io
import random
import stat
import tarfile
import zipfile

import pytest

from captionlib.datasets import unpack as module
from captionlib.datasets.unpack import unpack
from captionlib.io.files import InputError

SLACK = 2**22  # in place of the real one: zeros take their time to pack
FILES = {f"{n}.jpg": random.Random(n).randbytes(3000 + n) for n in range(5)}


def pack(path, members, kinds=None):
    """An archive of (name, content) pairs; the path's name says of what sort."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members:
                file.writestr(name, content)
        return path
    with tarfile.open(
        path, "w:" + {"tar": ""}.get(path.suffix[1:], path.suffix[1:])
    ) as file:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


SORTS = ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"]


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLACK", SLACK)
    (tmp_path / "deep" / "out").mkdir(parents=True)
    return tmp_path / "deep" / "out"


def held(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refuse(archive, out, match, wanted=FILES):
    """`unpack` says one line, and nothing lies outside `out`."""
    with pytest.raises(InputError, match=match) as raised:
        unpack(archive, out, wanted, progress=False)
    assert "\n" not in str(raised.value) and str(archive) in str(raised.value)
    around = {
        path for path in out.parent.parent.rglob("*") if out not in path.parents
    }
    assert around == {out, out.parent, archive}


@pytest.mark.parametrize("sort", SORTS)
def test_only_what_is_asked_for_comes_out(tmp_path, out, sort):
    junk = [
        ("photos/readme.txt", b"hello"),
        ("__MACOSX/photos/._0.jpg", b"x"),
        ("9.jpg", b"y"),
    ]
    members = [
        (f"photos/deep/{name}", content) for name, content in FILES.items()
    ]
    unpack(pack(tmp_path / sort, members + junk), out, FILES, progress=False)
    assert held(out) == FILES and all(path.is_file() for path in out.iterdir())


@pytest.mark.parametrize("sort", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize(
    "name",
    [
        "../0.jpg",
        "photos/../../0.jpg",
        "/elsewhere/0.jpg",
        "C:\\0.jpg",
        "c:0.jpg",
        "..\\0.jpg",
    ]
    + ["\\\\host\\share\\0.jpg", "photos/..", "a/../0.jpg", "//0.jpg"],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_name_that_leads_out_is_refused(tmp_path, out, sort, name, wanted):
    name = name if wanted else name.replace("0.jpg", "other.txt")
    archive = pack(tmp_path / sort, [(name, b"evil"), *FILES.items()])
    refuse(archive, out, "leads out of the archive; don't trust it")
    assert held(out) == {}


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, out, kind):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        entry = tarfile.TarInfo("photos/0.jpg")
        entry.type, entry.linkname = kind, "/etc/passwd"
        file.addfile(entry)
    refuse(archive, out, "is a link or device; don't trust it")
    assert held(out) == {}


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK]
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, out, kind):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        entry = zipfile.ZipInfo("photos/0.jpg")
        entry.external_attr = (kind | 0o777) << 16
        file.writestr(entry, "/etc/passwd")
    refuse(archive, out, "is a link or device; don't trust it")
    assert held(out) == {}


@pytest.mark.parametrize("sort", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("name", ["0.jpg", "other.bin"])
def test_a_bomb_is_refused_before_it_bursts(tmp_path, out, sort, name):
    """Zeros in a small file, whether they are asked for or stand before what is."""
    archive = pack(
        tmp_path / sort, [(name, bytes(2 * SLACK)), *list(FILES.items())[1:]]
    )
    assert archive.stat().st_size < 2**16
    refuse(archive, out, "unpacks to more than")
    assert held(out) == {}


def test_zeros_after_the_end_of_a_tar_are_counted_too(tmp_path, out):
    archive = pack(tmp_path / "a.tar.gz", FILES.items())
    with gzip.open(archive, "ab") as file:
        file.write(bytes(2 * SLACK))
    refuse(archive, out, "unpacks to more than")


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME]
)
def test_a_name_that_would_fill_memory_is_refused(tmp_path, out, kind):
    """What precedes an entry is read at once; in a small archive it may claim any length."""
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = kind, 2**35
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT))
        file.write(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
    refuse(archive, out, "an oversized name")


def test_many_small_files_are_counted_together(tmp_path, out):
    archive = tmp_path / "a.zip"
    part = bytes(SLACK // 3)
    with zipfile.ZipFile(
        archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as file:
        for n in range(5):
            file.writestr(f"{n}.bin", part)
    refuse(archive, out, "unpacks to more than")


def test_a_size_that_is_a_lie_ends_at_what_was_said(tmp_path, out):
    archive = pack(tmp_path / "a.zip", [("0.jpg", bytes(10**6))])
    content = archive.read_bytes().replace(
        (10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")
    )
    archive.write_bytes(content)
    refuse(archive, out, "is damaged", ["0.jpg"])
    assert sum(map(len, held(out).values())) <= 10


@pytest.mark.parametrize("sort", ["a.zip", "a.tar"])
def test_what_lacks_or_doubles_a_file_is_refused(tmp_path, out, sort):
    archive = pack(tmp_path / sort, list(FILES.items())[1:])
    refuse(archive, out, "lacks 1 of 5 files, such as 0.jpg")
    again = [(f"more/{name}", content) for name, content in FILES.items()]
    for path in out.iterdir():
        path.unlink()
    refuse(pack(archive, [*FILES.items(), *again]), out, "0.jpg twice")


def test_a_password_is_said(tmp_path, out):
    archive = pack(tmp_path / "a.zip", FILES.items())
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(signature, at + 1)
    archive.write_bytes(content)
    refuse(archive, out, "password")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>no</html>", bytes(2000), b"PK\5\6"]
)
def test_what_is_no_archive_is_said(tmp_path, out, content):
    archive = tmp_path / "flickr30k.tar.gz"
    archive.write_bytes(content)
    refuse(archive, out, "is neither|lacks 5|is damaged")


@pytest.mark.parametrize("sort", SORTS)
def test_damage_anywhere_is_one_line_or_harmless(tmp_path, out, sort):
    """Cut off, or some bytes changed, at places drawn by a seed: right files, or a refusal."""
    rng = random.Random(sort)
    whole = pack(tmp_path / sort, FILES.items()).read_bytes()
    refused = 0
    for number in range(60):
        content = bytearray(whole)
        if number % 2:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.choice([1, 3, 50])):
                content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / sort).write_bytes(content)
        try:
            unpack(tmp_path / sort, out, FILES, progress=False)
            assert held(out).keys() == FILES.keys()
            if sort != "a.tar":  # the others carry checksums
                assert held(out) == FILES
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        for path in out.iterdir():
            path.unlink()
    assert refused > 25
