"""When the power fails, what was accepted is there, once and whole; of what was not accepted, all or nothing.

Each test notes the calls by which real code puts messages into a real spool, and plays them again in a model of a disk.
The disk may lose whatever was not synced: the content of a file until the file is synced, and a name in a folder until
the folder is. Each spool that it can leave behind is made for real, and given to smsgw as after a restart.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smsgw.model import Message, Options, Receipt
from smsgw.spool.disk import SpoolUnavailable
from smsgw.spool.layout import KINDS, from_folder
from smsgw.spool.locks import Locks
from smsgw.spool.owner import Owner
from smsgw.spool.sending import put_file
from smsgw.spool.sending.cancel import Cancel
from smsgw.spool.sending.feeder import Feeder
from smsgw.spool.sending.idempotency import Receipts
from smsgw.spool.sending.put_file import PutFile, in_python
from smsgw.spool.sending.queue import Queue
from smsgw.spool.sending.writer import Writer
from tests import programs
from tests.conftest import make_spool
from tests.filesystem import Note, Watch
from tests.test_faults import submission

KEY = "0" * 64
RECEIPT = Receipt(KEY, "1" * 64, 201, '{"message_id": {}}')
OCCUPANT = "cron.1"  # a file of another program, which fills an ``outgoing`` whose depth is 1
WRITERS = "outgoing/.smsgw/writers/"
ALL = 6  # calls that are not synced, of which all selections are tried; of more only some


# What is done to a spool, in a process of its own


class Work:
    """What one process does to a spool; it notes what it was told."""

    def __init__(self, spool: Path, put: PutFile = put_file.fastest, depth: int = 100) -> None:
        self._notes = os.environ["NOTES"]
        self._layout = from_folder(spool)
        self._locks = Locks(self._layout.state)
        self._queue = Queue(self._layout, depth=depth, fsync=True)
        self._receipts = Receipts(self._layout, self._locks, self._queue, fsync=True)
        cancel = Cancel(self._layout, self._locks, self._queue)
        self._writer = Writer(
            self._layout, self._locks, self._queue, cancel, fsync=True, mode=0o660, group=None, put_file=put
        )

    def note(self, word: str) -> None:
        with open(self._notes, "a") as notes:
            notes.write(f"{word}\t\t\n")

    def make_folders(self) -> None:
        self._locks.make()

    def put(self, count: int, receipt: Receipt | None = None, delay: float = 0.0) -> None:
        send_at = datetime.now(UTC) + timedelta(seconds=delay) if delay else None
        self._writer.put(messages(count, send_at), receipt)
        self.note("accepted")

    def keep(self) -> None:
        with self._receipts.hold(KEY):
            self._receipts.keep(RECEIPT)
        self.note("accepted")

    def repeat(self) -> None:
        assert self._receipts.find(KEY) == RECEIPT
        self.note("accepted")

    def make_room(self) -> None:
        (self._layout.outgoing / OCCUPANT).unlink()

    def feed(self, until: str) -> None:
        """Let what waits go on until it is in that folder."""
        feeder = Feeder(self._layout, self._queue)
        folder = self._layout.outgoing if until == "outgoing" else self._layout.state / until
        pattern = "*" if until == "outgoing" else "*/*/*"
        while not any(path.name.startswith("smsgw.") for path in folder.glob(pattern)):
            feeder.look()
        self.note("at rest")


def messages(count: int, send_at: datetime | None = None) -> list[Message]:
    found, _ = submission(count)
    content = replace(found[0].content, options=Options(send_at=send_at))
    return [replace(message, content=content) for message in found]


def full(spool: Path) -> Work:
    (spool / "outgoing" / OCCUPANT).write_text("To: 911\n\nHi")
    return Work(spool, depth=1)


def complete(spool: Path) -> None:
    """A process dies when all is moved, and before that is synced; the repeated request completes it."""
    work, watch = Work(spool), Watch(Path(os.environ["NOTES"]).parent, spool)
    work.make_folders()
    child = os.fork()
    if child == 0:
        watch.fail(f"die {spool}/outgoing")
        work.put(2, RECEIPT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    watch.fail()
    work.repeat()


@dataclass(frozen=True)
class Scenario:
    """Something that is done; how many messages, and whether with a receipt."""

    work: Callable[[Path], object]
    count: int
    has_receipt: bool = False


def and_feed(work: Work, **options: float) -> None:
    work.put(1, **options)
    work.make_room()
    work.feed("outgoing")


SCENARIOS = {
    "single": Scenario(lambda spool: Work(spool).put(1), 1),
    "single by Python": Scenario(lambda spool: Work(spool, in_python).put(1), 1),
    "single that waits": Scenario(lambda spool: full(spool).put(1), 1),
    "single for later": Scenario(lambda spool: Work(spool).put(1, delay=3600), 1),
    "single with a key": Scenario(lambda spool: Work(spool).put(1, RECEIPT), 1, True),
    "several": Scenario(lambda spool: Work(spool).put(3), 3),
    "several by Python": Scenario(lambda spool: Work(spool, in_python).put(3), 3),
    "many": Scenario(lambda spool: Work(spool).put(6), 6),
    "several with a key": Scenario(lambda spool: Work(spool).put(3, RECEIPT), 3, True),
    "many with a key": Scenario(lambda spool: Work(spool).put(6, RECEIPT), 6, True),
    "several of which some wait": Scenario(lambda spool: Work(spool, depth=1).put(3), 3),
    "several for later": Scenario(lambda spool: Work(spool).put(2, delay=3600), 2),
    "refusal with a key": Scenario(lambda spool: Work(spool).keep(), 0, True),
    "completed for a repeated request": Scenario(complete, 2, True),
    "fed": Scenario(lambda spool: and_feed(full(spool)), 1),
    "fed at its time": Scenario(lambda spool: and_feed(full(spool), delay=0.3), 1),
    "waiting since its time": Scenario(lambda spool: late(full(spool)), 1),
}


def late(work: Work) -> None:
    work.put(1, delay=0.3)
    work.feed("waiting")


def run(name: str, folder: str) -> None:
    """What the process does that is watched."""
    SCENARIOS[name].work(Path(folder))


# The disk


@dataclass(eq=False)
class Node:
    """A file, or a folder with the names in it as they are now, and as they were at first."""

    names: dict[str, Node] | None = None
    first: Mapping[str, Node] = field(default_factory=dict)
    content: bytes = b""
    is_synced: bool = True


@dataclass(eq=False)
class Change:
    """Names that change together, each in a folder: to a node, or to none. The first folder is the one to be synced."""

    names: list[tuple[Node, str, Node | None]]
    is_synced: bool = False


Tree = frozenset[tuple[str, bytes | None]]  # paths, with the content of files


class Disk:
    """A file system that may lose what was not synced.

    :param contents: of the files, in the order in which they are made.
    :param tears: whether it may also lose one half of a rename. Then a rename is safe only when it is synced. No file
        system is as bad, but one without a journal comes near.
    """

    def __init__(self, root: Path, contents: Sequence[bytes] = (), *, tears: bool = False) -> None:
        self._root, self._tears = root, tears
        self._contents = iter(contents)
        self._top = Node({kind: Node({}) for kind in KINDS})
        self._top.first = dict(self._names(self._top))
        self._changes: list[Change] = []
        self.files: list[Node] = []

    def play(self, note: Note) -> None:
        """Do what was noted."""
        if note.word == "create":
            node = Node(content=next(self._contents, b""))
            self.files.append(node)
            self._change((*self._place(note.path), node))
        elif note.word == "mkdir":
            self._change((*self._place(note.path), Node({})))
        elif note.word == "unlink":
            self._change((*self._place(note.path), None))
        elif note.word == "rename":
            there = (*self._place(note.other), self.node(note.path))
            gone = (*self._place(note.path), None)
            for change in ([there], [gone]) if self._tears else ([there, gone],):
                self._change(*change)
        elif note.word == "write":
            self.node(note.path).is_synced = False
        elif note.word == "sync":
            self._sync(self.node(note.path))
        elif note.word == "sync all":
            for node in {*self.files, *(change.names[0][0] for change in self._changes)}:
                self._sync(node)

    def node(self, path: str) -> Node:
        node = self._top
        for step in Path(path).relative_to(self._root).parts:
            node = self._names(node)[step]
        return node

    def states(self) -> Iterator[Tree]:
        """What may be there after the power failed."""
        pending = [change for change in self._changes if not change.is_synced]
        for lost in _selections(pending):
            names: dict[Node, dict[str, Node]] = {}
            for change in self._changes:
                for folder, name, node in () if change in lost else change.names:
                    found = names.setdefault(folder, dict(folder.first))
                    if node is None:
                        found.pop(name, None)
                    else:
                        found[name] = node
            # What a process that died was writing is removed, as test_faults.py sees.
            yield frozenset(each for each in _walk(self._top, names) if not each[0].startswith(WRITERS))

    def _place(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self.node(folder), name

    def _change(self, *names: tuple[Node, str, Node | None]) -> None:
        self._changes.append(Change(list(names)))
        for folder, name, node in names:
            if node is None:
                del self._names(folder)[name]
            else:
                self._names(folder)[name] = node

    def _sync(self, node: Node) -> None:
        node.is_synced = True
        for change in self._changes:
            change.is_synced |= change.names[0][0] is node

    @staticmethod
    def _names(folder: Node) -> dict[str, Node]:
        assert folder.names is not None
        return folder.names


def _walk(folder: Node, names: Mapping[Node, Mapping[str, Node]], path: str = "") -> Iterator[tuple[str, bytes | None]]:
    """All that can be reached from a folder; a file that was not synced is torn."""
    for name, node in names.get(folder, folder.first).items():
        if node.names is None:
            yield f"{path}{name}", node.content if node.is_synced else b""
        else:
            yield f"{path}{name}", None
            yield from _walk(node, names, f"{path}{name}/")


def _selections(changes: Sequence[Change]) -> Iterator[Collection[Change]]:
    """Of a few all selections; of more none, all, all after a moment, each alone, all but each, and some by chance."""
    if len(changes) <= ALL:
        for count in range(len(changes) + 1):
            yield from itertools.combinations(changes, count)
        return
    chance = random.Random(len(changes))
    yield from (changes[place:] for place in range(len(changes) + 1))
    for each in changes:
        yield [each]
        yield [other for other in changes if other is not each]
    for _ in range(20):
        yield [change for change in changes if chance.random() < 0.5]


# After the restart


@dataclass(frozen=True)
class Outcome:
    """Messages in the folders from which they go out, by name and content, and the receipt."""

    messages: tuple[tuple[str, bytes], ...]
    receipt: Receipt | None


def outcome(spool: Path) -> Outcome:
    """What is in a spool when smsgw has been started on it."""
    layout = from_folder(spool)
    locks = Locks(layout.state, fsync=False)
    queue = Queue(layout, depth=100, fsync=False)
    Owner(layout, locks, queue, Cancel(layout, locks, queue)).look_after()
    Feeder(layout, queue).look()
    paths = [*layout.outgoing.glob("smsgw.*"), *queue.waiting.rglob("smsgw.*"), *queue.scheduled.rglob("smsgw.*")]
    found = sorted((path.name, path.read_bytes()) for path in paths)
    try:
        receipt = Receipts(layout, locks, queue, fsync=False).find(KEY)
    except SpoolUnavailable:  # it is torn
        receipt = None
    return Outcome(tuple(found), receipt)


def restored(tree: Tree, spool: Path) -> Path:
    for path, content in sorted(tree, key=lambda each: each[0]):
        if content is None:
            (spool / path).mkdir(parents=True)
        else:
            (spool / path).write_bytes(content)
    return spool


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_accepted_is_there_once_and_whole_wherever_the_power_fails(tmp_path: Path, name: str) -> None:
    scenario, spool = SCENARIOS[name], make_spool(tmp_path / "spool")
    watch = Watch(tmp_path, spool)
    script = tmp_path / "script"
    script.write_text("import sys; from tests.test_power_cut import run; run(*sys.argv[1:])")
    assert programs.run([script, name, spool], env=os.environ | watch.environment).returncode == 0
    notes = watch.notes()
    contents = contents_of(notes, spool)
    outcomes: dict[Tree, Outcome] = {}

    def after(disk: Disk) -> set[Outcome]:
        found = set()
        for tree in set(disk.states()):
            if tree not in outcomes:
                outcomes[tree] = outcome(restored(tree, tmp_path / f"restored {len(outcomes)}"))
            found.add(outcomes[tree])
        return found

    nothing, whole = Outcome((), None), outcome(spool)
    assert (len(dict(whole.messages)), whole.receipt) == (scenario.count, RECEIPT if scenario.has_receipt else None)
    is_accepted = False
    disk, tearing = Disk(spool, contents), Disk(spool, contents, tears=True)
    for place, note in enumerate(notes):
        disk.play(note)
        tearing.play(note)
        is_accepted |= note.word == "accepted"
        assert after(disk) <= ({whole} if is_accepted else {nothing, whole}), notes[: place + 1]
        if note.word in ("accepted", "at rest"):
            assert after(tearing) == {whole}, notes[: place + 1]
    assert is_accepted


def contents_of(notes: Sequence[Note], spool: Path) -> list[bytes]:
    """Of the files that were made, in their order; of those that are gone, nothing."""
    disk = Disk(spool)
    for note in notes:
        disk.play(note)
    for path in spool.rglob("*"):
        if path.is_file():
            disk.node(str(path)).content = path.read_bytes()
    return [node.content for node in disk.files]
