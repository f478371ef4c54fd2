"""What no failure may change: a message that was acknowledged is in `outgoing`, whole, once; of a request all or none.

Real servers in processes of their own: killed at any moment, several on one spool, on a spool that is missing,
read-only or full. There is no smsd here: `outgoing` only fills.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from inotify_simple import INotify, flags

from smsgw.model import Content, Message, Receipt
from smsgw.spool.disk import SpoolUnavailable
from smsgw.spool.layout import Layout, from_folder
from smsgw.spool.locks import Locks
from smsgw.spool.owner import Owner
from smsgw.spool.sending.cancel import Cancel
from smsgw.spool.sending.idempotency import Receipts
from smsgw.spool.sending.put_file import PutFile, in_python
from smsgw.spool.sending.queue import Queue, ready_lock
from smsgw.spool.sending.writer import Writer

from .conftest import OUTGOING, Gateway, at_length, make_spool
from .server import TIMEOUT, Reply, Server, wait_until
from .tmpfs import Ext4, Small, Tmpfs

ONE = ("79680000000",)
KILLS = at_length(20, 4)
MANY = tuple(str(79160000000 + number) for number in range(50))
KEY = "faults-0001"


class Spool:
    """The files of one spool, as smsd and smsgw's owner see them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outgoing = folder / "outgoing"
        self.state = self.outgoing / ".smsgw"
        self.writers, self.ready = self.state / "writers", self.state / "ready"
        self.waiting, self.receipts = self.state / "waiting", self.state / "receipts"
        self.cancelling, self.cancelled = self.state / "cancelling", self.state / "cancelled"

    def messages(self) -> dict[str, bytes]:
        """All that stands in `outgoing`, but smsgw's own folder, or waits there for its turn."""
        found = {}
        for path in (*self.waiting.rglob("*"), *self.outgoing.glob("*")):  # the way they go
            if not path.is_dir():
                with contextlib.suppress(FileNotFoundError):
                    found[path.name] = path.read_bytes()
        return found

    def wait(self, condition: Callable[[], bool], *folders: Path) -> None:
        wait_until(condition, *folders)


def names(folder: Path, pattern: str = "*") -> list[str]:
    """What is in a folder, by name; nothing where there is none."""
    return sorted(path.name for path in folder.glob(pattern))


def file_of(to: str, text: str, user: str = "lvv") -> bytes:
    """The whole file of a message in the GSM alphabet."""
    return f"To: {to}\nFrom: {user}\nAlphabet: UTF-8\n\n{text}".encode()


def files_of(numbers: Sequence[str], text: str, user: str = "lvv") -> Counter[bytes]:
    """One whole file for each number."""
    return Counter(file_of(number, text, user) for number in numbers)


@pytest.fixture
def spool(base_settings: dict[str, str]) -> Spool:
    return Spool(Path(base_settings["smsgw.spool"]))


