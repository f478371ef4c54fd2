"""The life of a message as one table: its statuses, the folders where it then is, and the events. Public.

No other module lists statuses. A status never goes back; of two that are final the first counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smsgw.model import (
    Accepted,
    Alarm,
    Cancelled,
    Delivered,
    Event,
    Failed,
    ModemDown,
    ModemUp,
    QueueStuck,
    Received,
    Sent,
    StatusReport,
    Undelivered,
)


@dataclass(frozen=True, slots=True)
class Status:
    """A status of the v2 API.

    ``kind`` is what a message with that status is called in the spool (``StoredMessage.kind``), ``folders`` are where
    its file is, in the order in which it moves; ``event`` tells of the status, and ``is_ended`` says whether smsd and
    smsgw have done all that they will do with the message.
    """

    name: str
    kind: str
    folders: tuple[str, ...]
    event: type[Event]
    is_ended: bool = True


LIFE = (
    Status("scheduled", "outgoing", ("scheduled",), Accepted, is_ended=False),
    Status("queued", "outgoing", ("outgoing", "cancelling"), Accepted, is_ended=False),
    Status("sending", "checked", ("checked",), Accepted, is_ended=False),
    Status("sent", "sent", ("sent",), Sent),
    Status("delivered", "sent", ("sent",), Delivered),
    Status("undelivered", "sent", ("sent",), Undelivered),
    Status("failed", "failed", ("failed",), Failed),
    Status("cancelled", "cancelled", ("cancelled",), Cancelled),
)
RECEIVED = Status("received", "incoming", ("incoming",), Received)

BY_NAME: Mapping[str, Status] = {status.name: status for status in (*LIFE, RECEIVED)}
OUTGOING = tuple(status.name for status in LIFE)  # of messages on their way out, in the order of their life
ENDED = frozenset(status.name for status in (*LIFE, RECEIVED) if status.is_ended)
# Of messages that smsd or a user has done with: the status that the folder alone says.
BY_FOLDER: Mapping[str, Status] = {name: BY_NAME[name] for name in ("cancelled", "sent", "failed")} | {
    "incoming": RECEIVED
}
EVENTS: Mapping[str, type[Event]] = {"accepted": Accepted} | {
    status.name: status.event for status in (*LIFE, RECEIVED) if status.is_ended
}
EVENT_NAMES: Mapping[type[Event | Alarm], str] = {event: name for name, event in EVENTS.items()}
# Of no message, but of a modem or a queue.
ALARMS: Mapping[str, type[Alarm]] = {"modem.down": ModemDown, "modem.up": ModemUp, "queue.stuck": QueueStuck}
ALARM_NAMES: Mapping[type[Event | Alarm], str] = {alarm: name for name, alarm in ALARMS.items()}


def status_of(kind: str, report: StatusReport | None, *, is_scheduled: bool = False) -> str:
    """The status of a message of that kind (``StoredMessage.kind``).

    :param report: the status report that says finally what became of it; ``None``: there is none.
    :param is_scheduled: whether it waits for its time.
    """
    if kind == "outgoing" and is_scheduled:
        return "scheduled"
    if kind == "sent" and report is not None:
        return "delivered" if report.is_delivered else "undelivered"
    return _FIRST[kind]


_FIRST = {status.kind: status.name for status in (RECEIVED, *reversed(LIFE)) if status.name != "scheduled"}
