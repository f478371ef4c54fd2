"""What a webhook may hear of at a moment: what its maker may read then, by the groups of the last sign-in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import or_, update

from smsgw.model import Identity, Unavailable
from smsgw.store import Store

from .table import WEBHOOKS, Webhook, Webhooks, written

MINUTE, HOUR, DAY = 60 * 1000, 3600 * 1000, 24 * 3600 * 1000  # milliseconds
REMEMBERED = 10000  # sign-ins that this process has looked at

Permits = Callable[[Identity, str, object], bool]

log = logging.getLogger(__name__)


class Rights:
    """Asks the policies, and the plugins that gave out credentials.

    :param permits: what the policies say.
    :param holds: whether a credential still lets its user in.
    :param days: for how long after a sign-in the user's groups are believed.
    """

    def __init__(self, permits: Permits, holds: Callable[[str], bool], days: int) -> None:
        self.permits = permits
        self._holds = holds
        self._days = days

    def end(self, webhook: Webhook) -> str | None:
        """Why the webhook has ended, in a sentence for its owner; ``None``: it has not.

        :raises Unavailable: nobody can tell now.
        """
        credential = webhook.maker.credential
        if credential is None or self._holds(credential):
            return None
        return f"It was made with {credential}, which is no longer valid"

    def listener(self, webhook: Webhook, now: int) -> tuple[Identity, bool] | None:
        """Who listens through a webhook, and whether to others' messages too; ``None``: the webhook has ended.

        :param now: milliseconds since 1970 (UTC).
        :raises Unavailable: nobody can tell now.
        """
        maker = webhook.maker
        if self.end(webhook):
            return None
        if maker.credential is None and now - webhook.signed_in > self._days * DAY:
            return Identity(maker.userid), False
        return maker, self.permits(maker, "read-all", None)


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
        """That user has signed in now. A note that fails refuses nobody."""
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
    """Give these groups to the webhooks that this user made with this credential.

    Where the groups are the same, the time is written once an hour. ``now`` is in milliseconds since 1970 (UTC).

    :raises Unavailable: the database is out of service.
    """
    made = [each for each in Webhooks(store).all(identity.userid) if each.maker.credential == identity.credential]
    old = [each.id for each in made if each.maker != identity or now - each.signed_in > HOUR]
    if old:
        # Another process may have noted a later sign-in meanwhile; one that is much later is of a clock that was ahead.
        at = WEBHOOKS.c.signed_in
        statement = update(WEBHOOKS).where(WEBHOOKS.c.id.in_(old), or_(at <= now, at > now + MINUTE))
        store.execute(statement.values(groups=written(identity), signed_in=now))
