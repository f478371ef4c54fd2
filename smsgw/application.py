"""One application: its parts, and the order in which they are made.

``registry.application`` carries it, and nothing else of the core is on Pyramid's registry. ``application(config)`` and
``application(request)`` find it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy
from pyramid.config import Configurator
from pyramid.request import Request

from smsgw import plugins as plugin_loader
from smsgw import security
from smsgw.delivery import Delivery
from smsgw.following import make_follower, make_notifiers, open_journal, wake_all
from smsgw.gateway import Gateway
from smsgw.guessing import Guesses
from smsgw.health import Health
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.journal.retention import Retention
from smsgw.listener import Listener, Wsgi
from smsgw.mailbox import Mailbox
from smsgw.model import ConfigurationError, Identity
from smsgw.plugins import asking, implementations
from smsgw.resources import Resources
from smsgw.security import SecurityPolicy
from smsgw.settings import Settings, read_core
from smsgw.spool import find_layout
from smsgw.spool.daemon import find_conf, find_daemon, user_name
from smsgw.spool.folders import Folders
from smsgw.spool.following.follower import Follower
from smsgw.spool.following.reader import Reader
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.spool.modems import Modems
from smsgw.spool.owner import Owner, Work
from smsgw.spool.sending.cancel import Cancel
from smsgw.spool.sending.feeder import Feeder
from smsgw.spool.sending.idempotency import Receipts
from smsgw.spool.sending.queue import Queue
from smsgw.spool.sending.writer import Writer
from smsgw.store import Stores
from smsgw.watchdog import Watchdog

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The parts of one application. Plugins use ``settings``, ``layout``, ``resources``, ``permits`` and ``holds``.

    ``settings`` are the core's, ``layout`` says where smsd's folders are, and ``resources`` shows messages as the v2
    API does.
    """

    settings: Settings
    plugins: pluggy.PluginManager
    layout: Layout
    stores: Stores
    locks: Locks
    watchdog: Watchdog
    writer: Writer
    folders: Folders
    queue: Queue
    modems: Modems
    cancel: Cancel
    receipts: Receipts
    journal: Journal
    notifiers: Sequence[Notifier]
    follower: Follower
    retention: Retention
    policy: SecurityPolicy
    gateway: Gateway
    mailbox: Mailbox
    resources: Resources
    health: Health
    listener: Listener | None
    owner: Owner

    def permits(self, identity: Identity, permission: str, context: object = None) -> bool:
        """Whether the policies allow that; an unknown permission is the plugin's own."""
        return bool(security.decide(implementations(self.plugins.hook.permits), identity, permission, context))

    def holds(self, credential: str) -> bool:
        """Whether that ``Identity.credential`` still lets its user in.

        :raises Unavailable: a plugin cannot tell now, or failed.
        """
        return security.holds(self.plugins.hook, credential)

    def start(self, app: Wsgi) -> None:
        """Begin the work beside the requests, in the process that serves them.

        :param app: the whole, as a server is given it.
        :raises ConfigurationError: this is root, and smsgw's own folder belongs to another user.
        """
        self._refuse_root()
        self._introduce()
        try:
            self.locks.make()
            if lock := self.locks.try_take("owner"):
                lock.release()
                self.follower.begin()
        except OSError as error:
            log.warning("%s; until it can be written to, sends are answered 503", error)
        self.owner.start()
        atexit.register(self.owner.stop)
        if self.listener is not None:
            self.listener.start(app)

    def close(self) -> None:
        """End that work, and close what is open. No request may be under way."""
        if self.listener is not None:
            self.listener.stop()
        self.owner.stop()
        for store in self.stores.all:
            store.close()

    def _refuse_root(self) -> None:
        """What root made there, the gateway's own user could not change later."""
        with contextlib.suppress(OSError):
            owner = self.layout.state.stat().st_uid
            if os.geteuid() == 0 and owner != 0:
                user = user_name(owner)
                raise ConfigurationError(
                    f"this is root, and {self.layout.state} belongs to {user}; run it as that user: runuser -u {user}"
                )

    def _introduce(self) -> None:
        """What an operator wants to know first; the server tells the address, as "Serving on"."""
        plugins = " ".join(self.settings.plugins) or "none"
        version = metadata.version("smsgw")
        log.info("smsgw %s serves the spool of %s; plugins in order: %s", version, self.layout.outgoing, plugins)
        log.info("own folder: %s; journal: %s", self.layout.state, self.journal.database.store.name)
        log.info("%s", self._smsd())

    def _smsd(self) -> str:
        if not self.settings.health.smsd_is_here:
            return "whether smsd runs is not known, as smsgw.health.smsd_is_here says"
        try:
            conf = find_conf(self.settings.smsd_conf, self.layout.outgoing)
            found = find_daemon(conf, self.layout.outgoing) if conf else None
        except ConfigurationError as error:
            return f"whether smsd runs is not known: {error}"
        if conf is None:
            return "whether smsd runs is not known, since smsgw.smsd_conf is not set"
        if found is None or found.pid is None:
            return f"smsd, of {conf}, does not run: messages wait for it"
        return f"smsd, of {conf}, runs as {found} (process {found.pid})"


