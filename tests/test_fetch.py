"""Fetching from a real server that breaks off, stalls, lies and changes its mind."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from server import Fault, serve

from captionlib.datasets.fetch import (
    DownloadError,
    Patience,
    checksum_of,
    fetch,
)
from captionlib.io.files import InputError

CONTENT = random.Random(7).randbytes(400_000)
OTHER = random.Random(8).randbytes(400_000)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
HASTY = Patience(tries=3, timeout=0.5, pause=0)


@pytest.fixture
def site():
    with serve(a=CONTENT, b=CONTENT) as site:
        yield site


def get(site, to, *paths, checksum=CHECKSUM, patience=HASTY):
    addresses = [site.address(path) for path in paths or ("a",)]
    return fetch(
        addresses, to, checksum=checksum, patience=patience, progress=False
    )


def nothing_else(to):
    assert [path.name for path in to.parent.iterdir()] == [to.name]


def test_a_file_arrives_whole_and_alone(site, tmp_path):
    to = tmp_path / "file"
    assert get(site, to) == site.address("a")
    assert to.read_bytes() == CONTENT and checksum_of(to) == CHECKSUM
    nothing_else(to)


def test_what_is_there_and_right_is_not_fetched_again(site, tmp_path):
    to = tmp_path / "file"
    get(site, to)
    assert get(site, to) == "" and len(site.asked) == 1


def test_what_is_there_and_wrong_is_fetched_again(site, tmp_path):
    to = tmp_path / "file"
    to.write_bytes(OTHER)
    get(site, to)
    assert to.read_bytes() == CONTENT


@pytest.mark.parametrize("stall", [False, True])
def test_a_connection_that_breaks_off_or_stalls_is_gone_on_with(
    site, tmp_path, stall
):
    site.faults["a"] = [
        Fault(stop=200_000, stall=stall),
        Fault(stop=100_000, stall=stall),
    ]
    to = tmp_path / "file"
    get(site, to)
    assert to.read_bytes() == CONTENT
    starts = [start for _, start in site.asked]
    # The last bytes of a broken connection may be lost, never more than a chunk of them.
    assert (
        starts[0] == 0
        and 200_000 - 2**16 <= starts[1] <= 200_000
        and starts[2] > starts[1]
    )
    assert site.sent <= len(CONTENT) + 2 * 2**16
    nothing_else(to)


def test_progress_renews_patience(site, tmp_path):
    site.faults["a"] = [
        Fault(stop=70_000) for _ in range(5)
    ]  # more than HASTY's three
    to = tmp_path / "file"
    get(site, to)
    assert to.read_bytes() == CONTENT


def test_an_answer_that_always_ends_early_is_given_up(site, tmp_path):
    site.always["a"], site.ranges = Fault(stop=200_000), False
    with pytest.raises(
        DownloadError,
        match=r"file: could not be fetched .*/a breaks off, 3 times",
    ):
        get(site, tmp_path / "file")
    assert not (tmp_path / "file").exists() and len(site.asked) <= 4


def test_a_server_that_ignores_ranges_is_begun_anew(site, tmp_path):
    site.faults["a"], site.ranges = [Fault(stop=200_000)], False
    to = tmp_path / "file"
    get(site, to)
    assert to.read_bytes() == CONTENT and site.asked[1][1] > 0
    end = time.monotonic() + 10
    while site.sent < 600_000 and time.monotonic() < end:
        time.sleep(0.01)  # the server counts after the last byte has arrived
    assert site.sent == 600_000


@pytest.mark.parametrize(
    "status, asked", [(404, 1), (403, 1), (410, 1), (500, 3), (503, 3)]
)
def test_the_next_address_is_tried_after_an_error(
    site, tmp_path, status, asked
):
    """At once where the file is not there, after some tries where the server is ill."""
    site.always["a"] = Fault(status=status)
    to = tmp_path / "file"
    assert get(site, to, "a", "b") == site.address("b")
    assert [path for path, _ in site.asked] == ["a"] * asked + ["b"]
    assert to.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_ill_server_that_recovers(site, tmp_path, status):
    site.faults["a"] = [Fault(status=status), Fault(status=status)]
    get(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_every_address_is_named_with_its_reason(site, tmp_path):
    site.always["b"] = Fault(status=500)
    with serve() as gone:
        pass  # nobody listens there any more
    addresses = [
        site.address("none"),
        site.address("b"),
        gone.address("c"),
        "nonsense",
    ]
    with pytest.raises(DownloadError) as raised:
        fetch(
            addresses,
            tmp_path / "file",
            checksum=CHECKSUM,
            patience=HASTY,
            progress=False,
        )
    said = str(raised.value)
    assert "none answers 404 Not Found;" in said and "/b answers 500" in said
    assert (
        "/c can't be reached, 3 times;" in said
        and "nonsense is not a valid address" in said
    )
    assert "\n" not in said and "--archive" in said


def test_a_damaged_file_is_thrown_away_and_the_next_address_tried(
    site, tmp_path
):
    site.always["a"] = Fault(flip=1234)
    to = tmp_path / "file"
    assert (
        get(site, to, "a", "b") == site.address("b")
        and to.read_bytes() == CONTENT
    )
    nothing_else(to)
    with pytest.raises(DownloadError, match="its checksum differs"):
        get(site, tmp_path / "new" / "file", "a")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_damaged_beginning_costs_one_more_try(site, tmp_path):
    """The two halves were joined, and only the checksum of the whole can tell."""
    site.faults["a"] = [Fault(flip=1234, stop=200_000)]
    to = tmp_path / "file"
    get(site, to)
    assert to.read_bytes() == CONTENT and site.asked[-1] == ("a", 0)


def test_a_server_that_always_damages_and_breaks_off_is_given_up(
    site, tmp_path
):
    site.faults["a"] = [Fault(flip=9, stop=200_000), Fault()] * 20
    with pytest.raises(DownloadError, match="its checksum differs"):
        get(site, tmp_path / "file")
    assert len(site.asked) == 4


@pytest.mark.parametrize("checksum", [CHECKSUM, None])
@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_between_two_tries_is_never_joined(
    site, tmp_path, checksum, heeds
):
    """With If-Range heeded the server sends all of it; where it isn't, the new ETag tells."""
    site.files["a"], site.if_range = OTHER, heeds
    site.always["a"] = Fault(stop=200_000, stall=True)
    to = tmp_path / "file"
    with pytest.raises(DownloadError):
        get(site, to, checksum=checksum, patience=Patience(1, 0.3, 0))
    site.files["a"], site.always = CONTENT, {}
    get(site, to, checksum=checksum)
    assert to.read_bytes() == CONTENT


