"""An AT modem on a pseudo-terminal, and what it sends arrives on a phone that a test can look at.

`Modem` answers what smsd asks a GSM modem in PDU mode (3GPP TS 27.005, TS 27.007). smsd opens `Modem.device`; a test
reads `messages()`, or lets the modem refuse, report and receive. All methods may be called from any thread.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from . import pdu
from .pdu import Coding, Submitted

CTRL_Z, ESC = b"\x1a", b"\x1b"
DEFAULT_TIMEOUT = 60.0  # seconds for what takes less than one on a quiet machine
MEMORY = 100


@dataclass(frozen=True)
class Arrived:
    """A complete message as a phone shows it."""

    number: str
    text: str
    parts: tuple[Submitted, ...]
    flash: bool
    report: bool

    @classmethod
    def of(cls, parts: list[Submitted]) -> Arrived:
        first = parts[0]
        report = any(part.report_requested for part in parts)
        return cls(first.number, pdu.decode(parts), tuple(parts), first.flash, report)


@dataclass(frozen=True)
class Later:
    """A status report that comes in when the modem has taken `after` parts more."""

    status: int
    after: int


class Modem:
    """A modem named as in smsd.conf, which calls `ring` when something has come in.

    `reports` says which status reports follow a part that asked for one. It is given the part and returns their
    statuses (TS 23.040 clause 9.2.3.15): `delivered` plays one, `none`, which is the default, none, and
    `lambda part: (48, Later(0, 3))` two, the second one late.

    `mr` is the reference that it gave to the last part; it counts from 1 to `most_mr`, and then from 1 again.
    """

    def __init__(self, name: str = "GSM1", ring: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self._ring = ring
        self.reports: Callable[[Submitted], Iterable[int | Later]] = none
        self.mr, self.most_mr = 0, 255
        self.zone: tzinfo | None = None  # the machine's own
        self._changed = threading.Condition()
        self._delay = 0.0
        self._pdus: list[Submitted] = []
        self._inbox = pdu.Inbox()
        self._arrived: list[Arrived] = []
        self._refused: list[tuple[str, str]] = []
        self._memory: dict[int, str] = {}
        self._waiting: deque[str] = deque()  # for a place in the memory
        self._behind: dict[str, list[str]] = {}  # what comes in when that was fetched and deleted
        self._commands: list[str] = []
        self._late: list[tuple[int, Submitted, int]] = []  # how many parts it must have taken, of which part, status
        self._reference = 0
        self._received = b""
        self._announced: int | None = None  # octets of the PDU that comes next
        self._busy = False
        # The slave stays open here, so that the master sees no hang-up between two openings by smsd.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self._wake_reader, self._wake = os.pipe()
        self._unplugged = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"modem {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Modem:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        """The cable is pulled: the device is gone, for good. What was sent stays to be looked at."""
        if self._unplugged.is_set():
            return
        with self._changed:
            self._unplugged.set()
            self._changed.notify_all()
        os.write(self._wake, b"!")
        self.hang_up()  # or it might wait for ever to write to a terminal that nobody reads
        self._thread.join()
        for descriptor in (self._master, self._slave, self._wake_reader, self._wake):
            os.close(descriptor)

    def hang_up(self) -> None:
        """Forget a half-written line or PDU, as a modem does when DTR drops; a pseudo-terminal cannot drop it."""
        with self._changed:
            self._received, self._announced = b"", None
            termios.tcflush(self._slave, termios.TCIOFLUSH)

    # What smsd sent

    @property
    def pdus(self) -> list[Submitted]:
        """The parts that were accepted, in order."""
        with self._changed:
            return list(self._pdus)

    @property
    def taken(self) -> int:
        """How many parts were accepted."""
        return len(self._pdus)

    @property
    def commands(self) -> list[str]:
        """What smsd asked, in order."""
        with self._changed:
            return list(self._commands)

    def messages(self) -> list[Arrived]:
        """The complete messages, in the order in which they were completed."""
        with self._changed:
            return list(self._arrived)

    def wait(self, count: int = 1, timeout: float = DEFAULT_TIMEOUT) -> list[Arrived]:
        """The complete messages as soon as there are `count`; AssertionError after `timeout` seconds."""
        with self._changed:
            if self._changed.wait_for(lambda: len(self._arrived) >= count, timeout):
                return self.messages()
        raise AssertionError(
            f"{count} messages expected within {timeout} s, {len(self.messages())} arrived, {len(self.pdus)} parts; "
            f"last ones: {self.pdus[-5:]}; last commands: {self.commands[-10:]}"
        )

    def wait_busy(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Return once the modem has a PDU that it has not answered (because of `delay`)."""
        with self._changed:
            if self._changed.wait_for(lambda: self._busy, timeout):
                return
        raise AssertionError(f"{self.name} was given no PDU within {timeout} s; last commands: {self.commands[-10:]}")

    # What a test makes it do

    @property
    def delay(self) -> float:
        """Seconds from a PDU to the modem's answer; a change is also for the PDU that it is at."""
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        with self._changed:
            self._delay = seconds
            self._changed.notify_all()

    def refuse(self, number_prefix: str, error: str = "+CMS ERROR: 38") -> None:
        """Refuse each PDU to a number that begins with `number_prefix`, with `error` (TS 27.005 clause 3.2.5)."""
        with self._changed:
            self._refused.append((number_prefix, error))

    def accept(self) -> None:
        """Refuse no number any longer."""
        with self._changed:
            self._refused.clear()

    def receive(
        self,
        number: str,
        *texts: str,
        coding: Coding | None = None,
        order: Sequence[int] | None = None,
        reference: int | None = None,
        sent: datetime | None = None,
    ) -> None:
        """A message comes in from `number`; several `texts` are its parts.

        `number`: digits, `s` and digits for a short number, or a name of up to 11 characters. Without `coding` it is
        GSM where that alphabet holds all of the text. `order` are the indices of the parts, from 1, as they come: all
        of them by default, in turn; what is missing there can come with another call and the same `reference`.
        """
        with self._changed:
            if reference is None:
                reference = self._reference = self._reference % 255 + 1
            pdus = pdu.deliver(number, texts, sent or datetime.now().astimezone(), coding, reference)
            self._store(pdus[index - 1] for index in order or range(1, len(pdus) + 1))

    def report(self, submitted: Submitted, status: int = 0) -> None:
        """A status report for a part comes in (statuses: TS 23.040 clause 9.2.3.15; 0 is delivered).

        Its times are of `zone`, in which the network is.
        """
        with self._changed:
            self._store([self._status_report(submitted, status)])

    def report_late(self) -> None:
        """All that was to come in later comes in now."""
        with self._changed:
            self._report_due(sys.maxsize)

    def wait_fetched(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Return once smsd has fetched and deleted all that came in."""
        with self._changed:
            if self._changed.wait_for(lambda: not self._memory, timeout):
                return
        raise AssertionError(f"{len(self._memory)} PDUs of {self.name} were not fetched within {timeout} s")

    def _store(self, pdus: Iterable[str]) -> None:
        self._waiting.extend(pdus)
        free = (place for place in range(1, MEMORY + 1) if place not in self._memory)
        while self._waiting and (place := next(free, None)):
            self._memory[place] = self._waiting.popleft()
        self._changed.notify_all()
        if self._memory:
            self._ring()

    # The line

    def _serve(self) -> None:
        while not self._unplugged.is_set():
            ready, _, _ = select.select([self._master, self._wake_reader], [], [])
            if self._wake_reader in ready:
                return
            read = os.read(self._master, 65536)
            with self._changed:
                self._received += read
            while (line := self._line()) is not None:
                self._say(self._answer(line))

    def _line(self) -> bytes | None:
        """The next whole line, or PDU, with its end."""
        with self._changed:
            ends = (CTRL_Z, ESC) if self._announced is not None else (b"\r",)
            found = [position for end in ends if (position := self._received.find(end)) >= 0]
            if not found:
                return None
            cut = min(found) + 1
            line, self._received = self._received[:cut], self._received[cut:]
            return line

    def _say(self, answer: str) -> None:
        rest = answer.encode("ascii")
        while rest and not self._unplugged.is_set():
            rest = rest[os.write(self._master, rest) :]

    def _answer(self, line: bytes) -> str:
        if self._announced is not None:
            length, self._announced = self._announced, None
            return framed(self._submit(line, length)) if line.endswith(CTRL_Z) else framed("OK")
        command = line.decode("ascii", "replace").strip()
        if not command:
            return ""
        try:
            if command.startswith("AT+CMGS="):
                self._announced = int(command.removeprefix("AT+CMGS="))
                answer = "\r\n> "
            else:
                answer = framed(*self._command(command))
        except ValueError:  # no number: a line that was cut off when smsd was killed
            answer = framed("ERROR")
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()
        return answer

    def _command(self, command: str) -> tuple[str, ...]:
        match command.removeprefix("AT").partition("="):
            case "+CPIN?", _, _:
                return "+CPIN: READY", "OK"
            case "+CREG?", _, _:
                return "+CREG: 0,1", "OK"
            case "+CSQ", _, _:
                return "+CSQ: 20,0", "OK"
            case "+CIMI", _, _:
                return "250990000000001", "OK"
            case "+CGSN", _, _:
                return "350000000000001", "OK"
            case "+CPMS?", _, _:
                with self._changed:
                    store = f'"SM",{len(self._memory)},{MEMORY}'
                return f"+CPMS: {store},{store},{store}", "OK"
            case "+CMGR", _, place:
                with self._changed:
                    raw = self._memory.get(int(place))
                return (f"+CMGR: 0,,{pdu.tpdu_length(raw)}", raw, "OK") if raw else ("+CMS ERROR: 321",)
            case "+CMGL", _, _:
                with self._changed:
                    stored = sorted(self._memory.items())
                listed = (line for place, raw in stored for line in (f"+CMGL: {place},0,,{pdu.tpdu_length(raw)}", raw))
                return *listed, "OK"
            case "+CMGD", _, place:
                with self._changed:
                    self._store_in_turn(self._behind.pop(self._memory.pop(int(place.partition(",")[0]), ""), []))
                return ("OK",)
        return ("OK",)

    def _submit(self, line: bytes, length: int) -> str:
        raw = line.rstrip(CTRL_Z).decode("ascii", "replace").strip()
        try:
            part = pdu.decode_submit(raw)
        except ValueError:
            part = None
        if part is None or pdu.tpdu_length(raw) != length:
            return "+CMS ERROR: 304"  # TS 27.005 clause 3.2.5: invalid PDU mode parameter
        began = time.monotonic()
        with self._changed:
            self._busy = True
            self._changed.notify_all()
            while not self._unplugged.is_set() and (left := began + self._delay - time.monotonic()) > 0:
                self._changed.wait(left)
            self._busy = False
            for prefix, error in self._refused:
                if part.number.startswith(prefix):
                    return error
            self.mr = self.mr % self.most_mr + 1
            part = replace(part, mr=self.mr, taken=datetime.now().astimezone())
            self._pdus.append(part)
            if parts := self._inbox.add(part):
                self._arrived.append(Arrived.of(parts))
            if part.report_requested:
                self._play(part)
            self._report_due(len(self._pdus))
            self._changed.notify_all()
        return f"+CMGS: {part.mr}\r\n\r\nOK"

    def _report_due(self, taken: int) -> None:
        for late in [late for late in self._late if late[0] <= taken]:
            self._late.remove(late)
            self.report(*late[1:])

    def _play(self, part: Submitted) -> None:
        reports = list(self.reports(part))
        self._late += [(len(self._pdus) + each.after, part, each.status) for each in reports if isinstance(each, Later)]
        self._store_in_turn([self._status_report(part, each) for each in reports if not isinstance(each, Later)])

    def _store_in_turn(self, pdus: list[str]) -> None:
        """One after the other: smsd, which is at some place of the memory, might fetch two in another order."""
        if pdus[1:]:
            self._behind[pdus[0]] = pdus[1:]
        self._store(pdus[:1])

    def _status_report(self, submitted: Submitted, status: int) -> str:
        return pdu.status_report(submitted, status, datetime.now().astimezone(self.zone))


def framed(*lines: str) -> str:
    """Lines as a modem says them (ITU-T V.250 clause 5.7.1)."""
    return "".join(f"\r\n{line}\r\n" for line in lines)


def none(part: Submitted) -> tuple[int, ...]:
    """No status report."""
    return ()


def delivered(part: Submitted) -> tuple[int, ...]:
    """One status report: delivered."""
    return (0,)
