"""Processes that fork while their background threads work, as gunicorn's do with ``--preload``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from smsgw.model import Content, Message, Options
from smsgw.spool.folders import Folders
from smsgw.spool.layout import from_folder
from smsgw.spool.locks import Locks
from tests.conftest import eventually, make_spool
from tests.test_faults import queue_of, writer_of

MESSAGE = Message("smsgw.http.01JD0000000000000000000000", "79680000000", Content("lvv", "Hi", "GSM", 1, Options()))
LONGEST = 20  # seconds after which a child that hangs is ended


def forked(work: Callable[[], object]) -> int:
    """A process that forks from this one, does that, and ends with status 0 if it could."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LONGEST)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("is_ended_by", ["release", "death"])
def test_a_lock_is_its_own_process_s_and_not_its_children_s(tmp_path: Path, is_ended_by: str) -> None:
    locks, others = Locks(tmp_path / "state"), Locks(tmp_path / "state")
    begun, end = os.pipe()

    def hold() -> None:
        """As a server does that forks a worker; the worker outlives the lock."""
        lock = locks.take("owner")
        forked(lambda: (os.close(end), os.read(begun, 1)))
        assert others.try_take("owner") is None
        if is_ended_by == "release":
            lock.release()

    try:
        locks.make()
        assert status_of(forked(hold)) == 0
        eventually(lambda: others.try_take("owner"))
    finally:
        os.close(end)  # by which the worker ends
        os.close(begun)


def test_a_child_s_end_releases_nothing(tmp_path: Path) -> None:
    locks, others = Locks(tmp_path / "state"), Locks(tmp_path / "state")
    with locks.take("owner") as lock:
        assert status_of(forked(lock.release)) == 0
        assert others.try_take("owner") is None
        assert lock.is_shared()
    assert others.try_take("owner") is not None


def test_what_a_parent_lets_enter_takes_no_room_of_its_child(tmp_path: Path) -> None:
    layout = from_folder(make_spool(tmp_path / "spool"))
    writer = writer_of(layout, 1)
    Locks(layout.state).make()
    with writer.queue.room.for_waiting():
        assert status_of(forked(lambda: writer.put([MESSAGE]))) == 0
    assert (layout.outgoing / MESSAGE.id).exists()


def test_a_child_lists_whatever_its_parent_s_threads_were_at(tmp_path: Path) -> None:
    layout = from_folder(make_spool(tmp_path / "spool"))
    Locks(layout.state).make()
    folders, begun, leave = Folders(layout, queue_of(layout), "smsgw.http."), threading.Event(), threading.Event()
    (layout.outgoing / "m1").write_text("To: 79680000007\nFrom: lvv\n\nHi")

    def list_all_the_time() -> None:
        while not leave.is_set():
            folders.list("outgoing", None, 10, 0)
            begun.set()

    thread = threading.Thread(target=list_all_the_time)
    thread.start()
    try:
        assert begun.wait(LONGEST)
        for _ in range(10):
            assert status_of(forked(lambda: folders.list("outgoing", None, 10, 0).ids == ["m1"] or os._exit(2))) == 0
    finally:
        leave.set()
        thread.join()