def test_without_a_version_or_a_checksum_nothing_is_joined(site, tmp_path):
    site.versions, site.faults["a"] = lambda content: {}, [Fault(stop=200_000)]
    get(site, tmp_path / "file", checksum=None)
    assert [start for _, start in site.asked] == [0, 0]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_weak_etag_is_no_version_but_a_date_is(site, tmp_path):
    site.versions = lambda content: {
        "ETag": 'W/"1"',
        "Last-Modified": "Sat, 16 Aug 2014 00:00:00",
    }
    site.faults["a"] = [Fault(stop=200_000)]
    get(site, tmp_path / "file", checksum=None)
    assert site.asked[1][1] > 0 and (tmp_path / "file").read_bytes() == CONTENT


def test_the_next_address_goes_on_where_the_first_one_died(site, tmp_path):
    site.faults["a"], site.always["a"] = (
        [Fault(stop=200_000)],
        Fault(status=404),
    )
    to = tmp_path / "file"
    get(site, to, "a", "b")
    assert (
        to.read_bytes() == CONTENT
        and site.asked[-1][0] == "b"
        and site.asked[-1][1] > 100_000
    )


def test_the_next_address_begins_anew_where_nothing_could_tell_a_mixture(
    site, tmp_path
):
    site.files["b"] = OTHER
    site.faults["a"], site.always["a"] = (
        [Fault(stop=200_000)],
        Fault(status=404),
    )
    to = tmp_path / "file"
    get(site, to, "a", "b", checksum=None)
    assert to.read_bytes() == OTHER and site.asked[-1] == ("b", 0)


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site, tmp_path):
    site.always["a"] = Fault(stop=200_000, stall=True)
    to = tmp_path / "file"
    with pytest.raises(DownloadError):
        get(site, to, patience=Patience(1, 0.3, 0))
    with open(tmp_path / "file.part", "ab") as part:
        part.write(bytes(500_000))
    site.always = {}
    get(site, to)
    assert to.read_bytes() == CONTENT


