"""Takes what is due out of the outbox, tries to deliver it, and notes how that went.

One thread does it with asyncio, in the process that owns the spool. While it waits for the database, no attempt goes
on: that takes milliseconds, and is bounded where the database hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

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
JITTER = 0.1  # of these seconds, at most
LOOK = 1.0  # seconds between two looks for what other processes noted, or what is due again
STOP = 0.25  # seconds between two looks whether to stop
GRACE = 2.0  # seconds in which attempts may end when the gateway stops
CLEAN = HOUR  # seconds between two removals of what is old

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[None]]

log = logging.getLogger(__name__)


class Dispatcher:
    """
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
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._woken: asyncio.Event
        self._receivers: Receivers
        self._ended: list[Ended]
        self._under_way: dict[asyncio.Task[None], Delivery]
        self._is_down = False
        self._cleaned = float("-inf")

    def wake(self) -> None:
        """There is something new in the outbox. Any thread may call it, also while nothing runs."""
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._woken.set)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        self._woken, self._receivers = asyncio.Event(), Receivers()
        self._ended, self._under_way = [], {}
        self._loop = asyncio.get_running_loop()
        try:
            while not stop.is_set():
                self._woken.clear()
                await self._look()
                await self._wait(stop)
            await self._finish()
        finally:
            self._loop = None

    async def _wait(self, stop: threading.Event) -> None:
        """Until there is something to do, and at most until the next look."""
        until = time.monotonic() + LOOK
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(STOP, left))
                return

    async def _look(self) -> None:
        """One look at the outbox."""
        try:
            self._clean()
            self._settle()
            webhooks = self._outbox.webhooks(self._now())
            random.shuffle(webhooks)  # or the first would take all the room, as long as there is something due for it
            for webhook in webhooks:
                self._try(webhook)
                await asyncio.sleep(0)  # attempts go on between two webhooks
            self._is_down = False
        except Unavailable as error:
            if not self._is_down:
                log.error("webhooks wait: %s (%s)", error.detail, error.__cause__)
            self._is_down = True

    def _clean(self) -> None:
        if time.monotonic() - self._cleaned >= CLEAN:
            self._outbox.correct(self._now())
            self._outbox.remove_old(self._now())
            self._cleaned = time.monotonic()

    def _settle(self) -> None:
        self._outbox.settle(self._ended, self._now())
        self._ended.clear()

    def _try(self, webhook: Webhook) -> None:
        """Begin as many attempts for a webhook as there is room for; none, if it has ended."""
        try:
            ended = self._rights.end(webhook)
        except Unavailable:  # the plugin that would know; other webhooks need not wait for it
            return
        now = self._now()
        if ended:
            self._outbox.give_up(webhook.id, ended, now)
        elif room := self._receivers.room(webhook.id):
            for delivery in self._outbox.take(webhook.id, room, now, now + self._lease):
                task = asyncio.create_task(self._attempt(webhook, delivery, self._receivers.begin(webhook.id)))
                self._under_way[task] = delivery
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._woken.set()

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
        """When the next attempt is; ``None``: that was the last one."""
        if attempts > len(SCHEDULE):
            return None
        return self._now() + int(SCHEDULE[attempts - 1] * 1000 * random.uniform(1, 1 + JITTER))  # noqa: S311

    async def _finish(self) -> None:
        """Let attempts end for a moment, and give back those that do not. Of what cannot be noted, leases run out."""
        late = dict(self._under_way)
        if late:
            _, pending = await asyncio.wait(late, timeout=GRACE)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            late = {task: late[task] for task in pending}
        with contextlib.suppress(Unavailable):
            self._settle()
            self._outbox.give_back(late.values(), self._now())

    def _now(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return int(self._clock() * 1000)
