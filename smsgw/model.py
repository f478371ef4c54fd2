"""The types that plugins are written against: users, messages, files in the spool, events, errors. Public.

All of them are immutable. This module imports nothing of smsgw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

Line = TypeVar("Line")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client showed to say who it is. The secret is in no repr.

    ``scheme`` is ``"Basic"``, ``"Bearer"`` or a plugin's own word; ``userid`` is empty where the scheme names no
    user; ``address`` is the client's IP address (behind a trusted proxy, the one that the proxy saw).
    """

    scheme: str
    userid: str
    secret: str = field(repr=False)
    address: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking: the userid in the backend's own spelling, and the groups that the backend puts it in.

    ``credential`` names what the client showed, where that can end earlier than the user's account does: such as
    ``token:2bpDiRx7``. It is no secret. The hook ``holds`` tells whether it is still good.

    ``groups`` may be given as any collection of names.

    :raises TypeError: ``groups`` is one name, or has something else than names in it.
    """

    userid: str
    groups: frozenset[str] = frozenset()
    credential: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.groups, str) or not isinstance(self.groups, Iterable):
            raise TypeError(
                f"groups should be a set of names, such as {{'alarms'}}, and is {type(self.groups).__name__}"
            )
        groups = frozenset(self.groups)
        if stray := next((group for group in groups if not isinstance(group, str)), None):
            raise TypeError(f"groups should be a set of names, and one is of type {type(stray).__name__}")
        object.__setattr__(self, "groups", groups)

    @property
    def names(self) -> tuple[str, ...]:
        """How lines of an ini file may call that user, the nearest first: ``user``, ``@group`` …, ``*`` (everybody)."""
        return (self.userid, *(f"@{group}" for group in sorted(self.groups)), "*")

    def nearest(self, lines: Mapping[str, Line]) -> list[Line]:
        """The lines that count where the nearest do: the user's own, else those of their groups, else everybody's."""
        user, *groups, everybody = self.names
        own = ([lines[name] for name in names if name in lines] for names in ([user], groups, [everybody]))
        return next(filter(None, own), [])


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something was asked for.

    ``request_id`` is in the log, too. ``via`` says how: ``"POST /api/v2/messages"``, or ``"smsgw send"``. Of a request
    ``address`` is the client's IP address, and ``scheme`` that of its ``Authorization`` header, such as ``"Basic"``. On
    the command line ``account`` is the system's user. What there is not is empty.
    """

    request_id: str
    via: str
    address: str = ""
    scheme: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What a command has changed: ``action`` is ``"change"``, or ``"delete"`` where something is no more.

    ``owner`` is the userid of whose it is, ``ids`` the tokens or webhooks, and ``origin`` tells which command, and
    who ran it.
    """

    action: str
    owner: str
    ids: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Options:
    """How a message is to be sent, as far as the client says.

    ``validity`` is in minutes; ``report`` asks for a delivery report or for none (``None``: as the modem is set up);
    ``send_at`` is a time to come (UTC) that the message waits for.
    """

    queue: str | None = None
    flash: bool = False
    high_priority: bool = False
    validity: int | None = None
    report: bool | None = None
    send_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """All of a message but whom it is for: several recipients share one.

    ``sender`` is a userid; ``alphabet`` is ``"GSM"`` or ``"UCS2"``, ``parts`` the number of PDUs for each phone.
    """

    sender: str
    text: str
    alphabet: str
    parts: int
    options: Options = Options()


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way out: ``id`` names its file in the spool for ever, ``to`` is a normalised number.

    A normalised number is digits alone: no ``+``, and no ``s`` for a short number (see ``smsgw.numbers``).
    ``reference`` is the client's own word for it, which its file keeps.
    """

    id: str
    to: str
    content: Content
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """The messages of one request; a plugin that implements ``deliver`` is offered those that nobody took yet.

    ``refused`` has the code of each recipient's refusal, such as ``"forbidden"``: the codes are those of the v2 API.
    """

    identity: Identity
    messages: tuple[Message, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is kept under an ``Idempotency-Key``, so that the request's repetition gets the same reply.

    ``key`` is a digest over user and key, ``fingerprint`` one over the request, ``status`` and ``body`` the reply.
    """

    key: str
    fingerprint: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One file of the spool, as read.

    ``kind`` is ``outgoing``, ``checked``, ``sent``, ``failed``, ``incoming`` or ``report``; ``headers`` are the
    file's own, ``text`` its decoded body; ``owner`` is the userid it belongs to, ``None`` for nobody.
    """

    kind: str
    id: str
    headers: Mapping[str, str]
    text: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What the network says of a message, in a file that smsd wrote.

    ``place`` is the file's kind and name (``report/GSM1.2rV5Xc``); ``code`` the status (3GPP TS 23.040, 9.2.3.15) and
    ``detail`` smsd's words for it; ``discharged`` the network's time as smsd wrote it, in its own ``datetime_format``;
    ``at`` is when the report came in (UTC).
    """

    place: str
    code: int
    detail: str
    discharged: str
    at: datetime

    @property
    def is_delivered(self) -> bool:
        return self.code < 32

    @property
    def is_final(self) -> bool:
        """Whether it stays so; until then the network still tries."""
        return self.is_delivered or self.code >= 64


Position = tuple[int, str]
"""A message's position in lists: when it began (milliseconds since 1970), and its id."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages are looked for, newest first, and how many at most. ``None``: whatever it is.

    ``statuses`` are those of the v2 API, or ``("received",)`` for messages from outside; ``owner`` is a userid; ``to``
    a normalised number, and ``sender`` whom a received message is from, as the v2 API writes it; ``reference`` the
    client's own word; ``ids`` are names of files. No message began before ``since`` (milliseconds since 1970), and each
    is older than the position ``before``.
    """

    statuses: tuple[str, ...]
    owner: str | None = None
    to: str | None = None
    sender: str | None = None
    reference: str | None = None
    ids: tuple[str, ...] | None = None
    since: int = 0
    before: Position | None = None
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Remembered:
    """A message as it was when it was last heard of; ``report`` is the one that says finally what became of it.

    ``began`` is when, in milliseconds since 1970.
    """

    message: StoredMessage
    report: StatusReport | None
    began: int

    @property
    def position(self) -> Position:
        return self.began, self.message.id


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit: ``left`` of ``most``, of what is ``counted`` (``"messages"``, ``"parts"``).

    ``limit`` is what it is called for people; ``until`` is when it opens again, whole (UTC).
    """

    limit: str
    counted: str
    most: int
    left: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became of a message, at a time (UTC). Told at least once, in order for each message.

    ``key`` is the same each time that the event is told, and no other event's.
    """

    message: StoredMessage
    at: datetime
    key: str = field(default="", kw_only=True)


class Accepted(Event):
    """It is in the spool, perhaps to wait there, and the client has been told so or will be."""


class Sent(Event):
    """The network took it."""


class Failed(Event):
    """smsd gave up; ``message.headers["Fail_reason"]`` says why, where the modem did."""


@dataclass(frozen=True, slots=True)
class Reported(Event):
    """Status reports say finally what became of it; ``report`` is the one that decided."""

    report: StatusReport


class Delivered(Reported):
    """Status reports say that the phone has it, all parts that smsd recorded."""


class Undelivered(Reported):
    """A status report says that the phone will not get it, or not all of it."""


class Cancelled(Event):
    """It was taken back before smsd had it, and will never be sent."""


class Received(Event):
    """A message came in from outside."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that became of a modem or a queue, at a time (UTC). Told at least once, in order for each of them.

    ``name`` is the modem's or the queue's; ``what`` says in a sentence what is wrong, ``remedy`` what to do. ``key`` is
    the same each time that it is told, and no other event's. Only plugins that name it in ``hears`` are told.
    """

    name: str
    what: str
    remedy: str
    at: datetime
    key: str = field(default="", kw_only=True)


class ModemDown(Alarm):
    """A modem of smsd sends nothing."""


class ModemUp(Alarm):
    """It sends again, as far as smsd tells."""


class QueueStuck(Alarm):
    """Messages do not leave a queue."""


_MEASURE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a plugin as it stands now, such as how many of its deliveries wait.

    ``name`` is in small letters with ``_``, and has the unit at its end (``webhooks_waiting``, ``oldest_seconds``);
    ``about`` is a sentence for people. ``labels`` tell several of one name apart: each has the same labels, of few
    values.

    :raises ValueError: Prometheus would not take that.
    """

    name: str
    about: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _MEASURE.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a measure: write small letters, digits and _")
        if not isinstance(self.value, int | float):
            raise ValueError(f"{self.name!r} should be a number")
        for label, word in self.labels.items():
            if not _MEASURE.fullmatch(label):
                raise ValueError(f"{label!r} is no name of a label: write small letters, digits and _")
            if not isinstance(word, str):
                raise ValueError(f"the label {label!r} should be a word")


class TooMany(Exception):
    """A limit would be exceeded; nothing of the submission is sent. Raised by plugins that wrap ``deliver``.

    :param retry_after: seconds until the same submission could be taken; of ``OverLimit``, until a smaller one.
    :param detail: one sentence for the client: which limit, and when it opens again.
    :param fields: further HTTP fields of the reply, such as ``RateLimit``.
    """

    def __init__(self, retry_after: int, detail: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.detail = detail
        self.fields = dict(fields or {})


class OverLimit(TooMany):
    """The submission needs more at once than a limit ever lets through, so that no waiting helps.

    v2 answers 422 without ``Retry-After``. v1.0 has no such answer: it is 429, as for any ``TooMany``.
    """


class TextRefused(Exception):
    """The text cannot go out. Raised by plugins that transform it; the client is told why (400), and nothing is sent.

    :param reason: what is wrong with ``text``, as in ``"names a template that there is not"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unavailable(Exception):
    """What the request needs is out of service: a directory, a database. The client is told to come again (503).

    :param detail: one sentence for the client, without what is nobody's business.
    :param retry_after: seconds; ``None``: nobody knows better than the gateway.
    """

    def __init__(self, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class ConfigurationError(Exception):
    """A setting, a plugin or their combination is wrong. The message is one sentence that says what to do.

    Raised at start-up only, by the core or by a plugin's ``__init__`` or ``includeme``; the gateway then stays down.
    """
