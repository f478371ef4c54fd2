"""What plugins that decide about messages must pass: ``PolicyConformance`` and ``RouteConformance``.

Each is a base class for an author's class of tests, whose fixture ``answers`` says what the plugin should answer.
See docs/plugin-reference.md, "Conformance".
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyramid.security import Allowed, Denied

from smsgw.model import Content, Identity, Message, Options, Submission
from smsgw.options import stray
from smsgw.spool.layout import KINDS
from smsgw.testing.candidate import THREADS, Candidate, Conformance, candidate_in, demand
from smsgw.testing.gateway import OUTGOING, message, stored

V2 = "/api/v2/messages"

Answer = type[Allowed] | type[Denied] | None
Question = tuple[Any, ...]

IDENTITIES = (
    Identity("lvv"),
    Identity("ops", frozenset({"alarms", "night"})),
    Identity("root", frozenset({"*", "", "ä ö"})),
    Identity("no-such-user"),
)
MESSAGES = (
    message(),
    message("112"),
    message("790000000000000", "Привет, 😀\n\0" * 20, "ops", Options("OTHER", True, True, 1440, True)),
    message("1234", "x" * 1000, "", Options(report=False)),
)
STORED = (
    *(stored(kind, owner) for kind in (*KINDS, "cancelled") for owner in ("lvv", "ops", None)),
    stored("incoming", None, "", From="79680000000", Report="bogus"),
)
UNKNOWN = ("", "Send", "send ", "authenticated", "acme-permission", "__class__", "\0")  # permissions of others


def _documented() -> Iterator[Question]:
    for identity in IDENTITIES:
        yield from ((identity, "send", context) for context in MESSAGES)
        yield from ((identity, "submit", Submission(identity, messages)) for messages in (MESSAGES[:1], MESSAGES))
        yield from (
            (identity, permission, context) for permission in ("read", "cancel", "delete") for context in STORED
        )
        yield from ((identity, permission, None) for permission in ("list", "read-all"))


class DecisionConformance(Conformance):
    """What policies and routers have in common: the same question has the same answer, whoever asks, and when."""

    order: ClassVar[Sequence[str]]  # smsgw.plugins; an empty name is that of the plugin under test
    arguments: ClassVar[Sequence[str]]  # of the hook, in the order of a question
    questions: ClassVar[str]  # what is asked about

    @pytest.fixture
    def answers(self) -> Sequence[Question]:
        """What it should answer: the answer, the identity, and what else the question has. To be given.

        ``smsgw.testing.message``, ``smsgw.testing.submission`` and ``smsgw.testing.stored`` make contexts.
        """
        raise NotImplementedError("override the fixture 'answers'")

    @pytest.fixture
    def candidate(
        self, tmp_path: Path, settings: Mapping[str, str], answers: Sequence[Question]
    ) -> Iterator[Candidate]:
        known = users_of(identity for _, identity, *_ in answers)
        order = [name or self.plugin for name in self.order]
        with candidate_in(tmp_path, self.plugin, self.plugin_class, known | dict(settings), order) as candidate:
            yield candidate

    def answer(self, candidate: Candidate, question: Question) -> Any:
        """What the plugin alone says; an exception that it raises is its answer."""
        return candidate.ask(self.hook, **dict(zip(self.arguments, question, strict=True)))

    def asked(self, question: Question) -> str:
        return f"{self.hook}({', '.join(map(repr, question))})"

    def is_right(self, answer: Any, expected: Any) -> bool:
        raise NotImplementedError

    def test_it_answers_as_it_should(self, candidate: Candidate, answers: Sequence[Question]) -> None:
        self.demand(
            any(expected is not None for expected, *_ in answers),
            "the fixture 'answers' should have something that the plugin denies, allows or routes",
        )
        self._all_are_right(candidate, answers, "", self.hook)

    def test_it_remembers_nothing(self, candidate: Candidate, answers: Sequence[Question]) -> None:
        order = list(answers)
        for seed in range(24):
            random.Random(seed).shuffle(order)  # noqa: S311
            self._all_are_right(candidate, order, f", after other {self.questions},", self.hook)

    def test_threads(self, candidate: Candidate, answers: Sequence[Question]) -> None:
        def ask(number: int) -> None:
            turn = number % len(answers)
            for _ in range(200):
                turned = [*answers[turn:], *answers[:turn]]
                self._all_are_right(candidate, turned, ", asked by several threads,", THREADS)

        self.in_eight_threads(ask)

    def _all_are_right(self, candidate: Candidate, answers: Sequence[Question], when: str, heading: str) -> None:
        __tracebackhide__ = True
        for expected, *question in answers:
            answer = self.answer(candidate, tuple(question))
            if not self.is_right(answer, expected):
                wanted = expected.__name__ if isinstance(expected, type) else repr(expected)
                said = f"should be answered {wanted}, and is answered {answer!r}"
                demand(False, f"{self.asked(tuple(question))}{when} {said}", heading)


class PolicyConformance(DecisionConformance):
    """For every permission policy: ``answers`` has ``(Denied, identity, permission, context)``, or ``Allowed``."""

    hook = "permits"
    order = ("users", "", "allow")
    arguments = ("identity", "permission", "context")
    questions = "questions"

    def is_right(self, answer: Any, expected: Answer) -> bool:
        return answer is None if expected is None else isinstance(answer, expected)

    def test_every_documented_question_has_an_answer(self, candidate: Candidate) -> None:
        for question in _documented():
            answer, what = self.answer(candidate, question), self.asked(question)
            self.demand(not isinstance(answer, Exception), f"{what} raises {answer!r}")
            self.demand(
                answer is None or isinstance(answer, Allowed | Denied),
                f"{what} should be answered Allowed(…), Denied(…) or None, and is answered {answer!r}",
            )

    def test_unknown_permissions_are_left_to_others(self, candidate: Candidate) -> None:
        contexts = (None, object(), MESSAGES[0], STORED[0])
        for question in itertools.product(IDENTITIES, UNKNOWN, contexts):
            answer, what = self.answer(candidate, question), self.asked(question)
            said = "which is no permission of smsgw's, should be answered None, and is answered"
            self.demand(answer is None, f"{what}, {said} {answer!r}")

    def test_each_recipient_is_decided_alone(self, candidate: Candidate, answers: Sequence[Question]) -> None:
        """One request to all recipients of ``answers`` that differ in nothing but the number."""
        requests: dict[tuple[str, Content], dict[str, Answer]] = {}
        for expected, identity, permission, context in answers:
            if permission == "send" and isinstance(context, Message):
                requests.setdefault((identity.userid, context.content), {})[context.to] = expected
        for (userid, content), expectations in requests.items():
            denied = {number for number, expected in expectations.items() if expected is Denied}
            for numbers in (list(expectations), list(expectations)[::-1]):
                body = {"mobiles": numbers, "text": content.text} | _fields(content.options, "validity")
                reply = candidate.gateway.call("POST_JSON", OUTGOING, body, user=userid, status="*")
                refused = set(reply.json.get("errors", {}))
                self.demand(
                    refused == denied,
                    f"sent by {userid!r} to {numbers} in one request, {sorted(denied)} should be refused, and"
                    f" {sorted(refused)} are (status {reply.status_int})",
                )


class RouteConformance(DecisionConformance):
    """For every plugin that routes messages: ``answers`` has ``(Options(…) or None, identity, message)``."""

    hook = "route"
    order = ("users", "allow", "")
    arguments = ("identity", "message")
    questions = "messages"

    def is_right(self, answer: Any, expected: Options | None) -> bool:
        return bool(answer == expected)

    def test_any_message_has_an_answer(self, candidate: Candidate) -> None:
        for question in itertools.product(IDENTITIES, MESSAGES):
            answer, what = self.answer(candidate, question), self.asked(question)
            self.demand(not isinstance(answer, Exception), f"{what} raises {answer!r}")
            self.demand(
                answer is None or isinstance(answer, Options),
                f"{what} should be answered Options(…) or None, and is answered {answer!r}",
            )
            name = answer and stray(answer)
            self.demand(not name, f"{what} is answered Options whose {name} has a wrong type: {answer!r}")

    def test_what_it_answers_is_what_goes_out(self, candidate: Candidate, answers: Sequence[Question]) -> None:
        for expected, identity, asked in answers:
            options = asked.content.options
            body = {"to": [asked.to], "text": asked.content.text} | _fields(options, "validity_minutes")
            reply = candidate.gateway.call("POST_JSON", V2, body, user=identity.userid, status="*")
            what = f"a message of {identity.userid!r} to {asked.to}"
            self.demand(reply.status_int == 202, f"{what} is answered {reply.status_int}, and should be sent")
            (id,) = (sent["id"] for sent in reply.json["messages"])
            found = next(found.headers.get("Queue") for found in candidate.gateway.messages() if found.id == id)
            queue = (options if expected is None else expected).queue
            self.demand(found == queue, f"{what} should take the queue {queue!r}, and takes {found!r}")


def users_of(identities: Iterable[Identity]) -> dict[str, str]:
    """Settings of the kit's ``users`` by which all of these can log in."""
    users = {identity.userid: identity.groups for identity in identities}
    groups: dict[str, list[str]] = {}
    for userid, group in ((userid, group) for userid, found in users.items() for group in found):
        groups.setdefault(f"@{group}", []).append(userid)
    known = {"smsgw.users.passwords": _lines(dict.fromkeys(users, "SecretPAss"))}
    if groups:
        known["smsgw.users.groups"] = _lines({name: " ".join(members) for name, members in groups.items()})
    return known


def _lines(words: Mapping[str, str]) -> str:
    return "".join(f"\n{name}: {value}" for name, value in words.items())


def _fields(options: Options, validity: str) -> dict[str, Any]:
    """Those options as an API has them, which calls the validity by that name."""
    fields = {"queue": options.queue, validity: options.validity, "report": options.report}
    fields |= {"flash": options.flash, "priority": "high" if options.high_priority else None}
    return {name: value for name, value in fields.items() if value is not None}
