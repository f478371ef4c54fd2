"""What a webhook may hear at a moment: what its maker may read then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smsgw.model import Identity

from .table import Webhook

DAY = 24 * 3600 * 1000  # milliseconds

Permits = Callable[[Identity, str, object], bool]


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens through a webhook at a moment, and whether to the messages of others too."""

    identity: Identity
    reads_all: bool


class Rights:
    """Asks the policies, and the plugins that issue credentials.

    :param permits: what the policies say.
    :param holds: whether a credential still lets its user in.
    :param days: for how long after a sign-in the user's groups are believed.
    """

    def __init__(self, permits: Permits, holds: Callable[[str], bool], days: int) -> None:
        self._permits = permits
        self._holds = holds
        self._days = days

    def end(self, webhook: Webhook) -> str | None:
        """Why the webhook has ended, in a sentence for its owner; ``None``: it has not.

        :raises Unavailable: it cannot be told now.
        """
        credential = webhook.maker.credential
        if credential is None or self._holds(credential):
            return None
        return f"It was made with {credential}, which is no longer valid"

    def listener(self, webhook: Webhook, now: int) -> Listener | None:
        """``None``: the webhook has ended.

        :param now: milliseconds since 1970 (UTC).
        :raises Unavailable: it cannot be told now.
        """
        maker = webhook.maker
        if self.end(webhook):
            return None
        if maker.credential is None and now - webhook.signed_in > self._days * DAY:
            return Listener(Identity(maker.userid), reads_all=False)
        return Listener(maker, self._permits(maker, "read-all", None))

    def may_read(self, listener: Listener, message: object) -> bool:
        return self._permits(listener.identity, "read", message)
