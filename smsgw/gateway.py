"""The pipeline by which every API sends: permits, transform, route, deliver. Knows no HTTP."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pluggy

from smsgw.batch import Batch, Draft, Outcome
from smsgw.delivery import Delivery
from smsgw.ids import Ids
from smsgw.model import Allowance, Content, Identity, Message, Options, Receipt, Submission, TextRefused
from smsgw.numbers import NumberPlan
from smsgw.options import OptionRules, stray
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
from smsgw.security import NOBODY, decide
from smsgw.settings import Settings
from smsgw.spool.disk import SpoolUnavailable
from smsgw.spool.layout import Layout
from smsgw.spool.sending.idempotency import InUse, Receipts, digest
from smsgw.text import measure

REFUSAL = 4096  # bytes: a longer refusal is not remembered, so that refusals do not fill the disk

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Once:
    """Under which key a request is done once: digests over user and key, and over all of the request."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it goes out: HTTP status and JSON."""

    status: int
    body: str


class Presenter(Protocol):
    """How one API words what came of a batch."""

    def accepted(self, outcome: Outcome, /) -> Reply: ...

    def refused(self, refusal: Refused, /) -> Reply: ...


class Gateway:
    """The pipeline of one application; shared by all threads."""

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
        self._routers = implementations(hook.route)
        self._limits = implementations(hook.limits)
        self._max_recipients = settings.max_recipients
        self._max_parts = settings.max_parts
        self._receipts = receipts
        self._plan = NumberPlan(settings.region)
        self._ids = Ids(settings.prefix)
        self._options = OptionRules(layout.queues, settings.default_queue)

    def send(self, identity: Identity, batch: Batch, presenter: Presenter, once: Once | None = None) -> Reply:
        """Send a batch, and word the outcome; a repeated request gets the reply of the first.

        :raises TooMany: a limit would be exceeded; nothing is sent.
        :raises SpoolUnavailable: nothing is sent.
        """
        try:
            if once is None:
                return presenter.accepted(self.submit(identity, batch))
            return self._send_once(identity, batch, presenter, once)
        except Refused as refusal:
            return presenter.refused(refusal)

    def submit(self, identity: Identity, batch: Batch) -> Outcome:
        """Send a batch.

        :raises Refused: nothing is sent.
        :raises TooMany: a limit would be exceeded; nothing is sent.
        :raises SpoolUnavailable: nothing is sent.
        """
        return self._deliver(identity, self.prepare(identity, batch))

    def prepare(self, identity: Identity, batch: Batch) -> Outcome:
        """Do all of a send but the delivery. A draft that repeats an earlier one is rejected as a duplicate.

        :raises Refused: the options are wrong, there is nothing to send, or a policy refuses the whole.
        """
        drafts, rejected = batch.drafts, dict[int, Rejection]()
        if len(drafts) > self._max_recipients:
            raise invalid("recipients", f"are more than {self._max_recipients}")
        options = self._options.check(batch.options)
        messages = self._messages(identity, Batch(drafts, options), rejected)
        allowed = {place: message for place, message in messages.items() if self._may(identity, "send", message)}
        # Where no recipient is allowed, the client is still told first what is wrong with the text.
        outgoing = self._outgoing(identity, allowed or messages, options, rejected)
        for place in messages.keys() - allowed.keys() - rejected.keys():
            outgoing.pop(place, None)
            rejected[place] = Rejection(place, "forbidden", "you may not send this to that number now")
        why = [rejected[place] for place in sorted(rejected)]
        if not outgoing:
            raise (NoneAllowed if any(reason.code == "forbidden" for reason in why) else NoneAccepted)(why)
        outcome = Outcome(self._routed(identity, outgoing), why)
        # Here no opinion allows: each message was allowed already.
        answer = decide(self._policies, identity, "submit", Submission(identity, outcome.messages))
        if not answer and answer is not NOBODY:
            raise Forbidden("You may not send all this in one request")
        return outcome

    def transform(self, text: str, identity: Identity) -> str:
        """That text of that user as it would go out.

        :raises Invalid: a plugin refuses it, or leaves nothing of it.
        """
        for implementation in self._transforms:
            text = transformed(implementation, text, identity)
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

    def number(self, written: str) -> str:
        """The normalised number that was written.

        :raises ValueError: it is none.
        """
        return self._plan.normalise(written)

    def _may(self, identity: Identity, permission: str, context: object) -> bool:
        return bool(decide(self._policies, identity, permission, context))

    def _send_once(self, identity: Identity, batch: Batch, presenter: Presenter, once: Once) -> Reply:
        try:
            with self._receipts.hold(once.key):
                known = self._receipts.find(once.key)
                if known is None:
                    return self._send_first(identity, batch, presenter, once)
                if known.fingerprint != once.fingerprint:
                    raise KeyReused("This Idempotency-Key was used for another request")
                return Reply(known.status, known.body)
        except SpoolUnavailable:
            self.prepare(identity, batch)  # tell first what is wrong with the request
            raise
        except InUse:
            raise KeyInUse("The first request with this Idempotency-Key is still under way") from None

    def _send_first(self, identity: Identity, batch: Batch, presenter: Presenter, once: Once) -> Reply:
        try:
            outcome = self.prepare(identity, batch)
            reply = presenter.accepted(outcome)  # the spool keeps it with the messages
            delivered = self._deliver(identity, outcome, _receipt(once, reply))
        except Refused as refusal:
            reply = presenter.refused(refusal)
            if len(reply.body) <= REFUSAL:
                self._receipts.keep(_receipt(once, reply))
            return reply
        if delivered is not outcome:
            reply = presenter.accepted(delivered)
        self._remember(_receipt(once, reply))
        return reply

    def _deliver(self, identity: Identity, outcome: Outcome, receipt: Receipt | None = None) -> Outcome:
        refused = tuple(why.code for why in outcome.rejected)
        delivered = self._delivery.deliver(Submission(identity, outcome.messages, refused), receipt)
        return outcome.without(delivered.left) if delivered.left else outcome

    def _remember(self, receipt: Receipt) -> None:
        """Keep the receipt of what was sent, unless the spool took it with the messages."""
        try:
            if not self._receipts.exists(receipt.key):
                self._receipts.keep(receipt)
        except SpoolUnavailable as error:
            log.error("messages were sent, and their Idempotency-Key is not remembered: %s", error)

    def _messages(self, identity: Identity, batch: Batch, rejected: dict[int, Rejection]) -> dict[int, Message]:
        """A message for each draft that has a number, by its place, with the text as the client wrote it."""
        numbers = self._numbers(batch.drafts, rejected)
        content = functools.cache(lambda text: _content(identity, text, batch.options))
        found = {}
        for (place, to), id in zip(numbers.items(), self._ids.take(len(numbers)), strict=True):
            draft = batch.drafts[place]
            found[place] = Message(id, to, content(draft.text), draft.reference)
        return found

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
            earlier = first.setdefault((number, draft.text, draft.reference), place)
            if earlier == place:
                found[place] = number
            else:
                rejected[place] = Rejection(place, "duplicate", "the same stands before it", earlier)
        return found

    def _outgoing(
        self, identity: Identity, messages: Mapping[int, Message], options: Options, rejected: dict[int, Rejection]
    ) -> dict[int, Message]:
        """The same messages with the texts as they go out, without those whose text cannot."""
        outgoing = functools.cache(lambda text: self._transformed(identity, text, options))
        found = {}
        for place, message in messages.items():
            content = outgoing(message.content.text)
            if isinstance(content, Rejection):
                rejected[place] = replace(content, place=place)
            else:
                found[place] = Message(message.id, message.to, content, message.reference)
        return found

    def _transformed(self, identity: Identity, text: str, options: Options) -> Content | Rejection:
        """What becomes of a text, or why it cannot go out."""
        try:
            content = _content(identity, self.transform(text, identity), options)
        except Invalid as error:
            return Rejection(0, "text_refused", error.errors["text"])
        if content.parts > self._max_parts:
            why = f"has {content.parts} parts as it would go out, over {self._max_parts}"
            return Rejection(0, "too_many_parts", why)
        return content

    def _routed(self, identity: Identity, messages: dict[int, Message]) -> dict[int, Message]:
        """The same messages with the options that plugins route them by. What is alike shares one content."""
        if not self._routers:
            return messages
        contents: dict[tuple[int, Options], Content] = {}
        found = {}
        for place, message in messages.items():
            content = message.content
            router, options = self._route(identity, message)
            if router is not None:
                key = (id(content), options)
                if key not in contents:
                    contents[key] = replace(content, options=self._checked(router, options))
                content = contents[key]
            found[place] = Message(message.id, message.to, content, message.reference)
        return found

    def _route(self, identity: Identity, message: Message) -> tuple[pluggy.HookImpl | None, Options]:
        """Which plugin routes a message, if any, and its answer."""
        for router in self._routers:
            options = ask(router, {"message": message, "identity": identity})
            if options is None:
                continue
            if not isinstance(options, Options):
                raise Misbehaved(router, f"should route a message by Options or None, and answered {kind(options)}")
            if name := stray(options):
                raise Misbehaved(router, f"routes a message by Options whose {name} is {getattr(options, name)!r}")
            return router, options
        return None, message.content.options

    def _checked(self, router: pluggy.HookImpl, options: Options) -> Options:
        try:
            return self._options.check(options)
        except Invalid as error:
            raise Misbehaved(router, f"routes a message by Options that cannot be: {error.detail}") from None


