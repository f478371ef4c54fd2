"""What the gateway sends, whichever API asks: permits → transform → deliver. What became of it is the mailbox's.

Called by the views with an identity and plain values; answers with types and refuses with exceptions. Knows no HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Protocol, TypeVar

import pluggy
from pyramid.config import Configurator
from pyramid.security import Denied

from smsgw.delivery import Delivery
from smsgw.ids import Ids
from smsgw.model import (
    Allowance,
    Content,
    Identity,
    Message,
    Options,
    Receipt,
    Submission,
    TextRefused,
)
from smsgw.numbers import NumberPlan
from smsgw.plugins import Misbehaved, ask, implementations, kind
from smsgw.refusals import (
    Forbidden,
    Invalid,
    KeyInUse,
    KeyReused,
    NoneAccepted,
    NoneAllowed,
    Refused,
    Rejection,
    invalid,
)
from smsgw.security import decide
from smsgw.settings import Settings, is_header_value
from smsgw.spool.layout import Layout
from smsgw.spool.receipts import InUse, Receipts, digest
from smsgw.spool.writer import SpoolUnavailable
from smsgw.text import measure

MAX_VALIDITY = 63 * 7 * 24 * 60  # minutes: the longest relative validity period (TS 23.040, 9.2.3.12.1)

MAX_DELAY = timedelta(days=400)  # until a message is sent

UNDELIVERED = "could not be sent now"  # a message, beside others that were taken

REFUSAL = 4096  # bytes of a refusal that is remembered: one block of a disk that refusals shall not fill

log = logging.getLogger(__name__)


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

    def without(self, left: Collection[Message]) -> Outcome:
        """The same, where those messages could not be delivered."""
        ids = {message.id for message in left}
        refused = {number: UNDELIVERED for number, message in self.accepted.items() if message.id in ids}
        accepted = {number: message for number, message in self.accepted.items() if message.id not in ids}
        return Outcome(accepted, {**self.refused, **refused}, self.content)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is sent of a batch, by its place in it, and what is not; both in the order of the batch."""

    accepted: Mapping[int, Message]
    rejected: Sequence[Rejection]

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self.accepted.values())

    def without(self, left: Collection[Message]) -> Selection:
        """The same, where those messages could not be delivered."""
        ids = {message.id for message in left}
        accepted = {place: message for place, message in self.accepted.items() if message.id not in ids}
        rejected = [Rejection(place, "unavailable", UNDELIVERED) for place in self.accepted if place not in accepted]
        return Selection(accepted, sorted([*self.rejected, *rejected], key=attrgetter("place")))


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