def application(of: Configurator | Request) -> Application:
    """The application that a configurator, in ``includeme``, or a request belongs to."""
    found: Application = of.registry.application
    return found


def make(raw: Mapping[str, Any]) -> Application:
    """The application of those settings. Nothing is written to the spool, and no thread runs.

    :param raw: the settings as written.
    :raises ConfigurationError: a setting, a plugin or their combination is wrong.
    """
    settings = read_core(raw)
    plugins = plugin_loader.load(settings.plugins, raw)
    hook = plugins.hook

    layout = find_layout(settings)
    stores = Stores(settings.store, layout.state)
    fsync = settings.fsync
    locks = Locks(layout.state, fsync=fsync)
    queue = Queue(layout, depth=settings.outgoing_depth, fsync=fsync)
    cancel = Cancel(layout, locks, queue)
    writer = Writer(layout, locks, queue, cancel, fsync=fsync, mode=settings.file_mode, group=settings.file_group)
    folders = Folders(layout, queue, settings.prefix)
    receipts = Receipts(layout, locks, queue, fsync=fsync)

    stats = Path(settings.health.stats) if settings.health.stats else None
    conf = find_conf(settings.smsd_conf, layout.outgoing)
    modems = Modems(layout, conf, stats, is_here=settings.health.smsd_is_here)

    journal = open_journal(stores, layout)
    notifiers = make_notifiers(hook, journal)
    follower = make_follower(hook, Reader(layout, queue, folders, settings.prefix), journal, notifiers)
    retention = Retention(journal, layout, [notifier.name for notifier in notifiers], settings.journal)

    guesses = Guesses(layout.state / "guesses", settings.guesses_per_user, settings.guesses_per_address)
    policy = SecurityPolicy(hook, guesses, settings.trusted_proxies)
    gateway = Gateway(hook, Delivery(hook, writer), settings, layout, receipts)
    mailbox = Mailbox(hook, layout, folders, cancel, journal)

    watchdog = Watchdog(modems, layout, journal, settings.health.stuck_seconds, lambda: wake_all(notifiers))
    feeder = Feeder(layout, queue)
    background: list[tuple[str, Work]] = [
        ("feeder", feeder.run),
        ("retention", retention.run),
        ("watchdog", watchdog.run),
    ]
    background += [(plugin.plugin_name, asking(plugin, "stop")) for plugin in implementations(hook.background)]
    background += [("follower", follower.run), *((notifier.name, notifier.run) for notifier in notifiers)]
    owner = Owner(
        layout,
        locks,
        queue,
        cancel,
        background=background,
        wakes=[feeder.wake, follower.wake, *(notifier.wake for notifier in notifiers)],
        expire=(receipts.expire, guesses.expire),
    )
    return Application(
        settings=settings,
        plugins=plugins,
        layout=layout,
        stores=stores,
        locks=locks,
        watchdog=watchdog,
        writer=writer,
        folders=folders,
        queue=queue,
        modems=modems,
        cancel=cancel,
        receipts=receipts,
        journal=journal,
        notifiers=notifiers,
        follower=follower,
        retention=retention,
        policy=policy,
        gateway=gateway,
        mailbox=mailbox,
        resources=Resources(layout, settings.prefix),
        health=Health(hook, writer, modems, journal),
        listener=Listener(settings.health.listen) if settings.health.listen else None,
        owner=owner,
    )
