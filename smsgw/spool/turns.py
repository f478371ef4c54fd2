"""Whose turn it is: messages that wait, those of high priority first, and of each priority in turn between users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set

from sortedcontainers import SortedList

Users = OrderedDict[str | None, SortedList]  # the names of each, the user first whose turn it is


class Turns:
    """Names of messages that wait, each once; of one user they come in the order of their names.

    A user who comes anew waits for a turn behind those who wait already. However many wait, each costs much the same.
    """

    def __init__(self) -> None:
        self._urgent: Users = OrderedDict()
        self._others: Users = OrderedDict()
        self._known: dict[str, tuple[Users, str | None]] = {}

    @property
    def names(self) -> Set[str]:
        return self._known.keys()

    def add(self, name: str, user: str | None, is_urgent: bool) -> None:
        if name not in self._known:
            users = self._urgent if is_urgent else self._others
            users.setdefault(user, SortedList()).add(name)
            self._known[name] = users, user

    def discard(self, name: str) -> None:
        if name in self._known:
            users, user = self._known.pop(name)
            users[user].remove(name)
            if not users[user]:
                del users[user]

    def take(self) -> str | None:
        """The next one, which waits no more then; ``None``: none waits."""
        for users in (self._urgent, self._others):
            if users:
                user, names = users.popitem(last=False)
                name: str = names.pop(0)
                del self._known[name]
                if names:
                    users[user] = names
                return name
        return None
