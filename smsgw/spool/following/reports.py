"""Which message a status report is about, and what the reports say of a message. smsd's manual, "Status Reports".

A report names its message by the modem, the number, and the one byte with which that modem counts: it is about the
latest message with these that was sent before, in the last 14 days; or about an earlier one, where the network took the
message, as the report says, before smsd began with the latest. Of a message in parts there is one report for each; smsd
records the last part's byte, or with ``messageids = 3`` all of them.

"Before" is told by the times of the files. Where the clock was set back between the message and its report, these are
wrong. That shows when the report comes: there is a message with the same reference that was sent later than now. The
report is about that one, and the journal keeps this (``Report.about``).
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter, itemgetter

from smsgw.model import StatusReport, StoredMessage
from smsgw.numbers import from_spool

EARLY = 2.0  # seconds by which a report can be written before its message reaches "sent", beside the time of sending
# Seconds for which reports come after smsd began with their message: so a report need not be looked for in what is
# older. A message can ask for 63 weeks (TS 23.040, 9.2.3.12.1), but networks give up within days.
LONGEST = 14 * 86400.0
ROUGHLY = 60.0  # seconds by which the network's times may be wrong, or rounded
REWRITTEN = 86400.0  # seconds by which a file's time is later than what smsd says in it, where others wrote it anew
FIRST = 1970  # what lies before has no year that smsd wrote: it is read as one of 1900

KINDS = ("incoming", "report")  # where reports can be

_TITLE = "SMS STATUS REPORT"
_LAST = datetime.max.replace(tzinfo=UTC).timestamp() - 1  # a file's time can be set to any
_BYTE = re.compile("[0-9]{1,3}")

Reference = str  # the modem's byte, the modem, the normalised number
Moment = Callable[[str | None], datetime | None]  # reads times as smsd writes them; ``None``: it cannot be read


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it lies in the spool: what it is about, and what it says.

    ``taken`` is the time before which smsd began with its message, in seconds since the epoch, if the network's clock
    is right; ``said`` is when the network says that it took the message, and was done with it. ``about`` is the id of
    its message where the times of the files do not say it.
    """

    reference: Reference
    status: StatusReport
    taken: float
    said: tuple[datetime | None, datetime | None]
    about: str | None = None

    @property
    def came(self) -> tuple[float, str]:
        """Its place in the order of reports: seconds since the epoch, and its file."""
        return self.status.at.timestamp(), self.status.place


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that smsd sent and that reports can be about.

    ``began`` and ``written`` are when smsd began with it (or a bit earlier), and when it was done, in seconds since the
    epoch; ``parts`` is what reports name it by.
    """

    id: str
    began: float
    written: float
    owner: str | None
    parts: frozenset[Reference]


def parts_of(headers: Mapping[str, str]) -> frozenset[Reference]:
    """What reports about a message with these headers would name; nothing where none was asked for."""
    words = headers.get("Message_id", "").split()
    modem, to = headers.get("Modem", ""), headers.get("To", "")
    return frozenset(_reference(word, modem, to) for word in words if _BYTE.fullmatch(word))


def _reference(byte: str, modem: str, number: str) -> Reference:
    return f"{int(byte)} {modem} {from_spool(number)}"


def first_written(found: StoredMessage, header: str, written: float, moment: Moment) -> float:
    """When smsd wrote a file, in seconds since the epoch: it may have been touched since, or put back from a backup.

    :param header: where smsd says so, ``Sent`` or ``Received``: in seconds, and perhaps in another time zone. So the
        file's own time counts, unless it is much later; and where ``datetime_format`` has no year, in any case.
    """
    said = moment(found.headers.get(header))
    if said is None or said.year < FIRST:
        return written
    return said.timestamp() if written - said.timestamp() > REWRITTEN else written


def sending_of(id: str, found: StoredMessage, written: float, owner: str | None, moment: Moment) -> Sending | None:
    """The same of a file of ``sent``; ``None``: no reports can be about it.

    :param written: when the file was, in seconds since the epoch.
    """
    parts = parts_of(found.headers)
    if not parts:
        return None
    written = first_written(found, "Sent", written, moment)
    took = found.headers.get("Sending_time", "")
    began = written - EARLY - (int(took) if re.fullmatch("[0-9]{1,5}", took) else 0)
    return Sending(id, began, written, owner, parts)


def parse(place: str, found: StoredMessage, written: float, moment: Moment) -> Report | None:
    """The report that a file of ``report`` or ``incoming`` is; ``None``: it is none.

    :param place: the kind and the name of the file, such as ``report/GSM1.2rV5Xc``.
    :param written: when, in seconds since the epoch.

    smsd leaves reports in ``incoming`` where it has no other folder for them; what tells them from a text that somebody
    wrote to look like one are their headers.
    """
    kind, _, _ = place.partition("/")
    if kind not in KINDS or (kind == "incoming" and not _is_marked(found.headers)):
        return None
    title, *lines = found.text.split("\n")
    said = dict(line.rstrip("\r").split(": ", 1) for line in reversed(lines) if ": " in line)
    code, comma, detail = said.get("Status", "").partition(",")
    byte = said.get("Message_id", "")
    if title.strip() != _TITLE or not (_BYTE.fullmatch(byte) and _BYTE.fullmatch(code) and comma) or int(code) > 255:
        return None
    modem = found.headers.get("Modem") or found.headers.get("Subject", "")
    reference = _reference(byte, modem, found.headers.get("From", ""))
    at = datetime.fromtimestamp(min(max(first_written(found, "Received", written, moment), 0), _LAST), UTC)
    discharged = said.get("Discharge_timestamp") or found.headers.get("Received", "")
    times = moment(found.headers.get("Sent")), moment(said.get("Discharge_timestamp"))
    taken = at.timestamp() - _delay(*times, at)
    return Report(reference, StatusReport(place, int(code), _shown(detail), _shown(discharged), at), taken, times)


def _delay(sent: datetime | None, discharged: datetime | None, came: datetime) -> float:
    """Seconds for which the network certainly had a message whose report came then; 0: nobody knows.

    :param sent: when it took the message, and when it was done: smsd writes the network's own time, in whatever zone.

    Only how long it took is the same in all zones, unless the two are of different ones; so the shorter time counts.
    """
    if sent is None or discharged is None:
        return 0.0
    return max(min(discharged - sent, came - sent).total_seconds() - ROUGHLY, 0.0)


def _is_marked(headers: Mapping[str, str]) -> bool:
    """Whether smsd says so of a report: by ``UDH: no``, which it gives to no text.

    A sender's name (type of address 0xD0, TS 23.040 clause 9.1.2.5) may hold a line break, which smsd writes as it is,
    and so a header of the sender's own.
    """
    is_binary = headers.get("Alphabet", "").startswith("bin")
    return headers.get("UDH") in ("no", "false") and not is_binary and not headers.get("From_TOA", "").startswith("D")


class Reports:
    """Sent messages and status reports that can belong together, and which does.

    :param sendings: all of them, or all that have one of some references.
    :param reports: likewise.
    """

    def __init__(self, sendings: Iterable[Sending], reports: Iterable[Report]) -> None:
        self._sent = {sending.id: sending for sending in sendings}
        # Of each reference, in the order of their times: messages' ids, and the reports that are final.
        self._sent_as: dict[Reference, list[tuple[float, str]]] = {}
        self._finals_as: dict[Reference, list[Report]] = {}
        for sending in self._sent.values():
            for part in sending.parts:
                self._sent_as.setdefault(part, []).append((sending.written, sending.id))
        for report in reports:
            if report.status.is_final:
                self._finals_as.setdefault(report.reference, []).append(report)
        for sent in self._sent_as.values():
            sent.sort()
        for finals in self._finals_as.values():
            finals.sort(key=attrgetter("came"))

    def message_of(self, report: Report) -> str | None:
        """The id of the message that a report is about; ``None``: nobody's, or not in ``sent`` yet.

        It is the latest before, or the next one, where smsd was at that already and the latest has its final report:
        so nothing that comes later takes a report away from a message that it decided about.
        """
        if report.about in self._sent:
            return report.about
        then, _ = report.came
        sent = self._sent_as.get(report.reference, [])
        after = bisect.bisect_right(sent, then, key=itemgetter(0))
        latest = self._latest(report, (sent[place][1] for place in range(after - 1, -1, -1)))
        coming = sent[after][1] if after < len(sent) and self._sent[sent[after][1]].began <= then else None
        if latest is None or (coming and self._is_decided(report, self._sent[latest].written)):
            return coming
        return latest

    def from_later(self, report: Report, now: float) -> str | None:
        """The id of the latest message with that reference, if it was sent later than now: the clock was set back.

        Where the report is later than now as well, both came before that, and the times of the files are right.

        :param now: when the report is seen for the first time, in seconds since the epoch.
        """
        sent, limit = self._sent_as.get(report.reference), now + EARLY
        return sent[-1][1] if sent and report.came[0] <= limit < sent[-1][0] else None

    def _latest(self, report: Report, ids: Iterable[str]) -> str | None:
        """Of these, the last one first, the first that smsd began before the network took it; or else the last one.

        A message that has its final report gets no other, so that a network whose clock is wrong does little harm; but
        the same one again is no news of another message.
        """
        last, following = None, math.inf
        for id in ids:
            sent = self._sent[id]
            if report.came[0] - sent.began >= LONGEST:
                break
            if sent.began <= report.taken:
                decided = last and self._is_decided(report, sent.began, following)
                return last if decided and not self._is_repeated(report, sent.began) else id
            last, following = last or id, sent.began
        return last

    def _is_decided(self, report: Report, since: float, taken: float = math.inf) -> bool:
        """Whether a final report with the same reference came since then, and before this one.

        :param taken: those do not count that are about what the network took later, in seconds since the epoch.
        """
        return any(known.taken < taken for known in self._earlier(report, since))

    def _is_repeated(self, report: Report, since: float) -> bool:
        """Whether one that says the same came since then, and before this one."""
        same = report.said, report.status.code
        return any((known.said, known.status.code) == same for known in self._earlier(report, since))

    def _earlier(self, report: Report, since: float) -> Iterator[Report]:
        """The final reports with the same reference that came since then, and before this one."""
        came = self._finals_as.get(report.reference, [])
        begin = bisect.bisect_left(came, since, key=_came)
        yield from came[begin : bisect.bisect_left(came, report.came, key=attrgetter("came"))]

    def owner_of(self, report: Report) -> str | None:
        id = self.message_of(report)
        return None if id is None else self._sent[id].owner

    def fate(self, id: str) -> StatusReport | None:
        """The report that says finally what became of a message; ``None``: none does yet.

        Of two reports about a part the first counts.
        """
        sent = self._sent[id]
        first = (report for part in sent.parts for report in itertools.islice(self._about(part, sent), 1))
        missing = set(sent.parts)
        for report in sorted(first, key=attrgetter("came")):
            missing.remove(report.reference)
            if not missing or not report.status.is_delivered:
                return report.status
        return None

    def _about(self, part: Reference, sent: Sending) -> Iterator[Report]:
        """The final ones about a part, in the order in which they came."""
        for report in self._finals_as.get(part, []):
            is_in_time = 0 <= report.came[0] - sent.began < LONGEST
            if (is_in_time or report.about == sent.id) and self.message_of(report) == sent.id:
                yield report


def _came(report: Report) -> float:
    return report.came[0]


def _shown(written: str) -> str:
    """What networks and modems say, as it may go to a client: one line, not too long."""
    return "".join(filter(str.isprintable, written))[:200].strip()
