"""The follower, the journal and the notifiers of one application, put together."""

from __future__ import annotations

import socket

from pyramid.config import Configurator

from smsgw.journal.database import open_database
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.journal.retention import Retention
from smsgw.model import Accepted
from smsgw.plugins import asking, implementations
from smsgw.spool.following.follower import Follower
from smsgw.spool.following.reader import Reader, followed
from smsgw.spool.layout import Layout
from smsgw.status import EVENT_NAMES


def open_journal(registry: object, layout: Layout) -> Journal:
    """The journal of that spool.

    :param registry: an application's, or an ``Installation`` of the command line.
    :raises ConfigurationError: ``smsgw.store`` is wrong.
    """
    return Journal(open_database(registry), f"{socket.gethostname()}:{layout.outgoing}", followed(layout))


def includeme(config: Configurator) -> None:
    """From here on there are ``registry.journal``, ``.follower``, ``.notifiers`` and ``.retention``."""
    registry = config.registry
    journal = registry.journal = open_journal(registry, registry.layout)
    tellers = implementations(registry.plugins.hook.notify)
    hears = {teller.plugin_name: getattr(teller.plugin, "hears", tuple(EVENT_NAMES)) for teller in tellers}
    notifiers = registry.notifiers = [
        Notifier(journal, teller.plugin_name, asking(teller, "events"), hears[teller.plugin_name]) for teller in tellers
    ]

    names = [notifier.name for notifier in notifiers]
    registry.follower = Follower(
        Reader(registry.layout, registry.folders, registry.smsgw.prefix),
        journal,
        names,
        wants_accepted=any(Accepted in events for events in hears.values()),
        tell=lambda: [notifier.wake() for notifier in notifiers],
    )
    registry.retention = Retention(journal, registry.layout, names, registry.smsgw.journal)
