"""Which message a status report is about, and what the reports say of a message. smsd's manual, "Status Reports".

A report names its message by the modem, the number, and the one byte with which that modem counts: it is about the
latest message with these that was sent before. Of a message in parts there is one report for each; smsd records the
last part's byte, or with ``messageids = 3`` all of them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from smsgw.model import StatusReport
from smsgw.numbers import from_spool
from smsgw.spool.file import SpoolFile

EARLY = 5.0  # seconds by which a report can be written before its message reaches "sent", beside the time of sending
LATE = 60.0  # seconds in which the message of a report may still be on its way to "sent"

_TITLE = "SMS STATUS REPORT"
_BYTE = re.compile("[0-9]{1,3}")

Reference = tuple[str, str, int]  # modem, normalised number, the modem's byte


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it lies in the spool: what it is about, and what it says."""

    reference: Reference
    status: StatusReport


@dataclass(frozen=True, slots=True)
class _Sent:
    """A sent message; times are seconds since the epoch: when smsd began with it, and when it was done."""

    began: float
    written: float
    owner: str | None
    parts: frozenset[Reference]


def parts_of(headers: Mapping[str, str]) -> frozenset[Reference]:
    """What reports about a message with these headers would name; nothing where none was asked for."""
    modem, to = headers.get("Modem", ""), from_spool(headers.get("To", ""))
    words = headers.get("Message_id", "").split()
    return frozenset((modem, to, int(word)) for word in words if _BYTE.fullmatch(word))


def parse(place: str, found: SpoolFile, written: float) -> Report | None:
    """The report that a file of ``report`` or ``incoming`` is; ``None``: it is none.

    :param place: the kind and the name of the file, such as ``report/GSM1.2rV5Xc``.
    :param written: when, in seconds since the epoch.

    smsd leaves reports in ``incoming`` where it has no other folder for them; what tells them from a text that somebody
    wrote to look like one is a header ``UDH``, which smsd gives to no text without one, and which says no.
    """
    if not place.startswith("report/") and (
        found.headers.get("UDH") not in ("no", "false") or found.headers.get("Alphabet", "").startswith("bin")
    ):
        return None
    title, *lines = found.text.split("\n")
    said = dict(line.rstrip("\r").split(": ", 1) for line in reversed(lines) if ": " in line)
    code, comma, detail = said.get("Status", "").partition(",")
    byte = said.get("Message_id", "")
    if title.strip() != _TITLE or not (_BYTE.fullmatch(byte) and _BYTE.fullmatch(code) and comma) or int(code) > 255:
        return None
    modem = found.headers.get("Modem") or found.headers.get("Subject", "")
    reference = (modem, from_spool(found.headers.get("From", "")), int(byte))
    at = datetime.fromtimestamp(written, UTC)
    discharged = said.get("Discharge_timestamp") or found.headers.get("Received", "")
    return Report(reference, StatusReport(place, int(code), _shown(detail), _shown(discharged), at))


def decide(parts: Iterable[Reference], reports: Iterable[Report]) -> StatusReport | None:
    """The report that says finally what became of a message; of two about a part the first final one counts.

    :param parts: what the message recorded.
    :param reports: those about it, in the order in which they came.
    """
    missing = set(parts)
    for report in reports:
        if report.reference in missing and report.status.is_final:
            if not report.status.is_delivered:
                return report.status
            missing.remove(report.reference)
            if not missing:
                return report.status
    return None


class Reports:
    """The sent messages that reports can be about, and the reports, as far as the folders' indexes have seen them.

    Whoever calls it holds these indexes.
    """

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}
        self._sent_as: dict[Reference, set[str]] = {}
        self._reports: dict[str, Report] = {}
        self._reports_as: dict[Reference, set[str]] = {}

    def add_sent(self, id: str, found: SpoolFile, written: float, owner: str | None) -> None:
        if parts := parts_of(found.headers):
            took = found.headers.get("Sending_time", "")
            began = written - EARLY - (int(took) if re.fullmatch("[0-9]{1,5}", took) else 0)
            self._sent[id] = _Sent(began, written, owner, parts)
            for part in parts:
                self._sent_as.setdefault(part, set()).add(id)

    def forget_sent(self, id: str) -> None:
        if sent := self._sent.pop(id, None):
            for part in sent.parts:
                _discard(self._sent_as, part, id)

    def add(self, place: str, found: SpoolFile, written: float) -> Report | None:
        """Remember that file, where it is a report."""
        if report := parse(place, found, written):
            self._reports[place] = report
            self._reports_as.setdefault(report.reference, set()).add(place)
        return report

    def forget(self, place: str) -> None:
        if report := self._reports.pop(place, None):
            _discard(self._reports_as, report.reference, place)

    def message_of(self, report: Report) -> str | None:
        """The id of the message that a report is about; ``None``: nobody's, or not in ``sent`` yet."""
        then = report.status.at.timestamp()
        before = (id for id in self._sent_as.get(report.reference, ()) if self._sent[id].began <= then)
        return max(before, key=lambda id: (self._sent[id].written, id), default=None)

    def owner_of(self, report: Report) -> str | None:
        id = self.message_of(report)
        return None if id is None else self._sent[id].owner

    def about(self, id: str) -> list[Report]:
        """The reports about a message, in the order in which they came."""
        parts = self._sent[id].parts if id in self._sent else ()
        places = itertools.chain.from_iterable(self._reports_as.get(part, ()) for part in parts)
        found = [self._reports[place] for place in places if self.message_of(self._reports[place]) == id]
        return sorted(found, key=lambda report: (report.status.at, report.status.place))

    def fate(self, id: str) -> StatusReport | None:
        """The report that says finally what became of a message; ``None``: there is none yet."""
        return decide(self._sent[id].parts, self.about(id)) if id in self._sent else None


def _discard(names: dict[Reference, set[str]], reference: Reference, name: str) -> None:
    known = names.get(reference, set())
    known.discard(name)
    if not known:
        names.pop(reference, None)


def _shown(written: str) -> str:
    """What networks and modems say, as it may go to a client: one line, not too long."""
    return "".join(filter(str.isprintable, written))[:200].strip()
