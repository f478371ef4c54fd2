"""Takes what is due out of the outbox, tries it, and notes how that went; in the process that owns the spool.

One thread talks to the database; another waits for all receivers (asyncio).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

from smsgw.model import Unavailable

from .outbox import Delivery, Ended, Outbox
from .post import Undelivered
from .receivers import Receivers
from .rights import Rights
from .signature import sign
from .table import Webhook

MINUTE, HOUR = 60, 3600
# Seconds between two attempts: Standard Webhooks 1.0.0, "Deliverability and reliability".
SCHEDULE = (5, 5 * MINUTE, 30 * MINUTE, *(hours * HOUR for hours in (2, 5, 10, 14, 20, 24)))
JITTER = 0.1  # of that, at most
LOOK = 1.0  # seconds between two looks for what others noted, or what is due again
STOP = 0.25  # seconds between two looks whether to stop
GRACE = 2.0  # seconds in which attempts may end by themselves then

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[None]]

log = logging.getLogger(__name__)


class Dispatcher:
    """Works while ``run`` does.

    :param rights: know which webhooks have ended.
    :param lease: milliseconds; more than an attempt takes.
    :param clock: seconds since 1970 (UTC).
    """

    def __init__(self, outbox: Outbox, rights: Rights, post: Post, lease: int, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._rights = rights
        self._post = post
        self._lease = lease
        self._clock = clock
        self._receivers = Receivers()
        self._woken = threading.Event()
        self._ended: list[Ended] = []
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._is_down = False

    def wake(self) -> None:
        """There is something new in the outbox. Called by any thread, also while nothing runs."""
        self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        self._ended, self._tasks = [], {}
        with _looping() as loop:
            while not stop.is_set():
                self._woken.clear()
                self._turn(loop)
                self._wait(stop)
            self._finish(asyncio.run_coroutine_threadsafe(self._end(), loop).result())

    def _wait(self, stop: threading.Event) -> None:
        """Until there is something to do, and at the most until the next look."""
        until = time.monotonic() + LOOK
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._woken.wait(min(STOP, left)):
                return

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """One look at the outbox."""
        try:
            self._settle()
            hungry = self._outbox.hungry(self._now())
            random.shuffle(hungry)  # or the first would take all the room that there is, as long as they are hungry
            for webhook in hungry:
                self._try(webhook, loop)
            self._is_down = False
        except Unavailable as error:
            if not self._is_down:
                log.error("webhooks wait: %s (%s)", error.detail, error.__cause__)
            self._is_down = True

    def _try(self, webhook: Webhook, loop: asyncio.AbstractEventLoop) -> None:
        """Begin as many attempts for a webhook as there is room for; none, if it has ended."""
        try:
            ended = self._rights.end(webhook)
        except Unavailable:  # of who could tell: other webhooks need not wait for them
            return
        now = self._now()
        if ended:
            self._outbox.give_up(webhook.id, ended, now)
        elif count := self._receivers.room(webhook.id):
            for delivery in self._outbox.take(webhook.id, count, now, now + self._lease):
                lane = self._receivers.begin(webhook.id)
                loop.call_soon_threadsafe(self._start, webhook, delivery, lane)

    def _settle(self) -> None:
        ended = list(self._ended)
        self._outbox.settle(ended, self._now())
        del self._ended[: len(ended)]

    def _start(self, webhook: Webhook, delivery: Delivery, lane: bool) -> None:
        task = asyncio.ensure_future(self._attempt(webhook, delivery, lane))
        self._tasks[task] = delivery

        def end(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self.wake()

        task.add_done_callback(end)

    async def _end(self) -> list[Delivery]:
        """Let attempts end by themselves for a moment; those that did not, and were cancelled."""
        if not (under_way := dict(self._tasks)):
            return []
        _, late = await asyncio.wait(under_way, timeout=GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [under_way[task] for task in late]

    async def _attempt(self, webhook: Webhook, delivery: Delivery, lane: bool) -> None:
        begun, error = time.monotonic(), None
        try:
            headers = sign(webhook.secret, delivery.id, int(self._clock()), delivery.body)
            await self._post(webhook.url, headers, delivery.body.encode())
        except Undelivered as failure:
            error = str(failure)
        except Exception as failure:
            # The log has no words of the failure: they could have the URL or the secret in them.
            log.error("the attempt to deliver %s failed (%s)", delivery.id, type(failure).__name__)
            error = "the gateway failed; its log says why"
        finally:
            self._receivers.end(webhook.id, lane, is_failure=error is not None, seconds=time.monotonic() - begun)
        due = None if error is None else self._next(delivery.attempts)
        if error is not None and due is None:
            log.error("the webhook %s has not taken %s, which is given up: %s", webhook.id, delivery.id, error)
        self._ended.append(Ended(delivery, error, due))

    def _next(self, attempts: int) -> int | None:
        """When to try again; ``None``: no more."""
        if attempts > len(SCHEDULE):
            return None
        return self._now() + int(SCHEDULE[attempts - 1] * 1000 * random.uniform(1, 1 + JITTER))  # noqa: S311

    def _finish(self, cancelled: list[Delivery]) -> None:
        """Note what can be; leases of the rest run out."""
        with contextlib.suppress(Unavailable):
            self._settle()
            self._outbox.give_back(cancelled, self._now())

    def _now(self) -> int:
        return int(self._clock() * 1000)


@contextlib.contextmanager
def _looping() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own.

    It has no executor: these are out of service before the process is told to stop.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="smsgw-webhooks-attempts", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
