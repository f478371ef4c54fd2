"""Which events webhooks hear of, and what they are told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from smsgw.model import Accepted, Alarm, Event, Identity, Received, Reported
from smsgw.resources import Resources, moment
from smsgw.status import ALARM_NAMES, EVENT_NAMES

from .outbox import Entry
from .rights import Permits, Rights
from .table import Webhook

TYPES: dict[type[Event | Alarm], str] = {
    **{event: f"message.{name}" for event, name in EVENT_NAMES.items() if event is not Accepted},
    **ALARM_NAMES,
}
SLACK = 5  # seconds by which the clocks of several machines may differ


def entries(
    events: Sequence[Event | Alarm], webhooks: Sequence[Webhook], rights: Rights, resources: Resources, now: int
) -> Iterator[Entry]:
    """What the webhooks shall hear of, in the order of the events.

    Users hear of their own messages; who may read all messages hears of all; who may see how the gateway is hears of
    modems and queues. A webhook hears of nothing that happened before it was made.

    :param events: of the types in ``TYPES``.
    :param now: milliseconds since 1970 (UTC); what makers may read then, their webhooks hear of.
    :raises Unavailable: nobody can tell now whether a webhook has ended.
    """
    listeners = [(webhook, *found) for webhook in webhooks if (found := rights.listener(webhook, now))]
    for event in events:
        type_, body = TYPES[type(event)], None
        for webhook, maker, reads_all in listeners:
            if (
                type_ in webhook.events
                and event.at.timestamp() >= webhook.created - SLACK
                and _may_hear(event, maker, reads_all, rights.permits)
            ):
                body = body or _body(type_, event, resources)
                yield Entry(_id(webhook, type_, event), webhook.id, type_, _about(event), body)


def _may_hear(event: Event | Alarm, maker: Identity, reads_all: bool, permits: Permits) -> bool:
    if isinstance(event, Alarm):
        return permits(maker, "health", None)
    is_own = not isinstance(event, Received) and event.message.owner == maker.userid
    return (reads_all or is_own) and permits(maker, "read", event.message)


def _about(event: Event | Alarm) -> str:
    """What is told in order: a message, or a modem or queue."""
    if isinstance(event, Alarm):
        return f"{ALARM_NAMES[type(event)].partition('.')[0]}/{event.name}"
    return event.message.id


def _id(webhook: Webhook, type_: str, event: Event | Alarm) -> str:
    """The same each time that the event is told. It has smsd's times, since a name may be used for a new message."""
    if isinstance(event, Alarm):
        return _hashed([webhook.id, type_, event.key])
    headers = event.message.headers
    times = [headers.get(name, "") for name in ("Sent", "Failed", "Received")]
    return _hashed([webhook.id, type_, event.message.kind, event.message.id, *times])


def _hashed(said: list[str]) -> str:
    return f"msg_{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]}"


def _body(type_: str, event: Event | Alarm, resources: Resources) -> str:
    """The body of each attempt: the message as it was at the event, or what is wrong with a modem or queue."""
    content: dict[str, Any]
    if isinstance(event, Alarm):
        kind = ALARM_NAMES[type(event)].partition(".")[0]
        content = {kind: event.name, "detail": event.what, "remedy": event.remedy}
    elif isinstance(event, Received):
        content = resources.received(event.message)
    else:
        content = resources.sent(event.message, event.report if isinstance(event, Reported) else None)
    return json.dumps({"type": type_, "timestamp": moment(event.at), "data": content})
