"""What the sending of messages, and each event of a message, counts for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from smsgw.model import Accepted, Event, Failed, Message, Received, Sent, Submission
from smsgw.status import EVENT_NAMES, EVENTS
from smsgw.text import measure

from .counters import Key, key

# For Accepted the follower would read each file once more, which costs as much as a send. So ``deliver`` counts them.
HEARS = tuple(event for event in EVENTS.values() if event is not Accepted)
CODES = ("invalid_number", "forbidden", "duplicate", "text_refused", "too_many_parts", "unavailable")  # of refusals
UNKNOWN, OTHER = "unknown", "other"
NO_QUEUE = {
    "Wrong provider queue": "wrong queue",
    "Destination number does not match any provider": "no provider",
}
_OF_MODEM = re.compile(r"CM([ES]) ERROR: (\d{1,3})\b")  # 3GPP TS 27.005, 3.2.5, and TS 27.007, 9.2: some 200 are used


def refused(submission: Submission, taken: Sequence[Message]) -> Mapping[Key, float]:
    """The counters that the refused recipients of a request add to of which something was accepted, and how much."""
    if not taken:
        return {}
    codes = Counter(submission.refused)
    codes["unavailable"] += len(submission.messages) - len(taken)
    return {key("recipients_refused", reason=code): count for code, count in codes.items() if count}


def accepted(messages: Sequence[Message], *, by_user: bool) -> Mapping[Key, float]:
    """The counters that messages of one user add to which the gateway accepts, and how much."""
    if not messages:
        return {}
    found: dict[Key, float] = {key("messages_accepted"): len(messages)}
    if by_user:
        user = messages[0].content.sender
        found[key("user_messages", user=user, event="accepted")] = len(messages)
        found[key("user_parts_accepted", user=user)] = sum(message.content.parts for message in messages)
    return found


def counted(event: Event, *, by_user: bool) -> Mapping[Key, float]:
    """The counters that an event adds to, and how much."""
    return dict(_counted(event, by_user))


def _counted(event: Event, by_user: bool) -> Iterator[tuple[Key, float]]:
    name, message = EVENT_NAMES[type(event)], event.message
    yield key(f"messages_{name}"), 1
    if isinstance(event, Failed):
        yield key("failures", reason=reason(message.headers.get("Fail_reason"))), 1
    if isinstance(event, Sent):
        yield key("parts_sent"), parts(message.headers, message.text)
    if by_user and message.owner and not isinstance(event, Received):
        yield key("user_messages", user=message.owner, event=name), 1


def reason(written: str | None) -> str:
    """A few words for why a message failed, of few that there are: the error's number where the modem gave one."""
    if not written:
        return UNKNOWN
    if found := _OF_MODEM.search(written):
        return f"CM{found[1]} ERROR {int(found[2])}"
    return NO_QUEUE.get(written.strip(), OTHER)


def parts(headers: Mapping[str, str], text: str) -> int:
    """Into how many parts a message goes; a binary one, of which that is not known, counts as one."""
    return 1 if headers.get("Alphabet", "")[:3].upper() == "BIN" else measure(text).parts
