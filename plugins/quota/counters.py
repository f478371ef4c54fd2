"""What has been used of each limit, exact over all threads and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.exc import IntegrityError

from smsgw.store import Store

from .ahead import Ahead
from .limits import Claim
from .rows import Rows


class Exhausted(Exception):
    """``left`` says how much those limits have left that have too little; nothing was taken of any."""

    def __init__(self, left: Mapping[Claim, int]) -> None:
        super().__init__(left)
        self.left = left


class Counters:
    """Counters in a store, exact over all threads and processes that share it.

    Claims come sorted by the keys of their limits, so that on PostgreSQL nobody waits for one who waits for them.
    """

    def __init__(self, store: Store) -> None:
        self._rows = Rows(store)
        self._ahead = Ahead(store, store.path, self._rows) if store.path else None

    def take(self, claims: Sequence[Claim]) -> None:
        """Take what all of them need.

        :raises Exhausted: a limit has too little left, and nothing was taken.
        :raises Unavailable: the database is out of service, and nothing was taken.
        """
        if self._ahead is None:
            self._take(claims)
            return
        with self._ahead as ahead:
            if not ahead.spend(claims):
                self._take(claims)
                ahead.took(claims)

    def left(self, claims: Sequence[Claim]) -> dict[Claim, int]:
        """How much there is left of what they claim from.

        :raises Unavailable: the database is out of service.
        """
        if not claims:
            return {}
        with self._nothing_ahead():
            return self._rows.left(claims)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Take back so much of what was taken, in the same windows.

        :raises Unavailable: the database is out of service.
        """
        self._rows.reduce([(claim.key, claim.amount) for claim in claims])

    def forget(self, until: int) -> None:
        """Remove the counters of windows that ended before.

        :raises Unavailable: the database is out of service.
        """
        self._rows.forget(until)

    def _take(self, claims: Sequence[Claim]) -> None:
        with contextlib.suppress(IntegrityError):
            return self._rows.take(claims)
        with self._nothing_ahead():
            while True:
                with contextlib.suppress(IntegrityError):
                    return self._rows.take(claims)
                left = {claim: rest for claim, rest in self._rows.left(claims).items() if rest < claim.amount}
                if left:  # still: somebody may just have given back
                    raise Exhausted(left)

    @contextlib.contextmanager
    def _nothing_ahead(self) -> Iterator[None]:
        if self._ahead is None:
            yield
        else:
            with self._ahead as ahead, ahead.nobody():
                yield
