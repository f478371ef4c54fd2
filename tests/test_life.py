"""The life of a message as plugins hear of it: random interleavings of what smsd does, against a simple model."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsgw.model import Event
from smsgw.spool.layout import from_folder
from tests.conftest import PATIENCE, at_length, eventually, make_spool
from tests.test_follower import following

MODEMS, NUMBERS, BYTES = 2, 2, 2
STEP = 4  # seconds from one thing to the next
CODES = (0, 0, 31, 48, 64)


def is_final(code: int) -> bool:
    return code < 32 or code >= 64


@dataclass
class Message:
    """What the model knows of a message: where it is, and what of its parts is final."""

    id: str
    number: int
    history: list[str]
    modem: int = 0
    began: int = 0
    parts: dict[int, bool] = field(default_factory=dict)  # by the modem's byte
    final: dict[int, bool] = field(default_factory=dict)
    sent: int | None = None
    answered: set[int] = field(default_factory=set)  # parts with a final report since it was sent

    def judge(self, byte: int, code: int) -> None:
        """A report about that part: of two final ones the first counts, for the part and for the message."""
        if self.sent is not None and is_final(code):
            self.answered.add(byte)
        if not is_final(code) or byte in self.final:
            return
        self.final[byte] = code < 32
        if self.history[-1] == "Sent":
            self.conclude()

    def conclude(self) -> None:
        if not all(self.final.values()):
            self.history.append("Undelivered")
        elif self.parts.keys() == self.final.keys():
            self.history.append("Delivered")


class World:
    """A spool, smsd and the network at it, a plugin that hears, and the model, all at once."""

    def __init__(self, folder: Path) -> None:
        self.spool = make_spool(folder)
        self.layout = from_folder(folder)
        self.journal = self.layout.state / "journal"
        self.heard: dict[str, list[str]] = {}
        self.pings: queue.Queue[str] = queue.Queue()
        self.failures = 0
        self.messages: list[Message] = []
        self.busy: dict[int, Message] = {}  # by modem
        self.now = int(time.time())
        self._names = itertools.count(1)

    def notify(self, events: Sequence[Event]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the database is down")
        for event in events:
            if event.message.kind == "incoming":
                self.pings.put(event.message.id)
            else:
                self.heard.setdefault(event.message.id, []).append(type(event).__name__)

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """A gateway runs, whose memory of the folders is new."""
        with following(self.layout, self.notify) as self.known:
            yield

    def listen(self) -> None:
        """All folders were looked into."""
        for _ in range(2):
            self.put("incoming", ping := f"ping{next(self._names)}", "From: 911\n\nHi")
            while self.pings.get(timeout=PATIENCE) != ping:
                pass

    def put(self, kind: str, name: str, content: str) -> None:
        """A file appears, whole, at the model's time."""
        fresh = self.spool / kind / f".{name}"
        fresh.write_text(content)
        os.utime(fresh, (self.now, self.now))
        fresh.rename(self.spool / kind / name)

    def move(self, message: Message, before: str, after: str, head: str = "") -> None:
        self.put(after, message.id, f"To: 7916000000{message.number}\nFrom: lvv\n{head}\nHi")
        (self.spool / before / message.id).unlink()

    def do(self, what: str, pick: int, parts: Sequence[int], code: int) -> None:
        """The next thing that happens, where it can."""
        self.now += STEP
        modem, number = 1 + pick % MODEMS, 1 + pick // MODEMS % NUMBERS
        busy = self.busy.get(modem)
        waiting = [message for message in self.messages if not message.began]
        asked = [message for message in self.messages if message.sent or (message is busy and what == "early")]
        if what == "accept":
            self.accept(number)
        elif what == "begin" and waiting and not busy:
            self.begin(waiting[0], modem, parts)
        elif what == "send" and busy:
            self.send(busy)
        elif what == "fail" and busy:
            self.fail(busy)
        elif what in ("report", "early") and asked:
            message = asked[-1 - pick % min(len(asked), 3)]
            self.report(message.modem, message.number, list(message.parts)[parts[0] % len(message.parts)], code)
        elif what == "stray":
            self.report(modem, number, parts[0], code)

    def accept(self, number: int) -> None:
        message = Message(f"m{next(self._names)}", number, ["Accepted"])
        self.messages.append(message)
        self.put("outgoing", message.id, f"To: 7916000000{number}\nFrom: lvv\n\nHi")

    def begin(self, message: Message, modem: int, parts: Sequence[int]) -> None:
        self.busy[modem] = message
        message.modem, message.began, message.parts = modem, self.now, dict.fromkeys(parts, False)
        self.move(message, "outgoing", "checked")

    def send(self, message: Message) -> None:
        del self.busy[message.modem]
        message.sent = self.now
        ids = " ".join(map(str, message.parts))
        head = f"Modem: GSM{message.modem}\nSending_time: {self.now - message.began}\nMessage_id: {ids} .\n"
        self.move(message, "checked", "sent", head)
        message.history.append("Sent")
        message.conclude()

    def fail(self, message: Message) -> None:
        del self.busy[message.modem]
        self.move(message, "checked", "failed", f"Modem: GSM{message.modem}\n")
        message.history.append("Failed")

    def report(self, modem: int, number: int, byte: int, code: int) -> None:
        """The network says something, perhaps of nobody's message, late, twice, or before smsd is done."""
        text = f"SMS STATUS REPORT\nMessage_id: {byte}\nDischarge_timestamp: now\nStatus: {code},Said\n"
        head = f"From: 7916000000{number}\nModem: GSM{modem}\nLength: {len(text)}\n"
        self.put("report", f"r{next(self._names)}", f"{head}\n{text}")
        alike = [message for message in self.messages if message.number == number and byte in message.parts]
        sent = [message for message in alike if message.modem == modem and message.sent is not None]
        latest = max(sent, key=lambda message: message.sent or 0, default=None)
        coming = self.busy.get(modem)
        if coming in alike and (latest is None or byte in latest.answered):
            coming.judge(byte, code)
        elif latest:
            latest.judge(byte, code)

    def is_as_the_model(self) -> bool:
        return all(list(dict.fromkeys(self.heard.get(message.id, []))) == message.history for message in self.messages)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.spool.following.follower.MOST", 3)
    monkeypatch.setattr("smsgw.spool.following.follower.RETRY", 0.02)
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.02)
    monkeypatch.setattr("smsgw.journal.notifier.MOST", 3)
    monkeypatch.setattr("smsgw.spool.following.watch.TOGETHER", 0.001)


