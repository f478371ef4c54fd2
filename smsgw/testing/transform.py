"""What every text transform must pass: ``TransformConformance``, a base class for an author's class of tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smsgw.model import Identity, TextRefused
from smsgw.testing.candidate import THREADS, Candidate, Conformance, candidate_in, demand
from smsgw.testing.gateway import GROUPS, OUTGOING, USERS
from smsgw.text import BASIC, EXTENSION, measure

TEXTS = (
    *("Hi, Jack!", "a", " ", "\n", "\t", "\0", "\r\n", "0", "%", "%s {} {0} $x ${x}", "\\", "#", ";", "<&>'\""),
    *("Привет, Джек!", "“Hi” – it’s ‘me’…", "naïve € ¤ ß ẞ", "ﬁ ﬂ Å Å é é", "ʼn ǆ ŉ İ ı"),
    *("😀", "👩‍👩‍👧‍👦🇷🇺", "שלום", "مرحبا", "你好", "\u200b", "\u202e", "\ufeff", "\u00a0", "\U0010ffff", "\ue000"),
    *(BASIC, EXTENSION, "a" * 160, "a" * 161, "Ж" * 70, "Ж" * 71, "€" * 81, "a " * 700, "Ж" * 670, "…" * 70),
)

Check = Callable[[str], None]


class TransformConformance(Conformance):
    """For every text transform. ``TextRefused`` is an answer that it may give to any text.

    ``identities`` are asked for in turn.
    """

    hook = "transform"
    identities: ClassVar[Sequence[Identity]] = tuple(
        Identity(userid, frozenset(name.removeprefix("@") for name, users in GROUPS.items() if userid in users.split()))
        for userid in USERS
    )

    def most_parts(self, text: str) -> int:
        """How many parts that text may have afterwards: as many as before. To be overridden where it becomes longer."""
        return measure(text).parts

    @pytest.fixture
    def candidate(self, tmp_path: Path, settings: Mapping[str, str]) -> Iterator[Candidate]:
        order = ("users", "allow", self.plugin)
        with candidate_in(tmp_path, self.plugin, self.plugin_class, settings, order) as candidate:
            yield candidate

    def answer(self, candidate: Candidate, text: str, identity: Identity) -> Any:
        """What the plugin alone makes of a text; an exception that it raises is its answer."""
        return candidate.ask(self.hook, text=text, identity=identity)

    def test_text_in_text_out(self, candidate: Candidate) -> None:
        def check(text: str) -> None:
            for identity in self.identities:
                answer = self.answer(candidate, text, identity)
                if isinstance(answer, TextRefused):
                    self.demand(answer.reason.strip(), f"{text[:50]!r} is refused without a reason")
                    continue
                what = f"{text[:50]!r} ({len(text)} characters) of {identity.userid!r}"
                self.demand(not isinstance(answer, Exception), f"{what} raises {answer!r}")
                self.demand(isinstance(answer, str), f"{what} should become a str, and becomes {answer!r}")
                self.demand(answer != "", f"{what} becomes empty; leave it, or raise TextRefused")
                lone = any("\ud800" <= character <= "\udfff" for character in answer)
                self.demand(not lone, f"{what} becomes half of a surrogate pair: it was cut within a character")

        _for_any_text(check)

    def test_it_costs_no_more(self, candidate: Candidate) -> None:
        def check(text: str) -> None:
            for identity in self.identities:
                answer = self.answer(candidate, text, identity)
                if isinstance(answer, str):
                    parts, most = measure(answer).parts, self.most_parts(text)
                    self.demand(
                        parts <= most,
                        f"{text[:50]!r} ({len(text)} characters) becomes {parts} parts, over {most}; override"
                        " most_parts where that is as it should be",
                    )

        _for_any_text(check)

    def test_it_remembers_nothing(self, candidate: Candidate) -> None:
        asked = [(text, identity) for text in TEXTS for identity in self.identities]
        first = {question: _said(self.answer(candidate, *question)) for question in asked}
        for seed in range(3):
            random.Random(seed).shuffle(asked)  # noqa: S311
            for question in asked:
                again = _said(self.answer(candidate, *question))
                self.demand(
                    again == first[question],
                    f"{question[0][:50]!r} became {first[question][:50]!r}, and after other texts {again[:50]!r}",
                )

    def test_threads(self, candidate: Candidate) -> None:
        texts = [text for text in TEXTS if len(text) < 100]
        asked = [(text, identity) for text in texts for identity in self.identities]
        alone = {question: _said(self.answer(candidate, *question)) for question in asked}

        def ask(place: int) -> None:
            for question in 10 * (asked[place:] + asked[:place]):
                found = _said(self.answer(candidate, *question))
                demand(
                    found == alone[question],
                    f"{question[0]!r} becomes {alone[question]!r}, and {found[:50]!r} while other threads ask",
                    THREADS,
                )

        self.in_eight_threads(ask)

    def test_what_it_makes_is_what_goes_out(self, candidate: Candidate) -> None:
        users = {identity.userid: identity for identity in self.identities if identity.userid in USERS}
        for text in TEXTS:
            for userid, identity in users.items():
                body = {"mobiles": ["79680000000"], "text": text}
                reply = candidate.gateway.call("POST_JSON", OUTGOING, body, user=userid, status="*")
                status, what = reply.status_int, f"a message with the text {text[:50]!r} ({len(text)} characters)"
                self.demand(status in (201, 400), f"{what} is answered {status}, and should be sent, or refused (400)")
                if status == 201:
                    made, sent = self.answer(candidate, text, identity), reply.json["sent_text"]
                    self.demand(made == sent, f"{what} goes out as {sent[:50]!r}, and asked again, {made!r} was made")


def _for_any_text(check: Check) -> None:
    """``TEXTS``, and where Hypothesis is installed, many more."""
    for text in TEXTS:
        check(text)
    try:
        import hypothesis
        from hypothesis import strategies
    except ModuleNotFoundError:
        return
    texts = strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=1)
    quiet = hypothesis.settings(deadline=None, database=None, max_examples=100)
    quiet(hypothesis.given(texts)(check))()


def _said(answer: Any) -> str:
    return answer if isinstance(answer, str) else repr(answer)