@pytest.fixture
def run(tmp_path: Path, base_settings: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start a server on `spool`; `changes` go over `base_settings`, and the rest is `Server`'s."""
    with contextlib.ExitStack() as servers:

        def start(changes: Mapping[str, str] | None = None, **options: Any) -> Server:
            return servers.enter_context(Server(tmp_path, base_settings | dict(changes or {}), **options))

        yield start


# kill -9 of the server


@dataclass
class Order:
    """What a client asked for, and the ids that it was given, once it was."""

    text: str
    numbers: Sequence[str]
    key: str | None
    ids: dict[str, str] = field(default_factory=dict)


class Load:
    """Clients that send without a pause while the server lives; those with a key repeat until they are answered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._alive = threading.Event()
        self._finish = threading.Event()
        self._changed = threading.Condition()
        self._acknowledged = 0
        self.cut_off = 0
        self.orders: list[Order] = []

    def live(self) -> None:
        self._server.start()
        self._alive.set()

    def die_after(self, count: int) -> None:
        """Kill the server when so many further requests have been acknowledged, in the middle of others."""
        with self._changed:
            target = self._acknowledged + count
            assert self._changed.wait_for(lambda: self._acknowledged >= target, TIMEOUT)
        self._alive.clear()
        self._server.kill()

    def finish(self) -> None:
        """Let each client end with the request that it is at."""
        self._finish.set()

    def send(self, client: str, numbers: Sequence[str], keyed: bool) -> None:
        """One client's life."""
        for number in itertools.count():
            if self._finish.is_set():
                return
            text = f"{client}-{number:05}"
            order = Order(text, numbers, f"key-{text}" if keyed else None)
            self.orders.append(order)
            while not self._try(order) and keyed:
                pass

    def _try(self, order: Order) -> bool:
        """Whether there was a reply."""
        assert self._alive.wait(TIMEOUT)
        try:
            reply = self._server.send(order.numbers, order.text, key=order.key)
        except (OSError, http.client.HTTPException):
            with self._changed:
                self.cut_off += 1
            return False
        assert reply.status == 201, (reply.status, reply.body)
        order.ids = reply.json["message_id"]
        with self._changed:
            self._acknowledged += 1
            self._changed.notify_all()
        return True


@pytest.mark.parametrize("granian", [None, {}], ids=["waitress", "granian"])
def test_nothing_is_lost_torn_or_doubled_by_kills_under_load(
    tmp_path: Path, base_settings: dict[str, str], spool: Spool, granian: dict[str, str] | None
) -> None:
    server, chance = Server(tmp_path, base_settings, granian=granian), random.Random()
    load = Load(server)
    clients = [("single", ONE, False), ("other", ONE, False), ("bulk", MANY, False)]
    clients += [("single-again", ONE, True), ("bulk-again", MANY, True)]
    with ThreadPoolExecutor(len(clients)) as threads:
        try:
            lives = [threads.submit(load.send, *client) for client in clients]
            for round in range(KILLS):
                server.configure(base_settings | {"smsgw.fsync": "true" if round % 2 else "false"})
                load.live()
                load.die_after(chance.randrange(1, 40))
            load.live()
            load.finish()
            for life in lives:
                life.result(TIMEOUT)
            # What dead processes left is gone soon; the living one keeps its own folder, in which there is nothing.
            spool.wait(lambda: len(names(spool.writers)) == 1 and not names(spool.ready), spool.writers, spool.ready)
        finally:
            load.finish()
            server.kill()
    assert load.cut_off >= KILLS  # each kill hit somebody
    found = spool.messages()
    for order in load.orders:
        for number, id in order.ids.items():
            assert found.get(id) == file_of(number, order.text)
    in_spool = Counter(found.values())
    expected: Counter[bytes] = Counter()
    for order in load.orders:
        files = files_of(order.numbers, order.text)
        there = sum(in_spool[file] for file in files)
        assert there == len(files) if order.ids or order.key else there in (0, len(files)), (order, there)
        if there:
            expected += files
    assert in_spool == expected  # nothing but whole files, each recipient's once
    [own] = spool.writers.iterdir()
    assert names(own) == []
    assert len(names(spool.receipts)) == sum(order.key is not None for order in load.orders)


# Something happens at every step: in a child process, just before its n-th change of, or look at, the file system


def end_with(step: int, happen: Callable[[], object], work: Callable[[], object]) -> int:
    """The exit status of a child that does `work`, where `happen` comes before its `step`-th call to the file system.

    0: the work was done in fewer; `ACCEPTED` or `REFUSED`: it went on, or could not, with what had happened; negative:
    a signal.
    """
    child = os.fork()
    if child == 0:
        status, calls = FAILED, itertools.count(1)
        happened = False

        def watch(event: str, _: object) -> None:
            nonlocal happened
            if (event == "open" or event.startswith("os.")) and not happened and next(calls) == step:
                happened = True
                happen()

        try:
            sys.addaudithook(watch)
            work()
            status = ACCEPTED if happened else 0
        except SpoolUnavailable:
            status = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != FAILED
    return status


FAILED, ACCEPTED, REFUSED = 1, 10, 11


def is_killed_at(step: int, work: Callable[[], object]) -> bool:
    """Whether `work`, in a child, had so many steps: it is killed just before that one."""
    return end_with(step, lambda: os.kill(os.getpid(), signal.SIGKILL), work) == -signal.SIGKILL


def steps(spools: Path, work: Callable[[Layout], object]) -> Iterator[tuple[int, Layout]]:
    """Spools in which `work` was killed at its first step, its second, and so on, and last one in which it was done."""
    for step in range(1, 1000, at_length(1, 4)):
        layout = from_folder(make_spool(spools / str(step)))
        killed = is_killed_at(step, functools.partial(work, layout))
        yield step, layout
        if not killed:
            assert step > 5  # the hook has seen the work
            return
    raise AssertionError("the work has no end")


def queue_of(layout: Layout, depth: int = 500) -> Queue:
    return Queue(layout, depth=depth, fsync=True)


def cancel_of(layout: Layout) -> Cancel:
    return Cancel(layout, Locks(layout.state), queue_of(layout))


def writer_of(layout: Layout, depth: int = 500, put_file: PutFile = in_python) -> Writer:
    """One that is written in Python, where each step can be stopped at."""
    locks, queue = Locks(layout.state), queue_of(layout, depth)
    cancel = Cancel(layout, locks, queue)
    return Writer(layout, locks, queue, cancel, fsync=True, mode=0o660, group=None, put_file=put_file)


def receipts_of(layout: Layout) -> Receipts:
    return Receipts(layout, Locks(layout.state), queue_of(layout), fsync=True)


def look_after(layout: Layout, depth: int = 500) -> None:
    """What the owner does once a second."""
    locks, queue = Locks(layout.state), queue_of(layout, depth)
    Owner(layout, locks, queue, Cancel(layout, locks, queue)).look_after()


def submission(count: int) -> tuple[list[Message], dict[str, bytes]]:
    """Messages, and the files that they become."""
    content = Content(sender="lvv", text="Hi, Jack!", alphabet="GSM", parts=1)
    messages = [Message(f"smsgw.http.{number}", f"7968000000{number}", content) for number in range(count)]
    return messages, {message.id: file_of(message.to, content.text) for message in messages}


RECEIPT = Receipt(key="0" * 64, fingerprint="1" * 64, status=201, body='{"message_id": {}}')


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_submission_is_whole_or_not_there_wherever_its_process_dies(tmp_path: Path, count: int) -> None:
    messages, files = submission(count)
    seen = set()
    for step, layout in steps(tmp_path, lambda layout: writer_of(layout).put(messages)):
        look_after(layout)
        spool = Spool(layout.outgoing.parent)
        found = spool.messages()
        assert found in ({}, files), step
        assert (names(spool.writers), names(spool.ready)) == ([], []), step
        seen.add(len(found))
    assert seen == {0, count}


@pytest.mark.parametrize("completed_by", ["owner", "repetition"])
@pytest.mark.parametrize("count", [1, 6])
def test_there_is_never_a_receipt_without_its_messages_nor_they_without_it(
    tmp_path: Path, count: int, completed_by: str
) -> None:
    messages, files = submission(count)
    seen = set()
    for step, layout in steps(tmp_path, lambda layout: writer_of(layout).put(messages, RECEIPT)):
        if completed_by == "owner":
            look_after(layout)
        receipt = receipts_of(layout).find(RECEIPT.key)
        spool = Spool(layout.outgoing.parent)
        found = spool.messages()
        assert (receipt, found) in ((None, {}), (RECEIPT, files)), step
        look_after(layout)
        assert (names(spool.writers), names(spool.ready)) == ([], []), step
        assert spool.messages() == found, step
        seen.add(receipt)
    assert seen == {None, RECEIPT}


def test_what_a_killed_probe_of_the_spool_left_is_gone_after_the_next(tmp_path: Path) -> None:
    for step, layout in steps(tmp_path, lambda layout: writer_of(layout).probe()):
        look_after(layout)
        writer_of(layout).probe()
        assert names(layout.outgoing) == [".smsgw"], step


def set_immutable(folder: Path, immutable: bool) -> None:
    """Whether nothing can enter or leave that folder, and those in it (`chattr +i`; ioctl_iflags(2))."""
    for each in (folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir())):
        fd = os.open(each, os.O_RDONLY)
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0x10 if immutable else 0))
        os.close(fd)