def test_a_full_disk_is_said_before_anything_is_written(site, tmp_path):
    site.always["a"] = Fault(claim=10**16)
    with pytest.raises(InputError, match=r"GB are needed and .* GB are free"):
        get(site, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_kill_at_any_moment_loses_nothing_that_had_arrived(site, tmp_path):
    """A process of its own, killed while it waits for more; its successor asks for the rest."""
    code = (
        "import sys; from captionlib.datasets.fetch import *\n"
        "fetch([sys.argv[1]], sys.argv[2], checksum=sys.argv[3], progress=False)"
    )
    to = tmp_path / "file"
    command = [sys.executable, "-c", code, site.address("a"), to, CHECKSUM]
    for arrived in (100_000, 200_000, 300_000):
        site.faults["a"] = [Fault(stop=100_000, stall=True)]
        asked = len(site.asked)
        process = subprocess.Popen(command)
        part = tmp_path / "file.part"
        until = time.monotonic() + 60
        while time.monotonic() < until and (
            len(site.asked) == asked
            or not part.exists()
            or part.stat().st_size < arrived - 3 * 2**16
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not to.exists()
    subprocess.run(command, check=True, timeout=60)
    starts = [start for _, start in site.asked]
    assert to.read_bytes() == CONTENT
    assert (
        starts == sorted(starts)
        and starts[-1] > 0
        and site.sent < 2 * len(CONTENT)
    )


def test_killed_before_the_checksum_a_whole_file_is_not_fetched_again(
    site, tmp_path
):
    to = tmp_path / "file"
    get(site, to)
    os.rename(to, tmp_path / "file.part")
    notes = f'{{"address": "{site.address("a")}", "version": null, "bytes": {len(CONTENT)}}}'
    (tmp_path / "file.json").write_text(notes)
    get(site, to)
    assert to.read_bytes() == CONTENT and len(site.asked) == 1


@pytest.mark.parametrize(
    "notes", ["", "{", "[]", "{}", '{"address": 3}', "\0\0"]
)
def test_damaged_notes_cost_a_new_start_and_no_more(site, tmp_path, notes):
    (tmp_path / "file.part").write_bytes(OTHER[:1000])
    (tmp_path / "file.json").write_text(notes)
    get(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and site.asked == [
        ("a", 0)
    ]


def test_any_mixture_of_faults_ends_in_the_file_or_in_one_line(tmp_path):
    """Two hundred faults at two addresses, by a seed; never a wrong file."""
    rng, arrived, given_up = random.Random(3), 0, 0
    for number in range(40):
        with serve(a=CONTENT, b=CONTENT) as site:
            site.ranges, site.if_range = rng.random() < 0.7, rng.random() < 0.7
            site.versions = rng.choice([None, lambda content: {}])
            for path in "ab":
                site.faults[path] = [
                    rng.choice(
                        [
                            Fault(stop=rng.randrange(1, 400_000)),
                            Fault(
                                stop=rng.randrange(1, 400_000),
                                flip=rng.randrange(400_000),
                            ),
                            Fault(status=rng.choice([404, 416, 429, 500, 503])),
                            Fault(
                                stop=rng.randrange(0, 300_000),
                                stall=rng.random() < 0.2,
                            ),
                            Fault(flip=rng.randrange(400_000)),
                        ]
                    )
                    for _ in range(3)
                ]
            to = tmp_path / str(number)
            try:
                get(site, to, "a", "b", patience=Patience(3, 0.2, 0))
                arrived += 1
                assert to.read_bytes() == CONTENT
            except DownloadError as error:
                given_up += 1
                assert not to.exists() and "\n" not in str(error)
    assert arrived + given_up == 40 and arrived > 20
