"""Whose turn it is, against the simplest model that there is."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smsgw.spool.turns import Turns

USERS = [None, "", "lvv", "ops", "root"]


class InTurn(RuleBasedStateMachine):
    """The model: for each priority a list of users in turn, each with all names that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        self.waiting: tuple[list[tuple[str | None, list[str]]], ...] = ([], [])
        self.known: dict[str, tuple[str | None, bool]] = {}

    def names(self) -> set[str]:
        return {name for users in self.waiting for _, names in users for name in names}

    @rule(number=st.integers(0, 30), user=st.sampled_from(USERS), is_urgent=st.booleans())
    def add(self, number: int, user: str | None, is_urgent: bool) -> None:
        name = f"smsgw.{number:02}"
        user, is_urgent = self.known.setdefault(name, (user, is_urgent))  # what a file says does not change
        self.turns.add(name, user, is_urgent)
        if name not in self.names():
            users = self.waiting[not is_urgent]
            if user not in dict(users):
                users.append((user, []))
            dict(users)[user].append(name)

    @precondition(lambda self: self.names())
    @rule(pick=st.integers(0, 100))
    def discard(self, pick: int) -> None:
        names = sorted(self.names())
        name = names[pick % len(names)]
        self.turns.discard(name)
        for users in self.waiting:
            users[:] = [(user, [each for each in names if each != name]) for user, names in users]
            users[:] = [(user, names) for user, names in users if names]

    @rule()
    def take(self) -> None:
        expected = None
        for users in self.waiting:
            if users:
                user, names = users.pop(0)
                expected = min(names)
                names.remove(expected)
                users += [(user, names)] if names else []
                break
        assert self.turns.take() == expected

    @invariant()
    def all_that_wait_are_known(self) -> None:
        assert self.turns.names == self.names()


TestInTurn = InTurn.TestCase
