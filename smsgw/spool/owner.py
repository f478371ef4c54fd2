"""The one process that looks after a spool: finishes what dead ones left, feeds smsd, runs plugins' background work.

Every process has an ``Owner``; the one that holds the lock works, the others wait for it to die.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smsgw.logs import indented
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Lock, Locks
from smsgw.spool.sending.cancel import GRACE, Cancel
from smsgw.spool.sending.queue import Queue, ready_lock

PERIOD = 1.0  # seconds between two looks
SELDOM = 60.0  # seconds between two looks for what is old
CANCELLED_KEPT = 30 * 24 * 3600  # seconds

Work = Callable[[threading.Event], None]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reign:
    """The time in which this process owns the spool: its lock, and the threads that end with it."""

    lock: Lock
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    wakes: list[Callable[[], None]] = field(default_factory=list)

    def end(self) -> None:
        self.stop.set()
        for wake in self.wakes:
            wake()
        for thread in self.threads:
            thread.join(timeout=10)
        self.lock.release()


class Owner:
    """Waits to own the spool, and works while it does.

    :param background: work for threads of their own, by name; each returns soon after its event is set.
    :param wakes: called then, so that nobody waits for something else.
    :param expire: called now and then, to forget what is old.
    """

    def __init__(
        self,
        layout: Layout,
        locks: Locks,
        queue: Queue,
        cancel: Cancel,
        *,
        background: Sequence[tuple[str, Work]] = (),
        wakes: Sequence[Callable[[], None]] = (),
        expire: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._layout = layout
        self._locks = locks
        self._queue = queue
        self._cancel = cancel
        self._background = background
        self._wakes = wakes
        self._expire = expire
        self._next_expiry = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="smsgw-owner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give the spool up; returns when all threads have ended."""
        atexit.unregister(self.stop)  # which would keep this application, and all that it holds, until the process ends
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            reign = self._begin()
            if reign is None:
                self._stop.wait(PERIOD)
                continue
            try:
                while reign.lock.is_shared() and not self._stop.is_set():
                    self.look_after()
                    self._stop.wait(PERIOD)
            finally:
                reign.end()

    def _begin(self) -> _Reign | None:
        try:
            if not self._layout.outgoing.is_dir():
                return None
            lock = self._locks.try_take("owner")
        except OSError:
            return None  # no spool yet: requests and monitoring say so
        if lock is None:
            return None
        reign = _Reign(lock, wakes=[*self._wakes])
        for name, work in self._background:
            thread = threading.Thread(target=_watched, args=(name, work, reign.stop), name=f"smsgw-{name}", daemon=True)
            reign.threads.append(thread)
            thread.start()
        return reign

    def look_after(self) -> None:
        """One look; what fails is logged, and tried again at the next."""
        _try(self._locks.make)
        state = self._layout.state
        for folder, job in (
            ("ready", self._finish_submission),
            ("cancelling", self._finish_cancel),
            ("writers", self._clear_dead),
        ):
            for name in _names(state / folder):
                _try(job, name)
        if time.monotonic() >= self._next_expiry:
            self._next_expiry = time.monotonic() + SELDOM
            for name in _names(state / "cancelled"):
                _try(self._expire_cancelled, name)
            for expire in self._expire:
                _try(expire)

    def _finish_submission(self, name: str) -> None:
        """Let what a dead process committed go its way; a living one that is at it is not disturbed."""
        if lock := self._locks.try_take(ready_lock(name)):
            with lock:
                self._queue.resume(name)

    def _finish_cancel(self, id: str) -> None:
        """Decide about a message whose cancelling process died."""
        if lock := self._locks.try_take(f"cancel {id}"):
            with lock:
                if time.time() - (self._layout.state / "cancelling" / id).stat().st_ctime > GRACE:
                    self._cancel.finish(id)

    def _clear_dead(self, token: str) -> None:
        """Remove what a dead process had not committed."""
        if lock := self._locks.try_take(f"writer {token}"):
            with lock:
                shutil.rmtree(self._layout.state / "writers" / token)

    def _expire_cancelled(self, id: str) -> None:
        path = self._layout.state / "cancelled" / id
        if path.stat().st_mtime < time.time() - CANCELLED_KEPT:
            path.unlink()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it is made with the first message; requests say what else may be wrong
        return []


def _try(job: Callable[..., None], *arguments: str) -> None:
    try:
        job(*arguments)
    except FileNotFoundError:
        pass  # somebody else was faster
    except Exception as error:
        log.error("looking after the spool: %s%r failed%s", job.__name__, arguments, indented(error))


def _watched(name: str, work: Work, stop: threading.Event) -> None:
    """Run background work, again a while after it failed."""
    while not stop.is_set():
        try:
            work(stop)
            return
        except Exception as error:
            log.error("the background work of %r failed; it starts again in 10 seconds%s", name, indented(error))
            stop.wait(10)