def transformed(implementation: pluggy.HookImpl, text: str, identity: Identity) -> str:
    """What one plugin makes of a text.

    :raises Invalid: it refuses the text, or leaves nothing of it.
    :raises Misbehaved: its answer is no text.
    """
    try:
        answer = ask(implementation, {"text": text, "identity": identity})
    except TextRefused as refusal:
        raise invalid("text", refusal.reason) from None
    if not isinstance(answer, str):
        raise Misbehaved(implementation, f"should make a text of a text, and made {kind(answer)}")
    try:
        answer.encode()
    except UnicodeEncodeError:
        raise Misbehaved(implementation, "made a text with half of a surrogate pair") from None
    if not answer:
        raise invalid("text", "is empty as it would go out")
    return answer


def _content(identity: Identity, text: str, options: Options) -> Content:
    encoding = measure(text)
    return Content(identity.userid, text, encoding.alphabet, encoding.parts, options)


def _receipt(once: Once, reply: Reply) -> Receipt:
    return Receipt(once.key, once.fingerprint, reply.status, reply.body)


def once(identity: Identity, key: str, *request: str | bytes) -> Once:
    """Under which key that request of that user is done once.

    :raises Invalid: it is no key.
    """
    if not (8 <= len(key) <= 128 and key.isascii() and all("!" <= character <= "~" for character in key)):
        raise invalid("Idempotency-Key", "should be 8 to 128 visible ASCII characters")
    return Once(digest(identity.userid, key), digest(*request))
