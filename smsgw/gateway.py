"""What the gateway does, whichever API asks: send (permits → transform → deliver), read, list, cancel, delete.

Called by the views with an identity and plain values; answers with types and refuses with exceptions. Knows no HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar, Protocol, TypeVar

import pluggy
from pyramid.config import Configurator
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.ids import Ids
from smsgw.model import (
    Allowance,
    Content,
    Identity,
    Message,
    Options,
    Receipt,
    StatusReport,
    StoredMessage,
    Submission,
    TextRefused,
)
from smsgw.numbers import NumberPlan
from smsgw.plugins import ask, implementations
from smsgw.security import decide
from smsgw.settings import Settings, is_header_value
from smsgw.spool.folders import Folders, Page
from smsgw.spool.index import Place, began
from smsgw.spool.layout import Layout
from smsgw.spool.receipts import InUse, Receipts, digest
from smsgw.spool.writer import SpoolUnavailable, Writer
from smsgw.text import measure

MAX_VALIDITY = 63 * 7 * 24 * 60  # minutes: the longest relative validity period (TS 23.040, 9.2.3.12.1)

SEARCHED = 1000  # messages that are looked at for one page
REFUSAL = 4096  # bytes of a refusal that is remembered: one block of a disk that refusals shall not fill

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not done: one sentence, and a reason for each field or recipient at fault."""

    status: ClassVar[int]

    def __init__(self, detail: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = dict(errors or {})


class Invalid(Refused):
    """The request makes no sense."""

    status = 400


class Forbidden(Refused):
    """A policy says no."""

    status = 403


class NotFound(Refused):
    """There is no such message, or it is not this user's business whether there is."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Not found")


class NoneAccepted(Refused):
    """Not one draft of a batch can be sent; ``rejected`` says why."""

    status = 422

    def __init__(self, rejected: Sequence[Rejection]) -> None:
        super().__init__("None of the messages can be sent")
        self.rejected = rejected


class NoneAllowed(NoneAccepted):
    """The same, where a policy refused some."""

    status = 403


class TooLate(Refused):
    """smsd has the message, or has dealt with it: it cannot be taken back."""

    status = 409


class KeyInUse(Refused):
    """The first request under this ``Idempotency-Key`` is still under way."""

    status = 409


class KeyReused(Refused):
    """Another request was sent under this ``Idempotency-Key``."""

    status = 422


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks to have sent; ``numbers`` are as written."""

    numbers: Sequence[str]
    text: str
    options: Options


@dataclass(frozen=True, slots=True)
class Draft:
    """One message as a client asks for it: the number as written, the text, the client's own word for it."""

    number: str
    text: str
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that a client asks to have sent together, alike or each with a text of its own."""

    drafts: Sequence[Draft]
    options: Options


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a draft is not sent: its place in the batch, a word for programs, and a reason that names no field.

    ``code`` is ``"invalid_number"``, ``"forbidden"``, ``"duplicate"``, ``"text_refused"`` or ``"too_many_parts"``.
    """

    place: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages are looked for, newest first, and how many at most.

    ``kinds`` are folders, in the order in which messages move; ``owner`` is a userid (``None``: of all whom the user
    may read); ``before`` is the place that a page begins after; ``since`` is in milliseconds since 1970; ``matches``
    judges the messages themselves, and what status reports say of them.
    """

    kinds: Sequence[str]
    owner: str | None
    before: Place | None
    since: int
    limit: int
    matches: Callable[[StoredMessage, StatusReport | None], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """One page: messages, and what status reports say; ``last`` is the place to go on from, ``None`` at the end."""

    messages: Sequence[tuple[StoredMessage, StatusReport | None]]
    last: Place | None


@dataclass(frozen=True, slots=True)
class Once:
    """Under which key a request is done once: digests over user and key, and over all of the request."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is sent: the message of each accepted number as written, the reason for each refused one, the content."""

    accepted: Mapping[str, Message]
    refused: Mapping[str, str]
    content: Content

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple({message.id: message for message in self.accepted.values()}.values())


@dataclass(frozen=True, slots=True)
class Selection:
    """What is sent of a batch, and what is not, each in the order of the batch."""

    messages: tuple[Message, ...]
    rejected: Sequence[Rejection]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it goes out: HTTP status and JSON."""

    status: int
    body: str


Prepared = TypeVar("Prepared", Outcome, Selection)
Words = TypeVar("Words", Outcome, Selection, contravariant=True)


class Dialect(Protocol[Words]):
    """How one API words what came of an order, or of a batch."""

    def accepted(self, outcome: Words, /) -> Reply: ...

    def refused(self, refusal: Refused) -> Reply: ...


class SpoolDelivery:
    """The core's own ``deliver``: into smsd's spool."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @hookimpl(trylast=True)
    def deliver(self, submission: Submission) -> Sequence[Message]:
        self._writer.put(submission.messages, submission.receipt)
        return submission.messages


class Gateway:
    """The corridor of one application; shared by all threads."""

    def __init__(
        self,
        hook: pluggy.HookRelay,
        settings: Settings,
        layout: Layout,
        folders: Folders,
        receipts: Receipts,
    ) -> None:
        self._hook = hook
        self._policies = implementations(hook.permits)
        self._transforms = implementations(hook.transform)
        self._limits = implementations(hook.limits)
        self._settings = settings
        self._layout = layout
        self._folders = folders
        self._receipts = receipts
        self._plan = NumberPlan(settings.region)
        self._ids = Ids(settings.prefix)

    def send(self, identity: Identity, order: Order, dialect: Dialect[Outcome], once: Once | None = None) -> Reply:
        """Send it, and say so in that dialect; a repeated request gets the reply of the first.

        :raises Refused: nothing is sent.
        :raises TooMany: a limit would be exceeded; nothing is sent.
        :raises SpoolUnavailable: nothing is sent.
        """
        return self._send(identity, lambda: self.prepare(identity, order), dialect, once)

    def send_batch(
        self, identity: Identity, batch: Batch, dialect: Dialect[Selection], once: Once | None = None
    ) -> Reply:
        """The same for a batch, of which those that cannot be sent hold up no others."""
        return self._send(identity, lambda: self.select(identity, batch), dialect, once)

    def prepare(self, identity: Identity, order: Order) -> Outcome:
        """All of a send but the delivery.

        :raises Refused: the first thing that is wrong, in the order of the API's promises.
        """
        self._check(order)
        written, refused = self._normalise(order.numbers)
        if not written:
            raise Invalid("There is no valid number to send to", refused)
        accepted, forbidden = self._permitted(identity, order, written)
        text = self.transform(order.text, identity)
        content = self._content(identity, text, order.options)
        if content.parts > self._settings.max_parts:
            raise _invalid("text", f"has {content.parts} parts as it would go out, over {self._settings.max_parts}")
        refused |= forbidden
        if not accepted:
            raise Forbidden("You may not send to any of these numbers", refused)
        messages = {id: Message(id, to, content) for to, id in accepted.items()}
        ids = {number: accepted[to] for number, to in written.items() if to in accepted}
        return Outcome({number: messages[id] for number, id in ids.items()}, refused, content)

    def select(self, identity: Identity, batch: Batch) -> Selection:
        """All of a batch's send but the delivery. What says the same to the same number twice is sent once.

        :raises Refused: the options are wrong, or there is nothing to send.
        """
        drafts, rejected = batch.drafts, dict[int, Rejection]()
        if len(drafts) > self._settings.max_recipients:
            raise _invalid("recipients", f"are more than {self._settings.max_recipients}")
        self._check_options(batch.options)
        numbers = self._numbers(drafts, rejected)
        ids = self._allowed(identity, batch, numbers, rejected)
        contents: dict[str, Content | Rejection] = {}
        messages = []
        for place, id in ids.items():
            draft = drafts[place]
            content = contents.get(draft.text)
            if content is None:
                content = contents[draft.text] = self._outgoing(identity, draft.text, batch.options)
            if isinstance(content, Rejection):
                rejected[place] = replace(content, place=place)
            else:
                messages.append(Message(id, numbers[place], content, draft.reference))
        reasons = [rejected[place] for place in sorted(rejected)]
        if not messages:
            raise (NoneAllowed if any(reason.code == "forbidden" for reason in reasons) else NoneAccepted)(reasons)
        return Selection(tuple(messages), reasons)

    def transform(self, text: str, identity: Identity) -> str:
        """That text of that user as it would go out.

        :raises Invalid: a plugin refuses it, or leaves nothing of it.
        """
        for implementation in self._transforms:
            try:
                text = ask(implementation, {"text": text, "identity": identity})
            except TextRefused as refusal:
                raise _invalid("text", refusal.reason) from None
            if not isinstance(text, str):
                raise TypeError(f"the plugin {implementation.plugin_name!r} made no text of a text")
            if not text:
                raise _invalid("text", "is empty as it would go out")
        return text

    def read(self, identity: Identity, kind: str, id: str) -> StoredMessage:
        """:raises NotFound: there is none of that kind that this user may read."""
        message = self._folders.find(kind, id)
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def fate(self, message: StoredMessage) -> StatusReport | None:
        """The status report that says finally what became of a sent message; ``None``: none does."""
        return self._folders.fate(message)

    def list(self, identity: Identity, kind: str, limit: int, offset: int) -> Page:
        """A page of the user's messages, or of everybody's for who may read all.

        :raises NotFound: there is no such kind.
        :raises Forbidden: the user may not list.
        """
        if kind not in self._layout.folders:
            raise NotFound
        if not self._may(identity, "list", None):
            raise Forbidden("You may not list messages")
        owner = None if self._may(identity, "read-all", None) else identity.userid
        return self._folders.list(kind, owner, limit, offset)

    def delete(self, identity: Identity, kind: str, id: str) -> None:
        """Delete a message, or cancel it where it still waits in ``outgoing``.

        :raises NotFound: there is none that the user may read, or smsd has taken it meanwhile.
        :raises Forbidden: the user may read it, but not do that.
        """
        message = self.read(identity, kind, id)
        if kind == "checked":
            raise Forbidden("smsd has this message, and it cannot be taken back")
        if not self._may(identity, "cancel" if kind == "outgoing" else "delete", message):
            raise Forbidden("You may not delete this message")
        try:
            done = self._folders.cancel(id) if kind == "outgoing" else self._folders.remove(kind, id)
        except PermissionError:
            raise Forbidden("The gateway's own user may not delete files there") from None
        if not done:
            raise NotFound

    def locate(self, identity: Identity, id: str) -> StoredMessage:
        """That message on its way out, wherever it stands.

        :raises NotFound: there is none that this user may read.
        """
        message = self._folders.locate(id)
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def received(self, identity: Identity, id: str) -> StoredMessage:
        """A message from outside.

        :raises NotFound: there is none that this user may read.
        """
        message = self.read(identity, "incoming", id)
        if self._folders.is_report(message):
            raise NotFound
        return message

    def cancel(self, identity: Identity, id: str) -> StoredMessage:
        """Take a message back, also one that was: it will never be sent.

        :raises NotFound: there is none that the user may read.
        :raises Forbidden: the user may not cancel it.
        :raises TooLate: smsd has it.
        """
        message = self.locate(identity, id)
        if message.kind == "outgoing":
            if not self._may(identity, "cancel", message):
                raise Forbidden("You may not take this message back")
            self._folders.cancel(id)  # false too where somebody else took it back meanwhile
            message = self.locate(identity, id)
        if message.kind != "cancelled":
            raise TooLate("smsd has this message, and it cannot be taken back")
        return message

    def search(self, identity: Identity, query: Query) -> Found:
        """Messages that the user may read; of the user's own, or of everybody's for who may read all.

        A page has fewer than it could, even none, where enough were looked at; the next one goes on from there.

        :raises Forbidden: the user may not list.
        """
        if not self._may(identity, "list", None):
            raise Forbidden("You may not list messages")
        owner = query.owner
        if not self._may(identity, "read-all", None):
            if owner not in (None, identity.userid):
                return Found([], None)
            owner = identity.userid
        found: list[tuple[StoredMessage, StatusReport | None]] = []
        places = self._folders.newest(query.kinds, owner, query.before, query.since, SEARCHED)
        size = max(query.limit, 50)
        for begin in range(0, len(places), size):
            messages = [self._at(kind, place) for kind, place in places[begin : begin + size]]
            fates = self._folders.fates(filter(None, messages))
            for number, message in enumerate(messages, begin + 1):
                if message is not None:
                    fate = fates.get(message.id)
                    if query.matches(message, fate) and self._may(identity, "read", message):
                        found.append((message, fate))
                if len(found) == query.limit and number < len(places):
                    return Found(found, places[number - 1][1])
        return Found(found, places[-1][1] if len(places) == SEARCHED else None)

    def _at(self, kind: str, place: Place) -> StoredMessage | None:
        """The message that was found there, also where it moved on since; a status report is none."""
        message = self._folders.find(kind, place[1])
        if kind == "incoming":
            return None if message is None or self._folders.is_report(message) else message
        return self._folders.locate(place[1]) if message is None else message

    def limits(self, identity: Identity) -> Sequence[Allowance]:
        """The limits that apply to that user, of all plugins in their order."""
        return [each for plugin in self._limits for each in ask(plugin, {"identity": identity})]

    def permits(self, identity: Identity, permission: str) -> bool:
        """Whether that user has a permission that is about no single message: ``list``, ``read-all``."""
        return self._may(identity, permission, None)

    def number(self, written: str) -> str:
        """The normalised number that was written.

        :raises ValueError: it is none.
        """
        return self._plan.normalise(written)

    def accepted_at(self, id: str) -> datetime | None:
        """When a message of ours was accepted (UTC); ``None``: it is somebody else's."""
        milliseconds = began(id, self._settings.prefix)
        try:
            return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
        except (ValueError, OverflowError):  # in a year that nobody has a name for
            return None

    def _may(self, identity: Identity, permission: str, context: object) -> bool:
        return bool(decide(self._policies, identity, permission, context))

    def _send(
        self, identity: Identity, prepare: Callable[[], Prepared], dialect: Dialect[Prepared], once: Once | None
    ) -> Reply:
        if once is None:
            prepared = prepare()
            reply = dialect.accepted(prepared)
            self._deliver(identity, prepared.messages)
            return reply
        try:
            with self._receipts.hold(once.key):
                return self._send_once(identity, prepare, dialect, once)
        except SpoolUnavailable:
            prepare()  # what is wrong with the request comes first
            raise
        except InUse:
            raise KeyInUse("The first request with this Idempotency-Key is still under way") from None

    def _send_once(
        self, identity: Identity, prepare: Callable[[], Prepared], dialect: Dialect[Prepared], once: Once
    ) -> Reply:
        known = self._receipts.find(once.key)
        if known is not None:
            if known.fingerprint != once.fingerprint:
                raise KeyReused("This Idempotency-Key was used for another request")
            return Reply(known.status, known.body)
        try:
            prepared = prepare()
        except Refused as refusal:
            reply = dialect.refused(refusal)
            if len(reply.body) <= REFUSAL:
                self._receipts.keep(Receipt(once.key, once.fingerprint, reply.status, reply.body))
            return reply
        reply = dialect.accepted(prepared)
        receipt = Receipt(once.key, once.fingerprint, reply.status, reply.body)
        self._deliver(identity, prepared.messages, receipt)
        if not self._receipts.exists(once.key):  # a plugin carried the messages elsewhere
            self._receipts.keep(receipt)
        return reply

    def _deliver(self, identity: Identity, messages: tuple[Message, ...], receipt: Receipt | None = None) -> None:
        if self._hook.deliver(submission=Submission(identity, messages, receipt)) is None:
            raise SpoolUnavailable("nothing delivers messages")

    def _check(self, order: Order) -> None:
        if len(order.numbers) > self._settings.max_recipients:
            raise _invalid("mobiles", f"has more than {self._settings.max_recipients} numbers")
        self._check_options(order.options)

    def _check_options(self, options: Options) -> None:
        validity, queue, queues = options.validity, options.queue, self._layout.queues
        if validity is not None and not 1 <= validity <= MAX_VALIDITY:
            raise _invalid("validity", f"should be 1 to {MAX_VALIDITY} minutes")
        if queue is not None and not is_header_value(queue):
            raise _invalid("queue", "should be at most 99 characters, none of them a control character")
        if queue is not None and queues is not None and queue not in queues:
            known = f"is none of smsd's: {', '.join(queues)}" if queues else "should be left out: smsd has no queues"
            raise _invalid("queue", known)

    def _normalise(self, numbers: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        """The normalised number of each that is one, and a reason for each other."""
        normalised, refused = {}, {}
        for number in numbers:
            try:
                normalised[number] = self._plan.normalise(number)
            except ValueError as error:
                refused[number] = str(error)
        return normalised, refused

    def _permitted(
        self, identity: Identity, order: Order, written: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """A message id for each normalised number that may be sent to, and a reason for each number that may not."""
        content = self._content(identity, order.text, order.options)
        accepted: dict[str, str] = {}
        refused: dict[str, Denied] = {}
        numbers = dict.fromkeys(written.values())
        for to, id in zip(numbers, self._ids.take(len(numbers)), strict=True):
            answer = decide(self._policies, identity, "send", Message(id, to, content))
            if answer:
                accepted[to] = id
            else:
                refused[to] = answer
        return accepted, {number: "forbidden" for number, to in written.items() if to in refused}

    def _numbers(self, drafts: Sequence[Draft], rejected: dict[int, Rejection]) -> dict[int, str]:
        """The normalised number of each draft that has one, by its place, without what an earlier one says too."""
        found: dict[int, str] = {}
        first: dict[tuple[str, str, str | None], int] = {}
        for place, draft in enumerate(drafts):
            try:
                number = self._plan.normalise(draft.number)
            except ValueError as error:
                rejected[place] = Rejection(place, "invalid_number", str(error))
                continue
            if first.setdefault((number, draft.text, draft.reference), place) == place:
                found[place] = number
            else:
                rejected[place] = Rejection(place, "duplicate", "the same stands before it")
        return found

    def _allowed(
        self, identity: Identity, batch: Batch, numbers: Mapping[int, str], rejected: dict[int, Rejection]
    ) -> dict[int, str]:
        """A message id for each draft, by its place, that may be sent."""
        contents: dict[str, Content] = {}
        found: dict[int, str] = {}
        for (place, to), id in zip(numbers.items(), self._ids.take(len(numbers)), strict=True):
            draft = batch.drafts[place]
            content = contents.get(draft.text)
            if content is None:
                content = contents[draft.text] = self._content(identity, draft.text, batch.options)
            if decide(self._policies, identity, "send", Message(id, to, content, draft.reference)):
                found[place] = id
            else:
                rejected[place] = Rejection(place, "forbidden", "you may not send to this number")
        return found

    def _outgoing(self, identity: Identity, text: str, options: Options) -> Content | Rejection:
        """What becomes of a text, or why it cannot go out."""
        try:
            content = self._content(identity, self.transform(text, identity), options)
        except Invalid as error:
            return Rejection(0, "text_refused", error.errors["text"])
        if content.parts > self._settings.max_parts:
            why = f"has {content.parts} parts as it would go out, over {self._settings.max_parts}"
            return Rejection(0, "too_many_parts", why)
        return content

    def _content(self, identity: Identity, text: str, options: Options) -> Content:
        encoding = measure(text)
        if options.queue is None and self._settings.default_queue is not None:
            options = replace(options, queue=self._settings.default_queue)
        return Content(identity.userid, text, encoding.alphabet, encoding.parts, options)


def once(identity: Identity, key: str, *request: str | bytes) -> Once:
    """Under which key that request of that user is done once.

    :raises Invalid: it is no key.
    """
    if not (8 <= len(key) <= 128 and key.isascii() and all("!" <= character <= "~" for character in key)):
        raise _invalid("Idempotency-Key", "should be 8 to 128 visible ASCII characters")
    return Once(digest(identity.userid, key), digest(*request))


def _invalid(field: str, reason: str) -> Invalid:
    return Invalid(f"{field} {reason}", {field: reason})


def includeme(config: Configurator) -> None:
    """From here on, ``registry.gateway`` does what the views ask."""
    registry = config.registry
    registry.plugins.register(SpoolDelivery(registry.writer), "smsgw")
    registry.gateway = Gateway(
        registry.plugins.hook, registry.smsgw, registry.layout, registry.folders, registry.receipts
    )
