"""The plugin under test, in the real application, and what all checks have in common."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from pyramid.config import Configurator
from pyramid.request import Request

from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials
from smsgw.plugins import ask, implementations
from smsgw.testing.gateway import Gateway, base_settings_in, running

Found = TypeVar("Found")

THREADS = "Threads and processes"  # a heading of docs/plugins.md


class Behind:
    """The plugin after the one under test: it knows nobody and records who asks. Its view tells who was let in."""

    schemes = ()  # a 401 is for the plugin under test to word

    def __init__(self) -> None:
        self.asked: list[Credentials] = []

    def includeme(self, config: Configurator) -> None:
        config.add_route("smsgw.testing", "/who")
        config.add_view(_who, route_name="smsgw.testing", renderer="json")

    @hookimpl
    def authenticate(self, credentials: Credentials) -> None:
        self.asked.append(credentials)


def _who(request: Request) -> dict[str, Any]:
    return {"userid": request.identity.userid, "groups": sorted(request.identity.groups)}


@dataclass
class Candidate:
    """A plugin by its name in ``smsgw.plugins``, and the gateway that it works in."""

    name: str
    gateway: Gateway

    @property
    def plugin(self) -> Any:
        return self.gateway.plugin(self.name)

    @property
    def behind(self) -> Behind:
        found: Behind = self.gateway.plugin("behind")
        return found

    def ask(self, hook: str, **arguments: Any) -> Any:
        """What the plugin alone answers to a hook; an exception that it raises is its answer."""
        found = implementations(getattr(self.gateway.application.plugins.hook, hook))
        own = [implementation for implementation in found if implementation.plugin_name == self.name]
        demand(own, f"the plugin {self.name!r} has no method {hook!r} marked @hookimpl", "The hooks")
        try:
            return ask(own[0], arguments)
        except Exception as error:
            return error


@contextlib.contextmanager
def candidate_in(
    folder: Path, name: str, plugin_class: type | None, settings: Mapping[str, str], order: Sequence[str]
) -> Iterator[Candidate]:
    """That plugin at work; ``order`` is ``smsgw.plugins``. Wrong passwords are not counted."""
    unlimited = {"smsgw.guesses_per_user": "0", "smsgw.guesses_per_address": "0"}
    chain = {"smsgw.plugins": " ".join(dict.fromkeys(order))}
    classes = {"behind": Behind} | ({name: plugin_class} if plugin_class else {})
    with running(base_settings_in(folder) | unlimited | chain | dict(settings), **classes) as gateway:
        yield Candidate(name, gateway)


def wrong(sentence: str, heading: str) -> str:
    """The message of a failed check, with the heading in the documentation."""
    return f"{sentence}. See smsgw's docs/plugin-reference.md, {heading!r}"


def demand(condition: object, sentence: str, heading: str) -> None:
    """:raises AssertionError: the condition does not hold; with that sentence."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(wrong(sentence, heading))


def in_threads(jobs: Sequence[Callable[[], Found]], seconds: float) -> list[Found | BaseException | None]:
    """What each job returns or raises. All begin at once, and switch often; ``None`` for one that takes longer."""
    found: list[Found | BaseException | None] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def run(place: int) -> None:
        barrier.wait()
        try:
            found[place] = jobs[place]()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=[place], daemon=True) for place in range(len(jobs))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        until = time.monotonic() + seconds
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return list(found)
    finally:
        sys.setswitchinterval(interval)


class Conformance:
    """What the checks of all hooks have in common.

    ``plugin`` is its name in ``smsgw.plugins``, ``plugin_class`` the class where it is not installed.
    """

    hook: ClassVar[str]
    plugin: ClassVar[str]
    plugin_class: ClassVar[type | None] = None

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """The plugin's settings, by their whole names. To be overridden where it has any."""
        return {}

    def demand(self, condition: object, sentence: str) -> None:
        """:raises AssertionError: the condition does not hold; with that sentence."""
        __tracebackhide__ = True
        demand(condition, sentence, self.hook)

    def in_eight_threads(self, ask: Callable[[int], None]) -> None:
        """Call ``ask`` with 0 to 7 at once, and raise what one of the calls raises."""
        for failed in in_threads([partial(ask, number) for number in range(8)], 60):
            if isinstance(failed, BaseException):
                raise failed