class Gateway:
    """The corridor of one application; shared by all threads."""

    def __init__(
        self,
        hook: pluggy.HookRelay,
        delivery: Delivery,
        settings: Settings,
        layout: Layout,
        receipts: Receipts,
    ) -> None:
        self._delivery = delivery
        self._policies = implementations(hook.permits)
        self._transforms = implementations(hook.transform)
        self._limits = implementations(hook.limits)
        self._settings = settings
        self._layout = layout
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
        order = self._check(order)
        written, refused = self._normalise(order.numbers)
        if not written:
            raise Invalid("There is no valid number to send to", refused)
        accepted, forbidden = self._permitted(identity, order, written)
        text = self.transform(order.text, identity)
        content = self._content(identity, text, order.options)
        if content.parts > self._settings.max_parts:
            raise invalid("text", f"has {content.parts} parts as it would go out, over {self._settings.max_parts}")
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
            raise invalid("recipients", f"are more than {self._settings.max_recipients}")
        batch = replace(batch, options=self._checked(batch.options))
        numbers = self._numbers(drafts, rejected)
        ids = self._allowed(identity, batch, numbers, rejected)
        contents: dict[str, Content | Rejection] = {}
        accepted = {}
        for place, id in ids.items():
            draft = drafts[place]
            content = contents.get(draft.text)
            if content is None:
                content = contents[draft.text] = self._outgoing(identity, draft.text, batch.options)
            if isinstance(content, Rejection):
                rejected[place] = replace(content, place=place)
            else:
                accepted[place] = Message(id, numbers[place], content, draft.reference)
        reasons = [rejected[place] for place in sorted(rejected)]
        if not accepted:
            raise (NoneAllowed if any(reason.code == "forbidden" for reason in reasons) else NoneAccepted)(reasons)
        return Selection(accepted, reasons)

    def transform(self, text: str, identity: Identity) -> str:
        """That text of that user as it would go out.

        :raises Invalid: a plugin refuses it, or leaves nothing of it.
        """
        for implementation in self._transforms:
            try:
                text = ask(implementation, {"text": text, "identity": identity})
            except TextRefused as refusal:
                raise invalid("text", refusal.reason) from None
            if not isinstance(text, str):
                raise Misbehaved(implementation, f"should make a text of a text, and made {kind(text)}")
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise Misbehaved(implementation, "made a text with half of a surrogate pair")
            if not text:
                raise invalid("text", "is empty as it would go out")
        return text

    def limits(self, identity: Identity) -> Sequence[Allowance]:
        """The limits that apply to that user, of all plugins in their order."""
        found: list[Allowance] = []
        for plugin in self._limits:
            answer = ask(plugin, {"identity": identity})
            if not isinstance(answer, list | tuple) or not all(isinstance(each, Allowance) for each in answer):
                raise Misbehaved(plugin, f"should answer a list of Allowance, and answered {kind(answer)}")
            found += answer
        return found

    def permits(self, identity: Identity, permission: str) -> bool:
        """Whether that user has a permission that is about no single message: ``list``, ``read-all``."""
        return self._may(identity, permission, None)

    def number(self, written: str) -> str:
        """The normalised number that was written.

        :raises ValueError: it is none.
        """
        return self._plan.normalise(written)

    def _may(self, identity: Identity, permission: str, context: object) -> bool:
        return bool(decide(self._policies, identity, permission, context))

    def _send(
        self, identity: Identity, prepare: Callable[[], Prepared], dialect: Dialect[Prepared], once: Once | None
    ) -> Reply:
        if once is None:
            return self._deliver(identity, prepare(), dialect)
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
        return self._deliver(identity, prepared, dialect, once)

    def _deliver(
        self, identity: Identity, prepared: Prepared, dialect: Dialect[Prepared], once: Once | None = None
    ) -> Reply:
        reply = dialect.accepted(prepared)
        submission = Submission(identity, prepared.messages)
        delivered = self._delivery.deliver(submission, _receipt(once, reply))
        if delivered.left:
            reply = dialect.accepted(prepared.without(delivered.left))
        if once is not None:
            self._remember(once, reply)
        return reply

    def _remember(self, once: Once, reply: Reply) -> None:
        """Keep the receipt of what was sent, unless the spool took it with the messages."""
        try:
            receipt = _receipt(once, reply)
            if receipt is not None and not self._receipts.exists(once.key):
                self._receipts.keep(receipt)
        except SpoolUnavailable as error:
            log.error("messages were sent, and their Idempotency-Key is not remembered: %s", error)

    def _check(self, order: Order) -> Order:
        if len(order.numbers) > self._settings.max_recipients:
            raise invalid("mobiles", f"has more than {self._settings.max_recipients} numbers")
        return replace(order, options=self._checked(order.options))

    def _checked(self, options: Options) -> Options:
        """The options, without a time that has come."""
        validity, queue, queues = options.validity, options.queue, self._layout.queues
        if validity is not None and not 1 <= validity <= MAX_VALIDITY:
            raise invalid("validity", f"should be 1 to {MAX_VALIDITY} minutes")
        if queue is not None and not is_header_value(queue):
            raise invalid("queue", "should be at most 99 characters, none of them a control character")
        if queue is not None and queues is not None and queue not in queues:
            known = f"is none of smsd's: {', '.join(queues)}" if queues else "should be left out: smsd has no queues"
            raise invalid("queue", known)
        now = datetime.now(UTC)
        if options.send_at is None or options.send_at <= now:
            return replace(options, send_at=None)
        if options.send_at > now + MAX_DELAY:
            raise invalid("send_at", f"should be at most {MAX_DELAY.days} days ahead")
        return replace(options, send_at=options.send_at.astimezone(UTC))

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
                rejected[place] = Rejection(place, "forbidden", "you may not send this to that number now")
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


def _receipt(once: Once | None, reply: Reply) -> Receipt | None:
    return None if once is None else Receipt(once.key, once.fingerprint, reply.status, reply.body)


def once(identity: Identity, key: str, *request: str | bytes) -> Once:
    """Under which key that request of that user is done once.

    :raises Invalid: it is no key.
    """
    if not (8 <= len(key) <= 128 and key.isascii() and all("!" <= character <= "~" for character in key)):
        raise invalid("Idempotency-Key", "should be 8 to 128 visible ASCII characters")
    return Once(digest(identity.userid, key), digest(*request))


def includeme(config: Configurator) -> None:
    """From here on, ``registry.gateway`` does what the views ask."""
    registry = config.registry
    hook = registry.plugins.hook
    delivery = Delivery(hook, registry.writer)
    registry.gateway = Gateway(hook, delivery, registry.smsgw, registry.layout, registry.receipts)
