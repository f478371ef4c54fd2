"""What a client asks to have sent together, and what came of it. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from smsgw.model import Message, Options
from smsgw.refusals import OF_TEXTS, Forbidden, Invalid, NoneAccepted, NoneAllowed, Refused, Rejection, invalid

UNDELIVERED = "could not be sent now"


@dataclass(frozen=True, slots=True)
class Draft:
    """One message as a client asks for it: the number as written, the text, and the client's own reference."""

    number: str
    text: str
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that a client asks to have sent together, with the same text or each with its own."""

    drafts: Sequence[Draft]
    options: Options


@dataclass(frozen=True, slots=True)
class Outcome:
    """The messages that are sent, by their places in the batch, and why each other draft is not sent.

    Both are in the order of the batch.
    """

    accepted: Mapping[int, Message]
    rejected: Sequence[Rejection]

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self.accepted.values())

    def without(self, left: Collection[Message]) -> Outcome:
        """The same outcome, with those messages rejected: they could not be delivered."""
        ids = {message.id for message in left}
        accepted = {place: message for place, message in self.accepted.items() if message.id not in ids}
        rejected = [Rejection(place, "unavailable", UNDELIVERED) for place in self.accepted if place not in accepted]
        return Outcome(accepted, sorted([*self.rejected, *rejected], key=attrgetter("place")))


def sent(drafts: Sequence[Draft], outcome: Outcome) -> dict[str, Message]:
    """The message for each number, by the number as written."""
    first = {why.place: why.same_as for why in outcome.rejected if why.same_as is not None}
    found = ((draft.number, outcome.accepted.get(first.get(place, place))) for place, draft in enumerate(drafts))
    return {number: message for number, message in found if message is not None}


def reasons(drafts: Sequence[Draft], rejected: Sequence[Rejection]) -> dict[str, str]:
    """Why nothing is sent to a number as written: ``"forbidden"``, or a reason in words."""
    by_place = {why.place: why for why in rejected}
    found = {}
    for why in rejected:
        cause = why if why.same_as is None else by_place.get(why.same_as)
        if cause is not None:
            found[drafts[why.place].number] = "forbidden" if cause.code == "forbidden" else cause.detail
    return found


def by_number(drafts: Sequence[Draft], refusal: NoneAccepted) -> Refused:
    """The same refusal in words for drafts that share one text: of that text, or of each number."""
    for why in refusal.rejected:
        if why.code in OF_TEXTS:
            return invalid("text", why.detail)
    found = reasons(drafts, refusal.rejected)
    if isinstance(refusal, NoneAllowed):
        return Forbidden("You may not send to any of these numbers", found)
    return Invalid("There is no valid number to send to", found)