@pytest.mark.parametrize("receipt", [None, RECEIPT], ids=["without key", "with key"])
def test_a_submission_is_refused_only_if_it_is_not_there_whenever_the_spool_goes_out_of_service(
    small: Small, receipt: Receipt | None
) -> None:
    messages, files = submission(3)
    seen = set()
    for step in range(1, 100):
        layout = from_folder(make_spool(small.outside / str(step)))
        freeze = functools.partial(set_immutable, layout.outgoing, True)

        def put(layout: Layout = layout) -> None:
            writer_of(layout).put(messages, receipt)

        status = end_with(step, freeze, put)
        set_immutable(layout.outgoing, False)
        look_after(layout)
        found = Spool(layout.outgoing.parent).messages()
        assert found == ({} if status == REFUSED else files), step
        seen.add(status)
        if status == 0:
            break
    assert seen == {0, ACCEPTED, REFUSED}


@pytest.mark.parametrize("fsync", [True, False], ids=["with fsync", "without fsync"])
def test_what_is_taken_back_stays_so_when_the_power_fails(tmp_path: Path, fsync: bool) -> None:
    """The folders that it was moved from and to are on disk by then; nothing else would show that here."""
    layout = from_folder(make_spool(tmp_path / "spool"))
    locks = Locks(layout.state)
    locks.make()
    (layout.state / "waiting" / "normal" / "lvv").mkdir()
    (layout.state / "waiting" / "normal" / "lvv" / "smsgw.http.1").write_bytes(file_of("79680000000", "Hi, Jack!"))
    calls: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called in (os.rename, os.fsync):
            calls.append(called.__name__)

    cancel = Cancel(layout, locks, Queue(layout, depth=500, fsync=fsync))
    sys.setprofile(note)
    try:
        assert cancel.cancel("smsgw.http.1")
    finally:
        sys.setprofile(None)
    assert calls == ["rename", *(["fsync"] * 3 if fsync else [])]
    assert (layout.state / "cancelled" / "smsgw.http.1").exists()


