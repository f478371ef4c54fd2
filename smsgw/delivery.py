"""The hook ``deliver``: plugins are offered a submission in ini order, and the spool takes what they leave.

A message is sent only when a plugin returned it, or the spool has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from smsgw.logs import indented
from smsgw.model import Message, Receipt, Submission
from smsgw.plugins import Misbehaved, ask, blame, implementations, kind
from smsgw.spool.sending.writer import Writer

Wrapping = Generator[None, Sequence[Message], Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of a submission: the messages that were taken, and those that nobody could take."""

    taken: tuple[Message, ...]
    left: tuple[Message, ...] = ()


class Delivery:
    """Delivers submissions; shared by all threads.

    :param hook: the plugins' hooks.
    :param writer: the spool's.
    """

    def __init__(self, hook: pluggy.HookRelay, writer: Writer) -> None:
        found = implementations(hook.deliver)
        self._wrappers = [implementation for implementation in found if implementation.wrapper]
        self._carriers = [implementation for implementation in found if not implementation.wrapper]
        self._writer = writer

    def deliver(self, submission: Submission, receipt: Receipt | None = None) -> Delivered:
        """Deliver it. The receipt enters the spool with the messages that the spool takes.

        :raises Misbehaved: a plugin gave an answer that is none; nothing was taken.
        :raises SpoolUnavailable: the spool takes no messages; nothing was taken.
        :raises Exception: a plugin refused the submission, or failed; nothing was taken.
        """
        deliver: Callable[[], Delivered] = lambda: self._carry(submission, receipt)  # noqa: E731
        for wrapper in reversed(self._wrappers):
            deliver = _wrapped(wrapper, submission, deliver)
        return deliver()

    def _carry(self, submission: Submission, receipt: Receipt | None) -> Delivered:
        left = submission.messages
        try:
            for carrier in self._carriers:
                left = _rest(carrier, replace(submission, messages=left))
                if not left:
                    return Delivered(submission.messages)
            self._writer.put(left, receipt)
        except Exception as error:
            if left is submission.messages:
                raise
            log.error("%d of %d messages were not taken%s", len(left), len(submission.messages), indented(error))
            lost = {message.id for message in left}
            return Delivered(tuple(message for message in submission.messages if message.id not in lost), left)
        return Delivered(submission.messages)


def _rest(carrier: pluggy.HookImpl, submission: Submission) -> tuple[Message, ...]:
    """The messages that a plugin leaves to others; the submission's own tuple, where it leaves them all.

    :raises Misbehaved: its answer is none.
    """
    answer = ask(carrier, {"submission": submission})
    if answer is None:
        return submission.messages
    if not isinstance(answer, list | tuple) or not all(isinstance(message, Message) for message in answer):
        raise Misbehaved(
            carrier, f"returned {kind(answer)} from 'deliver'; return a list of the messages that it took, or None"
        )
    if not answer:
        return submission.messages
    offered = {message.id: message for message in submission.messages}
    for message in answer:
        if offered.pop(message.id, None) != message:
            raise Misbehaved(
                carrier, f"returned {message.id} from 'deliver', which it was not offered, or returned twice"
            )
    return tuple(offered.values())


def _wrapped(
    wrapper: pluggy.HookImpl, submission: Submission, deliver: Callable[[], Delivered]
) -> Callable[[], Delivered]:
    """The same delivery within a plugin that wraps it.

    Until its ``yield`` the plugin can refuse, by an exception. Afterwards it changes nothing: what was sent was sent.
    """

    def within() -> Delivered:
        generator = _begin(wrapper, submission)
        try:
            delivered = deliver()
        except BaseException as error:
            try:
                generator.throw(error)  # from its yield; it may raise another exception instead
            except StopIteration:
                name = wrapper.plugin_name
                log.error("the plugin %r caught what its 'yield' raised and returned; nothing was sent", name)
            else:
                _end(wrapper, generator)
            raise
        _tell(wrapper, generator, delivered)
        return delivered

    return within


def _begin(wrapper: pluggy.HookImpl, submission: Submission) -> Wrapping:
    """Run a wrapper as far as its ``yield``."""
    generator: Wrapping = ask(wrapper, {"submission": submission})
    if not isinstance(generator, Generator):
        raise Misbehaved(wrapper, f"returned {kind(generator)} from a wrapper of 'deliver', which should yield once")
    try:
        next(generator)
    except StopIteration:
        raise Misbehaved(
            wrapper, "returned from its wrapper of 'deliver' before 'yield'; raise TooMany to refuse"
        ) from None
    except Exception as error:
        blame(wrapper, error)
        raise
    return generator


def _tell(wrapper: pluggy.HookImpl, generator: Wrapping, delivered: Delivered) -> None:
    """Let a wrapper go on after its ``yield``, and log what is wrong with how it ends."""
    try:
        generator.send(delivered.taken)
    except StopIteration as end:
        if end.value is not delivered.taken:
            log.error(
                "the plugin %r returned %s from its wrapper of 'deliver'; return what 'yield' gave, as in"
                " 'return (yield)'. The messages were sent",
                wrapper.plugin_name,
                kind(end.value),
            )
    except Exception as error:
        log.error("the plugin %r failed after the messages were sent%s", wrapper.plugin_name, indented(error))
    else:
        _end(wrapper, generator)


def _end(wrapper: pluggy.HookImpl, generator: Wrapping) -> None:
    """End a wrapper that yields a second time."""
    log.error("the plugin %r yielded twice in its wrapper of 'deliver'; yield once", wrapper.plugin_name)
    try:
        generator.close()
    except Exception as error:
        log.error("the plugin %r failed to end%s", wrapper.plugin_name, indented(error))
