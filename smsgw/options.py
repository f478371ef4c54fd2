"""Which options a message can have, whether a client asks for them or a plugin routes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args, get_type_hints

from smsgw.model import Options
from smsgw.refusals import invalid
from smsgw.settings import is_header_value

MAX_VALIDITY = 63 * 7 * 24 * 60  # minutes: the longest relative validity period (TS 23.040, 9.2.3.12.1)
MAX_DELAY = timedelta(days=400)  # until a message is sent

_TYPES = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Options).items()}


class OptionRules:
    """The rules of one gateway.

    :param queues: smsd's; ``None``: nobody knows them.
    :param default_queue: of messages without one.
    """

    def __init__(self, queues: Sequence[str] | None, default_queue: str | None) -> None:
        self._queues = queues
        self._default_queue = default_queue

    def check(self, options: Options) -> Options:
        """The options with the default queue, and without a ``send_at`` that has passed.

        :raises Invalid: an option has a value that it cannot have.
        """
        validity = options.validity
        if validity is not None and not 1 <= validity <= MAX_VALIDITY:
            raise invalid("validity", f"should be 1 to {MAX_VALIDITY} minutes")
        if options.queue is not None:
            self._check_queue(options.queue)
        elif self._default_queue is not None:
            options = replace(options, queue=self._default_queue)
        now = datetime.now(UTC)
        if options.send_at is None or options.send_at <= now:
            return replace(options, send_at=None)
        if options.send_at > now + MAX_DELAY:
            raise invalid("send_at", f"should be at most {MAX_DELAY.days} days ahead")
        return replace(options, send_at=options.send_at.astimezone(UTC))

    def _check_queue(self, queue: str) -> None:
        if not is_header_value(queue):
            raise invalid("queue", "should be at most 99 characters, none of them a control character")
        if self._queues is not None and queue not in self._queues:
            known = ", ".join(self._queues)
            raise invalid("queue", f"is none of smsd's: {known}" if known else "should be left out: smsd has no queues")


def stray(options: Options) -> str | None:
    """The name of an option whose value has a wrong type; ``None``: there is none. A time needs its time zone."""
    for name, types in _TYPES.items():
        if type(getattr(options, name)) not in types:
            return name
    return "send_at" if options.send_at is not None and options.send_at.tzinfo is None else None
