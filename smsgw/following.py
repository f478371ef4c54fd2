"""The follower, the journal and the notifiers of one application, put together."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from typing import Any

import pluggy

from smsgw.journal.database import open_database
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.model import Accepted, Alarm, Event
from smsgw.plugins import asking, implementations
from smsgw.spool.following.follower import Follower
from smsgw.spool.following.reader import Reader, followed
from smsgw.spool.layout import Layout
from smsgw.status import EVENT_NAMES
from smsgw.store import Stores


def open_journal(stores: Stores, layout: Layout) -> Journal:
    """The journal of that spool."""
    return Journal(open_database(stores), f"{socket.gethostname()}:{layout.outgoing}", followed(layout))


def make_notifiers(hook: pluggy.HookRelay, journal: Journal) -> list[Notifier]:
    """One for each plugin with ``notify``, in their order."""
    return [
        Notifier(journal, teller.plugin_name, asking(teller, "events"), _heard(teller.plugin))
        for teller in implementations(hook.notify)
    ]


def make_follower(hook: pluggy.HookRelay, reader: Reader, journal: Journal, notifiers: Sequence[Notifier]) -> Follower:
    """The follower that writes into that journal, and wakes those notifiers."""
    return Follower(
        reader,
        journal,
        [notifier.name for notifier in notifiers],
        wants_accepted=any(Accepted in _heard(teller.plugin) for teller in implementations(hook.notify)),
        tell=lambda: wake_all(notifiers),
    )


def wake_all(notifiers: Sequence[Notifier]) -> None:
    """Let them look at once: there are events."""
    for notifier in notifiers:
        notifier.wake()


def _heard(plugin: Any) -> Collection[type[Event | Alarm]]:
    """The events that a plugin is told of: those of messages, where it does not say."""
    found: Collection[type[Event | Alarm]] = getattr(plugin, "hears", tuple(EVENT_NAMES))
    return found
