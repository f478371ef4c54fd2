"""What came into folders a moment ago, as the kernel tells it; where it cannot, as files say when they changed last."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from smsgw.spool.index import is_message
from smsgw.spool.watch import Watch

LATELY = 40.0  # seconds: longer than a plugin may answer searches that was not told of what happens


class Arrivals:
    """Follows the folders of some kinds, from the first question on; shared by all threads.

    :param folders: where files of a kind are.
    """

    def __init__(self, kinds: Sequence[str], folders: Callable[[str], Sequence[Path]]) -> None:
        self._kinds = kinds
        self._folders = folders
        self._lock = threading.Lock()
        self._watch = Watch()
        self._came: dict[str, tuple[str, float]] = {}

    def names(self) -> Mapping[str, str]:
        """What came, or was written to, lately: the kind of each, by its name. Some of it may be gone by now."""
        with self._lock:
            now = time.monotonic()
            kinds = {folder: kind for kind in self._kinds for folder in self._folders(kind)}
            for folder, names in self._watch.news(kinds).items():
                for name in filter(is_message, _changed_lately(folder) if names is None else names):
                    self._came[name] = kinds[folder], now
            self._came = {name: (kind, came) for name, (kind, came) in self._came.items() if now - came < LATELY}
            return {name: kind for name, (kind, _) in self._came.items()}

    def forget(self, names: Iterable[str]) -> None:
        """Let these be no news any more."""
        with self._lock:
            for name in names:
                self._came.pop(name, None)

    def close(self) -> None:
        """Give back what watches the folders; the next question begins anew."""
        with self._lock:
            self._watch.close()


def _changed_lately(folder: Path) -> list[str]:
    """The names of files that were moved there, or written to, lately, by their ``ctime``; none that cannot be read."""
    since, found = time.time() - LATELY, []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_ctime >= since:
                    found.append(entry.name)
    return found
