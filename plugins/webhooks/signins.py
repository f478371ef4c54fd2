"""Lets webhooks have the groups of their makers' last sign-ins."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import or_, update

from smsgw.model import Identity, Unavailable
from smsgw.store import Store

from .table import WEBHOOKS, Webhooks, written

MINUTE, HOUR = 60 * 1000, 3600 * 1000  # milliseconds
REMEMBERED = 10000  # sign-ins that this process knows to have looked at

log = logging.getLogger(__name__)


class SignIns:
    """Notes sign-ins. The database is asked once a minute for each user, and at once where the groups have changed.

    :param clock: seconds since 1970 (UTC).
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str | None], tuple[frozenset[str], int]] = {}  # by userid and credential

    def note(self, identity: Identity) -> None:
        """That user has signed in now. A request does not depend on whether that can be noted."""
        now, key = int(self._clock() * 1000), (identity.userid, identity.credential)
        with self._lock:
            groups, at = self._seen.get(key, (None, 0))
            if groups == identity.groups and 0 <= now - at < MINUTE:
                return
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[key] = identity.groups, now
        try:
            refresh(self._store, identity, now)
        except Unavailable as error:
            log.warning("a sign-in could not be noted for the user's webhooks (%s)", error.__cause__)


def refresh(store: Store, identity: Identity, now: int) -> None:
    """Let the webhooks that this user made with this credential have these groups.

    What is known already is written again after an hour. ``now`` is in milliseconds since 1970 (UTC).

    :raises Unavailable: the database is out of service.
    """
    made = [each for each in Webhooks(store).all(identity.userid) if each.maker.credential == identity.credential]
    old = [each.id for each in made if each.maker != identity or now - each.signed_in > HOUR]
    if old:
        # Another process may have noted a later sign-in meanwhile; one that is much later is of a clock that was ahead.
        column = WEBHOOKS.c.signed_in
        statement = update(WEBHOOKS).where(WEBHOOKS.c.id.in_(old), or_(column <= now, column > now + MINUTE))
        with store.begin() as connection:
            connection.execute(statement.values(groups=written(identity), signed_in=now))
