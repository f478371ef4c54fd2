"""What comes and goes in folders, as the kernel tells it (inotify(7)), or as the folders' own times tell it.

A folder is asked for its time as well: where that changed and the kernel said nothing (a folder of another machine, no
more watches to be had, a full queue), all of it has to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import INotify, flags

TICK = 100_000_000  # nanoseconds within which a folder can change and still show the same time
SELDOM = 600.0  # seconds after which a folder that changed is looked at whole, whatever the kernel said
TOGETHER = 0.02  # seconds in which more comes, when something came: smsd makes and removes several files a message

MASK = flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE | flags.ONLYDIR

News = dict[Path, set[str] | None]


@dataclass(slots=True)
class _Known:
    """A folder: its watch (``None``: it has none), its time when it was last asked for, when all of it was news."""

    watch: int | None
    modified: int
    whole: float


class Watch:
    """Watches some folders, for one thread at a time; it begins with the first question, also in a forked process."""

    def __init__(self) -> None:
        self._pid = 0
        self._inotify: INotify | None = None
        self._fd = -1  # the garbage collector may have finished with the other first
        self._wakes = -1  # an eventfd(2)
        self._waking = threading.Lock()  # so that nobody writes to what has just been closed
        self._known: dict[Path, _Known] = {}

    def news(self, folders: Iterable[Path]) -> News:
        """The names that came, went or were written to since the last call, by folder; ``None``: look at all of it.

        Folders may be missing; one that is not there is news once.
        """
        if self._pid != os.getpid():
            self._begin()
        folders = dict.fromkeys(folders)
        for folder in self._known.keys() - folders.keys():
            self._leave(self._known.pop(folder))
        news = self._said()
        silent = [folder for folder in folders if self._has_changed(folder, news)]
        if silent:
            late = self._said()  # a folder's time changes a moment before the kernel says so
            for folder, names in late.items():
                before = news.get(folder, set())
                news[folder] = before | names if before is not None and names is not None else None
            news.update((folder, None) for folder in silent if folder not in late)
        for folder in [folder for folder, names in news.items() if names is None and folder in self._known]:
            self._known[folder].whole = time.monotonic()
        return news

    @property
    def is_told(self) -> bool:
        """Whether the kernel tells of changes; where it cannot, the folders have to be asked often."""
        return self._inotify is not None and all(known.watch is not None for known in self._known.values())

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return after so many seconds, soon after something happened, or when ``wake`` is called."""
        if self._inotify is None:
            stop.wait(seconds)
        elif not stop.is_set():
            ready = select.poll()
            for fd in (self._fd, self._wakes):
                ready.register(fd, select.POLLIN)
            if any(fd == self._fd for fd, _ in ready.poll(seconds * 1000)):
                stop.wait(min(seconds, TOGETHER))

    def wake(self) -> None:
        """Let ``wait`` return, in another thread; it does not do so again."""
        with self._waking:
            if self._wakes >= 0:
                os.eventfd_write(self._wakes, 1)

    def close(self) -> None:
        """Give the kernel's watches back; the next question begins anew."""
        if self._inotify is not None:
            os.close(self._fd)
            with self._waking:
                os.close(self._wakes)
                self._wakes = -1
        self._pid, self._inotify, self._known = 0, None, {}

    def __del__(self) -> None:
        self.close()

    def _begin(self) -> None:
        self.close()
        self._pid = os.getpid()
        with contextlib.suppress(OSError):  # there are no more to be had: fs.inotify.max_user_instances
            self._inotify = INotify(closefd=False)
            self._fd = self._inotify.fileno()
            self._wakes = os.eventfd(0)

    def _said(self) -> News:
        """What the kernel said since it was last asked."""
        news: News = {}
        by_watch = {known.watch: folder for folder, known in self._known.items()}
        for event in self._inotify.read(timeout=0) if self._inotify is not None else ():
            if event.mask & flags.Q_OVERFLOW:
                return dict.fromkeys(self._known)
            folder = by_watch.get(event.wd)
            if folder is not None and event.name:
                names = news.setdefault(folder, set())
                assert names is not None
                names.add(event.name)
        return news

    def _has_changed(self, folder: Path, news: News) -> bool:
        """Note how that folder stands; whether it changed without a word."""
        before = self._known.get(folder)
        watch = self._follow(folder)
        try:
            modified = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            modified = 0
        except OSError:
            modified = -1  # to be found out by who looks
        if watch is None and abs(time.time_ns() - modified) < TICK:
            modified = -1
        self._known[folder] = _Known(watch, modified, before.whole if before else 0.0)
        if before is None or before.watch != watch:
            news[folder] = None
            return False
        if modified != before.modified and time.monotonic() - before.whole > SELDOM:
            news[folder] = None
        return folder not in news and (modified != before.modified or modified == -1)

    def _leave(self, known: _Known) -> None:
        """Let the kernel say no more of a folder that nobody asks for."""
        if self._inotify is not None and known.watch is not None:
            with contextlib.suppress(OSError):  # the folder is gone, and its watch with it
                self._inotify.rm_watch(known.watch)

    def _follow(self, folder: Path) -> int | None:
        """The watch of the folder that stands there now; another one where it was made anew."""
        if self._inotify is None:
            return None
        try:
            return int(self._inotify.add_watch(folder, MASK))
        except OSError:
            return None
