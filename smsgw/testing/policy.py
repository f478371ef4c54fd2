"""What every permission policy must stand: ``PolicyConformance``, a base class for an author's class of tests.

class TestCheap(PolicyConformance):
    plugin = "cheap"

    @pytest.fixture
    def answers(self):
        return [
            (Denied, Identity("lvv"), "send", message("112")),
            (None, Identity("lvv"), "send", message("79680000000")),
        ]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyramid.security import Allowed, Denied

from smsgw.model import Content, Identity, Message, Options, Submission
from smsgw.spool.layout import KINDS
from smsgw.testing.candidate import Candidate, candidate_in, demand, in_threads
from smsgw.testing.gateway import OUTGOING, message, stored

HOOK = "permits"
THREADS = "Threads and processes"

Answer = type[Allowed] | type[Denied] | None
Question = tuple[Identity, str, object]
Expectation = tuple[Answer, Identity, str, object]

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


class PolicyConformance:
    """For every permission policy.

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
        """What it should answer: ``(Denied, identity, permission, context)``, or ``Allowed``, or ``None``. To be given.

        ``smsgw.testing.message``, ``smsgw.testing.submission`` and ``smsgw.testing.stored`` make contexts.
        """
        raise NotImplementedError("override the fixture 'answers'")

    @pytest.fixture
    def candidate(
        self,
        tmp_path: Path,
        settings: Mapping[str, str],
        answers: Sequence[Expectation],
    ) -> Iterator[Candidate]:
        known = users_of(identity for _, identity, _, _ in answers)
        order = ("users", self.plugin, "allow")
        with candidate_in(tmp_path, self.plugin, self.plugin_class, known | dict(settings), order) as candidate:
            yield candidate

    def answer(self, candidate: Candidate, question: Question) -> Any:
        """What the plugin alone says; an exception that it raises is its answer."""
        identity, permission, context = question
        try:
            return candidate.ask(HOOK, identity=identity, permission=permission, context=context)
        except AssertionError:
            raise
        except Exception as error:
            return error

    def test_every_documented_question_has_an_answer(self, candidate: Candidate) -> None:
        for question in _documented():
            answer = self.answer(candidate, question)
            demand(not isinstance(answer, Exception), f"{_asked(question)} raises {answer!r}", HOOK)
            demand(
                answer is None or isinstance(answer, Allowed | Denied),
                f"{_asked(question)} should be answered Allowed(…), Denied(…) or None, and is answered {answer!r}",
                HOOK,
            )

    def test_unknown_permissions_are_left_to_others(self, candidate: Candidate) -> None:
        for identity, permission in itertools.product(IDENTITIES, UNKNOWN):
            for context in (None, object(), MESSAGES[0], STORED[0]):
                question = (identity, permission, context)
                answer = self.answer(candidate, question)
                demand(
                    answer is None,
                    f"{_asked(question)}, which is no permission of smsgw's, should be answered None, and is answered"
                    f" {answer!r}",
                    HOOK,
                )

    def test_it_answers_as_it_should(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        demand(
            any(expected is not None for expected, *_ in answers),
            "the fixture 'answers' should have something that the policy denies, or allows",
            HOOK,
        )
        for expected, *question in answers:
            self._is(candidate, expected, tuple(question), "", HOOK)

    def test_it_remembers_nothing(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        for order in itertools.islice(itertools.permutations(answers), 24):
            for expected, *question in order:
                self._is(candidate, expected, tuple(question), ", after other questions,", HOOK)

    def test_threads(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        def ask(place: int) -> None:
            turn = place % len(answers)
            for _ in range(200):
                for expected, *question in [*answers[turn:], *answers[:turn]]:
                    self._is(candidate, expected, tuple(question), ", asked by several threads,", THREADS)

        for failed in in_threads([partial(ask, place) for place in range(8)], 60):
            if isinstance(failed, BaseException):
                raise failed

    def test_each_recipient_is_decided_alone(self, candidate: Candidate, answers: Sequence[Expectation]) -> None:
        """One request to all recipients of ``answers`` that differ in nothing but the number."""
        requests: dict[tuple[str, Content], dict[str, Answer]] = {}
        for expected, identity, permission, context in answers:
            if permission == "send" and isinstance(context, Message):
                requests.setdefault((identity.userid, context.content), {})[context.to] = expected
        for (userid, content), expectations in requests.items():
            for numbers in (list(expectations), list(expectations)[::-1]):
                body = {"mobiles": numbers, "text": content.text} | _fields(content.options)
                reply = candidate.gateway.call("POST_JSON", OUTGOING, body, user=userid, status="*")
                denied = {number for number in numbers if expectations[number] is Denied}
                demand(
                    set(reply.json.get("errors", {})) == denied,
                    f"sent by {userid!r} to {numbers} in one request, {sorted(denied)} should be refused, and"
                    f" {sorted(reply.json.get('errors', {}))} are (status {reply.status_int})",
                    HOOK,
                )

    def _is(self, candidate: Candidate, expected: Answer, question: tuple[Any, ...], when: str, heading: str) -> None:
        __tracebackhide__ = True
        answer = self.answer(candidate, question)
        demand(
            answer is None if expected is None else isinstance(answer, expected),
            f"{_asked(question)}{when} should be answered {expected and expected.__name__}, and is answered {answer!r}",
            heading,
        )


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


def _asked(question: tuple[Any, ...]) -> str:
    identity, permission, context = question
    return f"permits({identity!r}, {permission!r}, {context!r})"


def _lines(words: Mapping[str, str]) -> str:
    return "".join(f"\n{name}: {value}" for name, value in words.items())


def _fields(options: Options) -> dict[str, Any]:
    """Those options as v1.0 has them."""
    fields = {"queue": options.queue, "validity": options.validity, "report": options.report}
    fields |= {"flash": options.flash, "priority": "high" if options.high_priority else None}
    return {name: value for name, value in fields.items() if value is not None}