@pytest.mark.parametrize("smsd_had_it", [False, True], ids=["in time", "too late"])
def test_a_cancel_is_finished_wherever_its_process_dies(tmp_path: Path, smsd_had_it: bool) -> None:
    [message], files = submission(1)

    def cancel(layout: Layout) -> None:
        cancel_of(layout).cancel(message.id)

    def killed(step: int) -> tuple[int, Layout, bool]:
        layout = from_folder(make_spool(tmp_path / str(step)))
        writer_of(layout).put([message])
        if smsd_had_it:  # it had copied the file, and not yet removed the original
            (layout.folders["checked"][0] / message.id).write_bytes(files[message.id])
        return step, layout, is_killed_at(step, lambda: cancel(layout))

    # Each waits for its second of grace, so all at once.
    with ThreadPoolExecutor(32) as threads:
        ends = list(threads.map(killed, range(1, 33)))
    assert [done for *_, done in ends] == sorted((done for *_, done in ends), reverse=True)
    assert not ends[-1][-1]  # so there was one for each step
    seen, locked = set(), []
    for step, layout, _ in ends:
        spool = Spool(layout.outgoing.parent)

        def is_decided(layout: Layout = layout, spool: Spool = spool) -> bool:
            look_after(layout)
            return not names(spool.cancelling)

        wait_through(is_decided)
        found = spool.messages()
        if found.pop(f"{message.id}.LOCK", None) is not None:
            locked.append(step)
        if smsd_had_it:
            assert names(spool.cancelled) == [], step
        else:
            assert (found, names(spool.cancelled)) in ((files, []), ({}, [message.id])), step
            seen.add(len(found))
    assert smsd_had_it or seen == {0, 1}
    assert locked == []  # smsd would never take that name again


def wait_through(condition: Callable[[], bool]) -> None:
    """Until `condition` holds, which only the passing of time brings about."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


@pytest.mark.parametrize("receipt", [None, RECEIPT], ids=["without key", "with key"])
@pytest.mark.parametrize("blocked", [0, 1, 2])
def test_what_cannot_enter_outgoing_midway_is_undone_only_where_nothing_has_entered(
    tmp_path: Path, blocked: int, receipt: Receipt | None
) -> None:
    layout = from_folder(make_spool(tmp_path / "spool"))
    spool = Spool(tmp_path / "spool")
    messages, files = submission(3)
    obstacle = layout.outgoing / messages[blocked].id
    obstacle.mkdir()  # so that this one's rename fails, after those before it
    writer = writer_of(layout)
    with pytest.raises(SpoolUnavailable) if blocked == 0 else contextlib.nullcontext():
        writer.put(messages, receipt)
    obstacle.rmdir()
    look_after(layout)
    assert spool.messages() == ({} if blocked == 0 else files)
    [own] = spool.writers.iterdir()
    assert (names(own), names(spool.ready)) == ([], [])
    assert receipts_of(layout).find(RECEIPT.key) == (receipt if blocked else None)


# Several processes


def owner_among(workers: Iterable[int], state: Path, scratch: Path) -> int | None:
    """Which of those processes holds the owner's lock (proc_pid_fdinfo(5) shows the locks of each open file)."""
    scratch.mkdir(exist_ok=True)
    with Locks(scratch).take("owner"):
        [(_, offset)] = _locks_of(os.getpid(), os.stat(scratch / "locks").st_ino)
    inode = os.stat(state / "locks").st_ino
    holders = [pid for pid in workers if (inode, offset) in _locks_of(pid, inode)]
    assert len(holders) <= 1
    return holders[0] if holders else None


