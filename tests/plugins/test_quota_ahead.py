"""What ``quota`` takes ahead on SQLite is in nobody's way: counters are exact, whoever is busy, stopped or dead."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsgw.store import Store
from smsgw.testing import eventually
from smsgw_plugins.quota.counters import Counters, Exhausted
from smsgw_plugins.quota.limits import Claim, Limit
from smsgw_plugins.quota.rows import TABLES
from tests.conftest import at_length
from tests.test_store import forked
from tests.tmpfs import need

MUCH = 10**6

# Another process: each line of its stdin is how often it takes one, or until nothing is left; it answers with how often
# it could. What it has taken so far is the size of a file.
OTHER = """
import os, sys
from smsgw.store import Store
from smsgw_plugins.quota.counters import Counters, Exhausted
from smsgw_plugins.quota.limits import Claim, Limit
from smsgw_plugins.quota.rows import TABLES

store = Store(sys.argv[1])
store.keep(TABLES)
counters = Counters(store)
claims = [Claim(Limit("ops", int(sys.argv[2]), counted, "month"), 0, 1, 1) for counted in ("messages", "parts")]
tally = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for line in sys.stdin:
    taken = 0
    try:
        while taken < int(line):
            counters.take(claims)
            taken += 1
            os.write(tally, b".")
    except Exhausted:
        pass
    print(taken, flush=True)
"""


def claims(most: int = MUCH, amount: int = 1, until: int = 1) -> list[Claim]:
    return [Claim(Limit("ops", most, counted, "month"), 0, until, amount) for counted in ("messages", "parts")]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Counters]:
    store = Store(f"sqlite:///{path}")
    store.keep(TABLES)
    yield Counters(store)
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def counters(path: Path) -> Iterator[Counters]:
    with opened(path) as counters:
        yield counters


class Other:
    """A process that takes from the same counters."""

    def __init__(self, path: Path, most: int, before: Sequence[str | Path] = ()) -> None:
        self.tally = path.with_name("tally")
        command = [*before, sys.executable, "-W", "ignore", "-c", OTHER, f"sqlite:///{path}", str(most), self.tally]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def take(self, count: int) -> int:
        self.ask(count)
        return self.answer()

    def ask(self, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()

    def answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def other(path: Path) -> Iterator[Callable[[int], Other]]:
    made: list[Other] = []

    def make(most: int = MUCH, before: Sequence[str | Path] = ()) -> Other:
        made.append(Other(path, most, before))
        return made[-1]

    yield make
    for found in made:
        with found.process:
            found.kill()


def used(path: Path) -> int:
    """As an operator sees it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT max(used) FROM quota").fetchone()[0])


def take(counters: Counters, count: int, most: int = MUCH) -> None:
    for _ in range(count):
        counters.take(claims(most))


def rest(counters: Counters, most: int = MUCH) -> set[int]:
    return set(counters.left(claims(most)).values())


def busy(counters: Counters, path: Path, most: int = MUCH) -> int:
    """Take until something is taken ahead, and one more; how many."""
    for count in range(1, 1000):
        take(counters, 1, most)
        if used(path) > count:
            take(counters, 1, most)
            return count + 1
    raise AssertionError("nothing was taken ahead")


def test_it_takes_ahead_and_gives_back_when_there_is_no_more_to_do(counters: Counters, path: Path) -> None:
    count = busy(counters, path)
    assert count <= used(path) <= count + 500
    eventually(lambda: used(path) == count)
    assert rest(counters) == {MUCH - count}


def test_what_is_told_is_exact(counters: Counters, path: Path) -> None:
    """By the process that has something ahead, and by another one."""
    with opened(path) as another:
        count = busy(counters, path)
        assert rest(another) == {MUCH - count}
        assert used(path) == count
        count += busy(counters, path)
        assert rest(counters) == {MUCH - count}


def test_nothing_is_taken_ahead_of_little(counters: Counters, path: Path) -> None:
    for number in range(1, 1000):
        take(counters, 1, 1500)
        assert used(path) == number


def test_what_does_not_fit_is_asked_back(counters: Counters, path: Path) -> None:
    with opened(path) as another:
        count = busy(counters, path)
        another.take(claims(amount=MUCH - count))
        for each in (counters, another):
            with pytest.raises(Exhausted) as refused:
                each.take(claims())
            assert set(refused.value.left.values()) == {0}


def test_what_was_not_sent_is_given_back(counters: Counters, path: Path) -> None:
    count = busy(counters, path)
    counters.give_back(claims())
    assert rest(counters) == {MUCH - count + 1}


def test_windows_that_end(counters: Counters, path: Path) -> None:
    count = busy(counters, path)
    for _ in range(30):
        counters.take(claims(until=2))
    assert set(counters.left(claims(until=2)).values()) == {MUCH - 30}
    assert rest(counters) == {MUCH - count}


