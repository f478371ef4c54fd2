"""Message ids: unique, in order, and ULIDs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from smsgw.ids import COUNTED, Ids


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_they_sort_as_they_were_taken(counts: list[int]) -> None:
    ids = Ids("smsgw.http.")
    taken = [id for count in counts for id in ids.take(count)]
    assert taken == sorted(set(taken))
    assert len(taken) == sum(counts)
    assert ULID.from_str(taken[0].removeprefix("smsgw.http.")).milliseconds > 1_700_000_000_000


def test_a_moment_that_is_used_up() -> None:
    ids = Ids("")
    taken = [*ids.take(COUNTED - 1), *ids.take(1), *ids.take(COUNTED)]
    assert len(set(taken)) == 2 * COUNTED
    assert taken[:: COUNTED // 8] == sorted(taken[:: COUNTED // 8])


def test_threads_share_them() -> None:
    ids = Ids("")
    with ThreadPoolExecutor(8) as pool:
        taken = list(chain.from_iterable(pool.map(lambda _: ids.take(3), range(2000))))
    assert len(set(taken)) == 6000


def test_a_forked_process_has_others() -> None:
    ids = Ids("")
    ids.take(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "".join(ids.take(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 2600).decode()
    os.close(read)
    os.close(write)
    assert not {theirs[start : start + 26] for start in range(0, 2600, 26)} & set(ids.take(100))
