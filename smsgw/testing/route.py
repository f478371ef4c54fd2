"""What every router of messages must stand: ``RouteConformance``, a base class for an author's class of tests.

class TestCarrier(RouteConformance):
    plugin = "carrier"

    @pytest.fixture
    def answers(self):
        message = message("79160000000")
        return [(Options(queue="MTS"), Identity("lvv"), message)]
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smsgw.model import Identity, Message, Options
from smsgw.options import stray
from smsgw.testing.candidate import Candidate, candidate_in, demand, in_threads
from smsgw.testing.policy import IDENTITIES, MESSAGES, users_of

HOOK = "route"
THREADS = "Threads and processes"
V2 = "/api/v2/messages"

Expectation = tuple[Options | None, Identity, Message]


class RouteConformance:
    """For every plugin that routes messages.

    ``plugin`` is its name in ``smsgw.plugins``, ``plugin_class`` the class where it is not installed.
    """

    plugin: ClassVar[str]
    plugin_class: ClassVar[type | None] = None

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """The plugin's settings, by their whole names. To be overridden where it has any."""
        return {}

    @pytest.fixture
    def answers(self) -> Sequence[Expectation]:
        """What it should answer: ``(Options(…) or None, identity, message)``. To be given."""
        raise NotImplementedError("override the fixture 'answers'")

    @pytest.fixture
    def candidate(
        self, tmp_path: Path, settings: Mapping[str, str], answers: Sequence[Expectation]
    ) -> Iterator[Candidate]:
        known = users_of(identity for _, identity, _ in answers)
        order = ("users", "allow", self.plugin)
        with candidate_in(tmp_path, self.plugin, self.plugin_class, known | dict(settings), order) as candidate:
            yield candidate

    def answer(self, candidate: Candidate, identity: Identity, message: Message) -> Any:
        """What the plugin alone says; an exception that it raises is its answer."""
        try:
            return candidate.ask(HOOK, identity=identity, message=message)
        except AssertionError:
            raise
        except Exception as error:
            return error

    def test_any_message_has_an_answer(self, candidate: Candidate) -> None:
        for identity, asked in itertools.product(IDENTITIES, MESSAGES):
            answer, what = self.answer(candidate, identity, asked), f"route({asked!r}, {identity!r})"
            demand(not isinstance(answer, Exception), f"{what} raises {answer!r}", HOOK)
            demand(
                answer is None or isinstance(answer, Options),
                f"{what} should be answered Options(…) or None, and is answered {answer!r}",
                HOOK,
            )
            name = answer and stray(answer)
            demand(not name, f"{what} is answered Options whose {name} has a wrong type: {answer!r}", HOOK)

    def test_it_answers_as_it_should(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        demand(answers, "the fixture 'answers' should have a message that the plugin routes", HOOK)
        for expected, identity, asked in answers:
            self._is(candidate, expected, identity, asked, "", HOOK)

    def test_it_remembers_nothing(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        order = list(answers)
        for seed in range(24):
            random.Random(seed).shuffle(order)  # noqa: S311
            for expected, identity, asked in order:
                self._is(candidate, expected, identity, asked, ", after other messages,", HOOK)

    def test_threads(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        def ask(place: int) -> None:
            turn = place % len(answers)
            for _ in range(200):
                for expected, identity, asked in [*answers[turn:], *answers[:turn]]:
                    self._is(candidate, expected, identity, asked, ", asked by several threads,", THREADS)

        for failed in in_threads([partial(ask, place) for place in range(8)], 60):
            if isinstance(failed, BaseException):
                raise failed

    def test_what_it_answers_is_what_goes_out(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        for expected, identity, asked in answers:
            body = {"to": [asked.to], "text": asked.content.text} | _fields(asked.content.options)
            reply = candidate.gateway.call("POST_JSON", V2, body, user=identity.userid, status="*")
            what = f"a message of {identity.userid!r} to {asked.to}"
            demand(reply.status_int == 202, f"{what} is answered {reply.status_int}, and should be sent", HOOK)
            (id,) = (sent["id"] for sent in reply.json["messages"])
            headers = next(found.headers for found in candidate.gateway.messages() if found.id == id)
            queue = (asked.content.options if expected is None else expected).queue
            demand(
                headers.get("Queue") == queue,
                f"{what} should take the queue {queue!r}, and takes {headers.get('Queue')!r}",
                HOOK,
            )

    def _is(
        self,
        candidate: Candidate,
        expected: Options | None,
        identity: Identity,
        asked: Message,
        when: str,
        heading: str,
    ) -> None:
        __tracebackhide__ = True
        answer = self.answer(candidate, identity, asked)
        demand(
            answer == expected,
            f"route({asked!r}, {identity!r}){when} should be answered {expected!r}, and is answered {answer!r}",
            heading,
        )


def _fields(options: Options) -> dict[str, Any]:
    """Those options as v2 has them."""
    fields = {"queue": options.queue, "validity_minutes": options.validity, "report": options.report}
    fields |= {"flash": options.flash, "priority": "high" if options.high_priority else None}
    return {name: value for name, value in fields.items() if value is not None}