def _locks_of(pid: int, inode: int) -> set[tuple[int, int]]:
    """Inode and offset of each lock that a process holds on that file."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text().splitlines():
                if line.startswith("lock:"):
                    *_, file, start, _ = line.split()
                    found.add((int(file.rpartition(":")[2]), int(start)))
    return {lock for lock in found if lock[0] == inode}


@pytest.mark.parametrize("granian", [None, {}], ids=["gunicorn", "granian"])
def test_another_worker_takes_over_when_the_owner_is_killed(
    run: Callable[..., Server], spool: Spool, tmp_path: Path, granian: dict[str, str] | None
) -> None:
    server = run(workers=3, granian=granian)
    workers, owners = set(server.workers), []
    os.kill(server.pid, signal.SIGSTOP)  # or it starts a new worker, which may be the first to come
    while workers:
        leftover = spool.writers / "leftover"
        leftover.mkdir()
        (leftover / "smsgw.http.torn").write_bytes(b"To: 7968")
        wait_until(lambda: not names(spool.writers, "leftover"), spool.writers)
        assert server.send(ONE).status == 201
        owner = owner_among(workers, spool.state, tmp_path / "scratch")
        assert owner is not None
        owners.append(owner)
        workers.remove(owner)
        os.kill(owner, signal.SIGKILL)
    assert len(owners) == 3


def test_several_processes_on_one_spool_give_each_message_an_id_of_its_own(
    run: Callable[..., Server], spool: Spool
) -> None:
    servers = [run(), run(), run()]

    def send(client: int) -> dict[str, bytes]:
        """The files that one client was promised; every third request is a bulk."""
        promised = {}
        for number in range(20):
            numbers, text = ONE if number % 3 else MANY, f"client {client}, message {number}"
            reply = servers[client % 3].send(numbers, text)
            assert reply.status == 201, reply.body
            for to, id in reply.json["message_id"].items():
                assert id not in promised
                promised[id] = file_of(to, text)
        return promised

    with ThreadPoolExecutor(9) as threads:
        promised = list(threads.map(send, range(9)))
    assert spool.messages() == {id: file for files in promised for id, file in files.items()}
    assert len(spool.messages()) == 9 * (13 + 7 * len(MANY)) == sum(map(len, promised))
    assert (len(names(spool.writers)), names(spool.ready)) == (3, [])


def test_smsd_sees_a_message_only_when_it_is_complete(run: Callable[..., Server], spool: Spool) -> None:
    server = run()
    with INotify() as watch:
        watch.add_watch(spool.outgoing, flags.CREATE | flags.MODIFY | flags.ATTRIB | flags.MOVED_TO)
        ids = [
            id
            for reply in (
                server.send(ONE),
                server.send(ONE, key=KEY),
                server.send(MANY),
                server.send(MANY, key=f"{KEY}+"),
            )
            for id in reply.json["message_id"].values()
        ]
        seen = [(event.name, flags.from_mask(event.mask)) for event in watch.read(timeout=0)]
    assert seen == [(id, [flags.MOVED_TO]) for id in ids]


# A process that is stopped, and goes on later or never

STOPPED = """
import os, signal, sys
from pathlib import Path
from smsgw.spool.locks import Locks
with Locks(Path(sys.argv[1])).take(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextlib.contextmanager
def stopped(state: Path, lock: str) -> Iterator[None]:
    """Within the block, another process is stopped that holds that lock."""
    with subprocess.Popen([sys.executable, "-c", STOPPED, state, lock]) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield
        finally:
            process.kill()


def test_a_submission_that_a_stopped_process_holds_keeps_nobody_from_sending_or_taking_back(
    run: Callable[..., Server], spool: Spool
) -> None:
    server = run()
    [id] = server.send(ONE).json["message_id"].values()
    with stopped(spool.state, ready_lock("another")):
        (spool.ready / "another" / "0000000000000.normal.lvv+1").mkdir(parents=True)
        assert server.send(MANY, "several").status == 201
        assert server.send(MANY, "with a key", key=KEY).status == 201
        assert server.request("DELETE", f"{OUTGOING}/{id}").status == 200
        wait_until(lambda: len(names(spool.outgoing, "smsgw.*")) == 2 * len(MANY), spool.outgoing)


# A spool that is missing, read-only or full


def is_refused(reply: Reply) -> bool:
    """Whether that is how a spool that is out of service is reported."""
    assert reply.status == 503, (reply.status, reply.body)
    assert reply.headers.get_content_type() == "application/json"
    assert int(reply.headers["Retry-After"]) > 0
    assert reply.json.keys() == {"error"}
    assert reply.json["error"].startswith("the spool is out of service: ")
    return True


def are_all_refused(server: Server, key: str = KEY) -> bool:
    """Whether the spool is out of service for everything that would write to it."""
    sends = [server.send(ONE), server.send(MANY), server.send(ONE, key=key), server.send(MANY, key=f"{key}-many")]
    return all(map(is_refused, [server.monitor(), *sends]))


def prepare(small: Small) -> None:
    """Make smsd's folders there."""
    make_spool(small.outside)


def on(small: Small) -> dict[str, str]:
    """The setting of a spool there."""
    return {"smsgw.spool": str(small.path)}


def messages_on(small: Small) -> Counter[bytes]:
    return Counter(Spool(small.outside).messages().values())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    with Tmpfs(tmp_path / "small") as small:
        prepare(small)
        yield small


@dataclass(frozen=True)
class Fault:
    """What happens to a spool that a running server has written to, and how it is repaired."""

    name: str
    happen: Callable[[Small], object]
    repair: Callable[[Small], object]


def unmount(small: Small) -> None:
    small.run("umount", "--lazy", small.path)


def mount_anew(small: Small) -> None:
    small.run("mount", "-t", "tmpfs", "tmpfs", small.path)
    prepare(small)


def mount_read_only(small: Small) -> None:
    """Another file system in its place; the one that is in use cannot be made read-only."""
    mount_anew(small)
    small.run("mount", "-o", "remount,ro", small.path)


FAULTS = [
    Fault(
        "outgoing is missing",
        lambda small: (small.outside / "outgoing").rename(small.outside / "elsewhere"),
        lambda small: (small.outside / "elsewhere").rename(small.outside / "outgoing"),
    ),
    Fault("the spool is not mounted", unmount, mount_anew),
    Fault("the spool is read-only", mount_read_only, unmount),
    Fault(
        "nothing may enter outgoing",
        lambda small: small.run("chattr", "+i", small.path / "outgoing"),
        lambda small: small.run("chattr", "-i", small.path / "outgoing"),
    ),
    Fault("the spool is full", Small.fill, lambda small: (small.outside / "filler").unlink()),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_spool_out_of_service_is_reported_and_left_alone_and_used_again_when_it_is_repaired(
    run: Callable[..., Server], small: Small, fault: Fault
) -> None:
    server = run(on(small), enter=small.enter)
    assert server.send(ONE, "before").status == 201
    fault.happen(small)
    before = small.files()
    assert are_all_refused(server)
    assert small.files() == before
    fault.repair(small)
    assert server.send(ONE, "one", key="first-after-repair").status == 201
    assert server.send(MANY, "many").status == 201
    assert server.monitor().status == 200
    # What was refused under a key was not done, and so can be done now, even with another body.
    assert server.send(MANY, "again", key=f"{KEY}-many").status == 201
    expected = files_of(ONE, "one") + files_of(MANY, "many") + files_of(MANY, "again")
    assert messages_on(small) - files_of(ONE, "before") == expected


def test_a_cancel_that_cannot_be_done_leaves_nothing_behind(run: Callable[..., Server], small: Small) -> None:
    server = run(on(small), enter=small.enter)
    [id] = server.send(ONE).json["message_id"].values()
    small.run("chattr", "+i", small.path / "outgoing")
    before = small.files()
    assert is_refused(server.request("DELETE", f"{OUTGOING}/{id}"))
    assert small.files() == before
    small.run("chattr", "-i", small.path / "outgoing")
    assert server.request("DELETE", f"{OUTGOING}/{id}").status == 200
    assert messages_on(small) == Counter()


def test_a_server_that_was_started_before_its_spool_was_there_needs_no_restart(
    run: Callable[..., Server], tmp_path: Path
) -> None:
    with Tmpfs(tmp_path / "small") as small:
        server = run(on(small), enter=small.enter)
        assert are_all_refused(server)
        assert small.files() == {}
        prepare(small)
        small.run("mount", "-o", "remount,ro", small.path)
        before = small.files()
        assert are_all_refused(server)
        assert small.files() == before
        small.run("mount", "-o", "remount,rw", small.path)
        assert (server.send(MANY).status, server.monitor().status) == (201, 200)
        assert messages_on(small) == files_of(MANY, "Hi, Jack!")


def test_a_server_that_was_started_on_a_full_spool_needs_no_restart(run: Callable[..., Server], small: Small) -> None:
    filler = small.fill()
    server = run(on(small), enter=small.enter)
    before = small.files()
    assert are_all_refused(server)
    assert small.files() == before
    filler.unlink()
    assert server.send(MANY).status == 201
    assert messages_on(small) == files_of(MANY, "Hi, Jack!")


@pytest.mark.parametrize("fsync", ["true", "false"], ids=["with fsync", "without fsync"])
def test_a_bulk_that_does_not_fit_leaves_nothing_behind(run: Callable[..., Server], small: Small, fsync: str) -> None:
    server = run(on(small) | {"smsgw.fsync": fsync}, enter=small.enter)
    filler = small.fill(leave=20)
    before = small.files()
    assert is_refused(server.send(MANY))
    assert is_refused(server.send(MANY, key=KEY))
    assert small.files() == before
    assert server.send(ONE, "this one does").status == 201
    filler.unlink()
    assert server.send(MANY, key=KEY).status == 201
    assert messages_on(small) == files_of(ONE, "this one does") + files_of(MANY, "Hi, Jack!")


def test_a_bulk_that_needs_more_files_than_there_can_be_leaves_nothing_behind(
    run: Callable[..., Server], tmp_path: Path
) -> None:
    with Tmpfs(tmp_path / "small", files=60) as small:
        prepare(small)
        server = run(on(small), enter=small.enter)
        before = small.files()
        assert is_refused(server.send(MANY))
        assert is_refused(server.send(MANY, key=KEY))
        assert small.files() == before
        assert server.send(MANY[:10]).status == 201
        assert messages_on(small) == files_of(MANY[:10], "Hi, Jack!")


def test_a_disk_that_fills_up_while_a_bulk_enters_outgoing_makes_nobody_told_a_falsehood(
    run: Callable[..., Server], tmp_path: Path
) -> None:
    """On ext4 a folder needs a block more for some names: outgoing can be full after a part of a bulk."""
    with Ext4(tmp_path / "small") as small:
        prepare(small)
        spool = Spool(small.outside)
        server = run(on(small) | {"smsgw.fsync": "true"}, enter=small.enter)
        falsehoods, midway = [], 0
        for leave, key in itertools.product(range(50, 70), (None, KEY)):
            # A folder that has grown does not shrink, so a new one; the server makes its own folder anew meanwhile.
            gone = spool.outgoing.rename(small.outside / "gone")
            spool.outgoing.mkdir()
            shutil.rmtree(gone)
            assert server.monitor().status == 200
            filler = small.fill(leave)
            reply = server.send(MANY, "Hi, Jack!", key=key)
            entered, waiting = len(spool.messages()), sum(len(names(name)) for name in spool.ready.iterdir())
            midway += bool(waiting)
            if reply.status == 503 and (entered or waiting):
                falsehoods.append(f"{leave} blocks left, key {key}: 503, and {entered} sent, {waiting} to follow")
            filler.unlink()
            if waiting:
                spool.wait(lambda: not names(spool.ready), spool.ready)
            promised = files_of(MANY, "Hi, Jack!") if reply.status == 201 or entered or waiting else Counter()
            assert messages_on(small) == promised
            if key:
                assert server.send(MANY, "Hi, Jack!", key=key).status == 201
                assert messages_on(small) == files_of(MANY, "Hi, Jack!")
        assert midway  # it is this that it is about
        assert falsehoods == []


# Idempotency-Key


def test_one_key_sent_at_once_by_many_over_two_processes_sends_once(run: Callable[..., Server], spool: Spool) -> None:
    servers = [run(), run()]
    together = threading.Barrier(20)

    def send(client: int) -> Reply:
        together.wait(TIMEOUT)
        return servers[client % 2].send(MANY, key=KEY)

    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(send, range(20)))
    statuses = Counter(reply.status for reply in replies)
    assert statuses.keys() <= {201, 409}
    [body] = {reply.body for reply in replies if reply.status == 201}
    assert all(reply.json.keys() == {"error"} for reply in replies if reply.status == 409)
    assert [server.send(MANY, key=KEY).body for server in servers] == [body, body]
    assert Counter(spool.messages().values()) == files_of(MANY, "Hi, Jack!")
    assert set(json.loads(body)["message_id"].values()) == spool.messages().keys()

    other = [server.send(MANY, "Another text", key=KEY) for server in servers]
    assert [reply.status for reply in other] == [422, 422]
    assert all(reply.json.keys() == {"error"} for reply in other)
    assert len(spool.messages()) == len(MANY)

    for server in servers:
        server.kill()
        server.start()
    for server in servers:
        again = server.send(MANY, key=KEY)
        assert (again.status, again.body) == (201, body)
    assert [server.send(MANY, "Another text", key=KEY).status for server in servers] == [422, 422]
    assert len(spool.messages()) == len(MANY)

    # A key is a user's own.
    assert servers[0].send(ONE, "Another user's", key=KEY, user="ops").status == 201
    assert Counter(spool.messages().values()) == files_of(MANY, "Hi, Jack!") + files_of(ONE, "Another user's", "ops")


@pytest.mark.parametrize("entered", [0, 1, 49, 50][:: at_length(1, 2)], ids="{} files had entered outgoing".format)
@pytest.mark.parametrize("completed_by", ["repetition", "owner"])
def test_a_request_killed_between_its_commit_and_its_reply_is_completed(
    run: Callable[..., Server], spool: Spool, entered: int, completed_by: str
) -> None:
    server = run()
    reply = server.send(MANY, key=KEY)
    server.kill()
    # As the writer leaves it: what has not entered outgoing yet is in one folder, with the receipt.
    files = spool.messages()
    [key] = names(spool.receipts)
    committed = spool.ready / key / "0000000000000.normal.lvv+1"
    committed.mkdir(parents=True)
    (spool.receipts / key).rename(spool.ready / key / ".receipt")
    for id in sorted(files)[entered:]:
        (spool.outgoing / id).rename(committed / id)
    with Locks(spool.state).take("owner") if completed_by == "repetition" else contextlib.nullcontext():
        server.start()
        if completed_by == "repetition":
            assert names(spool.ready) == [key]  # nobody else completes it
        else:
            spool.wait(lambda: not names(spool.ready), spool.ready)
            assert spool.messages() == files
        again = server.send(MANY, key=KEY)
    assert (again.status, again.body) == (reply.status, reply.body)
    assert spool.messages() == files
    assert (names(spool.ready), names(spool.receipts)) == ([], [key])


def test_the_first_request_of_all_may_be_one_with_a_key_that_is_refused(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway()  # whose spool has never been written to
    nobody = {"mobiles": ["nobody"], "text": "Hi, Jack!"}
    headers = {"Idempotency-Key": KEY}
    first, again = (gateway.call("POST_JSON", OUTGOING, nobody, headers=headers, status=400) for _ in range(2))
    assert first.body == again.body


# Wrong passwords


def behind_proxy(server: Server, address: str, user: str, password: str | None = None) -> Reply:
    """A request that a trusted proxy passes on for a client."""
    headers = {"X-Forwarded-For": address}
    return server.request("GET", f"{OUTGOING}/", user=user, password=password, headers=headers)


def test_wrong_passwords_are_counted_over_all_processes(run: Callable[..., Server]) -> None:
    changes = {"smsgw.guesses_per_user": "6", "smsgw.trusted_proxies": "127.0.0.1"}
    servers = [run(changes, waitress={"clear_untrusted_proxy_headers": "false"}) for _ in range(2)]
    here, there = "192.0.2.1", "192.0.2.2"
    for guess in range(6):
        assert behind_proxy(servers[guess % 2], here, "lvv", f"wrong {guess}").status == 401
    for server in servers:
        for password in ("wrong again", None):
            reply = behind_proxy(server, here, "lvv", password)
            assert reply.status == 429
            assert 1 <= int(reply.headers["Retry-After"]) <= 60
            assert reply.json.keys() == {"error"}
        assert behind_proxy(server, here, "ops").status == 200
        assert behind_proxy(server, there, "lvv").status == 200


def test_an_address_may_guess_no_more_by_trying_many_users(run: Callable[..., Server]) -> None:
    changes = {"smsgw.guesses_per_address": "6", "smsgw.trusted_proxies": "127.0.0.1"}
    servers = [run(changes, waitress={"clear_untrusted_proxy_headers": "false"}) for _ in range(2)]
    for guess in range(6):
        assert behind_proxy(servers[guess % 2], "192.0.2.1", f"user{guess}", "wrong").status == 401
    for server in servers:
        assert behind_proxy(server, "192.0.2.1", "lvv").status == 429
        assert behind_proxy(server, "192.0.2.2", "lvv").status == 200


# A cancel whose process was killed


def test_a_cancel_that_was_killed_is_finished_after_the_restart(run: Callable[..., Server], spool: Spool) -> None:
    server = run()
    [id] = server.send(ONE).json["message_id"].values()
    content = spool.messages()[id]
    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(server.request, "DELETE", f"{OUTGOING}/{id}")
        spool.wait(lambda: id not in names(spool.outgoing), spool.outgoing)
        server.kill()  # in its second of grace
        with pytest.raises((OSError, http.client.HTTPException)):
            reply.result(TIMEOUT)
    assert spool.messages() == {f"{id}.LOCK": b""}
    server.start()
    spool.wait(lambda: not spool.messages() and not names(spool.cancelling), spool.outgoing, spool.cancelling)
    assert (spool.cancelled / id).read_bytes() == content


@dataclass(frozen=True)
class Leftover:
    """What a killed cancel can leave, and what becomes of it: which of the folders hold the message then."""

    name: str
    is_taken: bool
    before: frozenset[str]
    after: frozenset[str]


LEFTOVERS = [
    Leftover("before it was taken", False, frozenset({"outgoing"}), frozenset({"outgoing"})),
    Leftover("after it was taken", True, frozenset(), frozenset({"cancelled"})),
    Leftover("smsd has it", True, frozenset({"checked"}), frozenset({"checked"})),
    Leftover("smsd has sent it", True, frozenset({"sent"}), frozenset({"sent"})),
    Leftover("smsd has written it anew", True, frozenset({"outgoing"}), frozenset({"outgoing"})),
]


@pytest.mark.parametrize("leftover", LEFTOVERS, ids=lambda leftover: leftover.name)
def test_what_a_killed_cancel_left_is_finished_by_the_owner(
    run: Callable[..., Server], spool: Spool, leftover: Leftover
) -> None:
    server = run()
    [id] = server.send(ONE).json["message_id"].values()
    server.kill()
    content = (spool.outgoing / id).read_bytes()
    places = {name: spool.folder / name / id for name in ("outgoing", "checked", "sent")} | {
        "cancelled": spool.cancelled / id
    }
    (spool.outgoing / id).unlink()
    for name in leftover.before:
        places[name].write_bytes(content)
    (spool.cancelling / id).write_bytes(content if leftover.is_taken else b"")
    lock = spool.outgoing / f"{id}.LOCK"
    lock.touch()
    server.start()
    spool.wait(lambda: not lock.exists() and not names(spool.cancelling), spool.outgoing, spool.cancelling)
    assert {name for name, path in places.items() if path.exists()} == leftover.after
    assert {places[name].read_bytes() for name in leftover.after} == {content}