def test_an_operator_who_deletes_a_counter(counters: Counters, path: Path) -> None:
    busy(counters, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM quota")
    take(counters, 3)
    assert rest(counters) == {MUCH - 3}


STEPS = st.lists(
    st.tuples(st.sampled_from("ttttttblg"), st.integers(0, 2), st.integers(1, 40), st.integers(1, 300)), max_size=40
)


@settings(max_examples=at_length(120, 15), deadline=None)
@given(STEPS)
def test_as_one_counter_does(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, int, int, int]]
) -> None:
    """Three that share it, against a number: bursts of small ones, large ones, what is left, and what is given back."""
    path, most, count = tmp_path_factory.mktemp("model") / "store.sqlite3", 2500, 0
    with contextlib.ExitStack() as stack:
        all_of = [stack.enter_context(opened(path)) for _ in range(3)]
        for step, number, times, amount in steps:
            counters = all_of[number]
            if step == "t":
                amount = 1 if times > 5 else amount
                for _ in range(times):
                    if count + amount <= most:
                        counters.take(claims(most, amount))
                        count += amount
                    else:
                        with pytest.raises(Exhausted) as refused:
                            counters.take(claims(most, amount))
                        assert set(refused.value.left.values()) == {most - count}
                        break
            elif step == "g" and amount <= count:
                counters.give_back(claims(most, amount))
                count -= amount
            elif step == "b" and count < most:
                counters.take(claims(most, most - count))
                counters.give_back(claims(most, most - count))
            assert step != "l" or rest(counters, most) == {most - count}
        assert rest(all_of[0], most) == {most - count}


def test_threads(counters: Counters) -> None:
    def hammer(seed: int) -> int:
        chance, taken = random.Random(seed), 0
        with contextlib.suppress(Exhausted):
            while True:
                amount = 1 if chance.random() < 0.95 else chance.randrange(1, 50)
                counters.take(claims(6000, amount))
                taken += amount
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(hammer, range(8)))
    with contextlib.suppress(Exhausted):
        while True:
            counters.take(claims(6000))
            taken += 1
    assert taken == 6000


def test_processes_that_all_take_to_the_end(path: Path, other: Callable[[int], Other]) -> None:
    """None of them lets one more through, or is refused before the end, in whatever turn they are busy."""
    most = 12_000
    others = [other(most) for _ in range(3)]
    taken = sum(others[number % 3].take(count) for number, count in enumerate((700, 1, 900, 30, 2, 800)))
    for found in others:
        found.ask(most)
    taken += sum(found.answer() for found in others)
    assert taken == most == used(path)


def test_a_process_that_is_killed(counters: Counters, path: Path, other: Callable[[], Other]) -> None:
    """What it had ahead and did not spend is there again, to the last one."""
    rest(counters)
    count = 0
    for _ in range(3):
        found = other()
        for number in (200, 33):
            count += found.take(number)
        found.kill()
        assert used(path) >= count
        assert rest(counters) == {MUCH - count}
        assert used(path) == count


def test_a_machine_that_was_started_anew(
    counters: Counters, path: Path, other: Callable[..., Other], tmp_path: Path
) -> None:
    """Who knows whether what it wrote last of the ledger is there, and of the counters: all that was taken counts."""
    need("unshare", "mount")
    boot = tmp_path / "boot_id"
    boot.write_text(str(uuid.uuid4()))
    command = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", command, boot]
    take(counters, 1)
    for kills in range(1, 4):
        found = other(MUCH, before)
        found.ask(MUCH)
        eventually(lambda kills=kills: used(path) > 1000 * kills)
        found.kill()
        counted = used(path)
        assert rest(counters) == {MUCH - counted}
        assert used(path) == counted
    assert counted > 1 + found.tally.stat().st_size


def test_kill_9_at_any_time(counters: Counters, path: Path, other: Callable[[], Other]) -> None:
    """What it took is counted; and hardly more, unless that was in the middle of giving back."""
    rest(counters)
    chance = random.Random(5)
    for kills in range(1, 9):
        found = other()
        found.take(1)
        tally, enough = found.tally, found.tally.stat().st_size + chance.randrange(2000)
        found.ask(MUCH)
        eventually(lambda tally=tally, enough=enough: tally.stat().st_size > enough)
        found.kill()
        taken, counted = tally.stat().st_size, MUCH - rest(counters).pop()
        assert taken <= counted <= taken + 502 * kills


def test_a_process_that_is_stopped_lets_nobody_take_what_it_has(
    counters: Counters, path: Path, other: Callable[[], Other]
) -> None:
    rest(counters)
    found = other()
    found.take(100)
    found.ask(20_000)
    eventually(lambda: used(path) > 1000)
    os.kill(found.process.pid, signal.SIGSTOP)
    with pytest.raises(Exhausted):
        counters.take(claims(amount=MUCH - 100))
    counters.take(claims(amount=10))
    os.kill(found.process.pid, signal.SIGCONT)
    assert found.answer() == 20_000
    assert rest(counters) == {MUCH - 20_110}


def test_processes_that_fork(counters: Counters, path: Path) -> None:
    count = busy(counters, path)
    for _ in range(3):
        forked(lambda: take(counters, 40))
        take(counters, 40)
        count += 80
    forked(lambda: rest(counters) == {MUCH - count} or os._exit(1))
    assert rest(counters) == {MUCH - count}


def test_a_ledger_that_cannot_be_opened_or_read(counters: Counters, path: Path) -> None:
    ledger = path.with_name("store.sqlite3-ahead")
    ledger.mkdir()
    take(counters, 100)
    assert used(path) == 100
    assert rest(counters) == {MUCH - 100}
    ledger.rmdir()
    ledger.write_bytes(bytes(8) + b"\xff\0\0\0\0\0\0\0" + b"\x01" * 20000)
    take(counters, 100)
    assert rest(counters) == {MUCH - 200}


def test_a_ledger_that_somebody_else_wrote(counters: Counters, path: Path) -> None:
    written = b"[" * 4000  # which json does not follow
    numbers = struct.pack("<64q", 0, len(written), *[0] * 62)
    path.with_name("store.sqlite3-ahead").write_bytes(numbers + written + bytes(16384 - len(numbers + written)))
    take(counters, 100)
    assert rest(counters) == {MUCH - 100}
