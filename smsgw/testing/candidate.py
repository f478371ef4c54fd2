"""The plugin under test, in the real application; and what a check says where it fails."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyramid.config import Configurator
from pyramid.request import Request

from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials
from smsgw.plugins import ask, implementations
from smsgw.testing.gateway import Gateway, base_settings_in, running

Found = TypeVar("Found")


class Behind:
    """Stands behind the plugin under test: knows nobody, notes who gets that far, and tells who was let in."""

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
        """What the plugin alone answers to a hook."""
        for implementation in implementations(getattr(self.gateway.registry.plugins.hook, hook)):
            if implementation.plugin_name == self.name:
                return ask(implementation, arguments)
        raise AssertionError(wrong(f"the plugin {self.name!r} has no method {hook!r} marked @hookimpl", "The hooks"))


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
    """What a failed check says: what is wrong, and under which heading of the documentation it is told."""
    return f"{sentence}. See smsgw's docs/plugin-reference.md, {heading!r}"


def demand(condition: object, sentence: str, heading: str) -> None:
    """:raises AssertionError: the condition does not hold; with that sentence."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(wrong(sentence, heading))


def in_threads(jobs: Sequence[Callable[[], Found]], seconds: float) -> list[Found | BaseException | None]:
    """What each job returns or raises, all begun at once and interleaved finely; ``None`` for one that takes longer."""
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