OFTEN = "accept begin send begin send report report report"
THINGS = st.tuples(
    st.sampled_from(["fail", "stray", "early", *OFTEN.split()]),
    st.integers(0, 11),
    st.lists(st.integers(1, BYTES), min_size=1, max_size=BYTES, unique=True),
    st.sampled_from(CODES),
)
Thing = tuple[str, int, list[int], int]
# What happens while a gateway runs, dies, or none does; how often its plugin fails then.
TIMES = st.tuples(
    st.sampled_from(["runs", "runs", "dies", "is down"]), st.integers(0, 2), st.lists(THINGS, min_size=5, max_size=20)
)


@settings(max_examples=at_length(120, 15))
@given(times=st.lists(TIMES, min_size=2, max_size=4))
def test_what_plugins_hear_is_what_became_of_messages(
    times: list[tuple[str, int, list[Thing]]],
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        world = World(folder / "spool")
        with world.followed():
            world.listen()
        for gateway, failures, things in times:
            before = folder / "before"
            shutil.rmtree(before, ignore_errors=True)
            shutil.copytree(world.journal, before)
            with world.followed() if gateway != "is down" else contextlib.nullcontext():
                world.failures = failures
                for thing in things:
                    world.do(*thing)
            if gateway == "dies":
                shutil.rmtree(world.journal)  # what it wrote last never reached the disk
                shutil.copytree(before, world.journal)
        world.failures = 0
        with world.followed():
            eventually(world.is_as_the_model)
            world.listen()
            for message in world.messages:
                heard = list(dict.fromkeys(world.heard[message.id]))
                assert heard == message.history
                if found := world.known.message(message.id, is_received=False):
                    said = found.report and ("Delivered" if found.report.is_delivered else "Undelivered")
                    assert said == {"Sent": None, "Failed": None}.get(message.history[-1], message.history[-1])
    finally:
        shutil.rmtree(folder)
