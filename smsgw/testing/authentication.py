"""What every authentication plugin must pass, and further those whose backend can be down, or slow.

Each ``…Conformance`` is a base class of an author's tests, whose attributes and fixtures say what is tested.
See docs/plugin-reference.md, "Conformance".
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyramid.security import Denied
from webtest import TestApp

from smsgw.model import Credentials, Identity
from smsgw.testing.candidate import THREADS, Candidate, Conformance, candidate_in, demand, in_threads, wrong
from smsgw.testing.gateway import basic, bearer, eventually

HOSTILE = "Hostile input"
OUTAGE = "Backends that are down, or slow"
SECRETS = "Secrets"

REFUSALS = (400, 401, 413, 429)
LONG = "x" * 2**20
FOREIGN = ("Negotiate", "Digest", "basic ", "")  # schemes
ODD_SECRETS = ("", " ", "\0", "*", "%", "' OR '1'='1", "*)(uid=*", "\x1b[2J\r\nroot", "é", "\ud800", "\U0010ffff", LONG)
ODD_USERIDS = ("", " ", "\0", "*", "%", "@alarms", "*)(uid=*", "../lvv", "\x1b[2J\r\nroot", "\ud800", "\u202elvv", LONG)

Start = Callable[[], AbstractContextManager[Candidate]]
Trouble = Callable[[], AbstractContextManager[Any]]


class AuthenticationConformance(Conformance):
    """For every authentication plugin.

    ``schemes`` are those that it answers: ``"Basic"``, ``"Bearer"``, or a word of its own (then override ``headers``).
    """

    hook = "authenticate"
    schemes: ClassVar[Sequence[str]] = ("Basic",)

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        """Two users or more who are let in: the secret, or token, of each userid as it should be spelt. To be given."""
        raise NotImplementedError("override the fixture 'users'")

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """What no log may have beside the users' secrets, such as a password of the plugin's own."""
        return ()

    def headers(self, scheme: str, userid: str, secret: str) -> Mapping[str, str]:
        """How a client shows that in a request."""
        if scheme not in ("Basic", "Bearer"):
            raise NotImplementedError(f"override 'headers', which says how a client shows the scheme {scheme!r}")
        return {"Authorization": basic(userid, secret) if scheme == "Basic" else bearer(secret)}

    # How the checks ask

    @pytest.fixture
    def start(self, tmp_path: Path, settings: Mapping[str, str]) -> Start:
        """Start a gateway whose first plugin is the one under test."""
        number = itertools.count()

        def start() -> AbstractContextManager[Candidate]:
            order = (self.plugin, "behind", "allow")
            return candidate_in(tmp_path / f"gateway{next(number)}", self.plugin, self.plugin_class, settings, order)

        return start

    @pytest.fixture
    def candidate(self, start: Start) -> Iterator[Candidate]:
        with start() as candidate:
            yield candidate

    def answer(self, candidate: Candidate, scheme: str, userid: str, secret: str) -> Any:
        """What the plugin alone says; an exception that it raises is its answer."""
        shown = Credentials(scheme, "" if scheme == "Bearer" else userid, secret, "127.0.0.1")
        return candidate.ask(self.hook, credentials=shown)

    def request(self, candidate: Candidate, scheme: str, userid: str, secret: str) -> Any:
        """The reply of the whole gateway, which tells who was let in; ``None`` for what no client can send."""
        try:
            headers = self.headers(scheme, userid, secret)
            fields = {name: value.encode().decode("iso-8859-1") for name, value in headers.items()}  # as WSGI has them
        except UnicodeEncodeError:
            return None
        if any(set(map(chr, range(32))) & set(value) for value in fields.values()):
            return None
        return TestApp(candidate.gateway.app.app).get("/who", headers=fields, status="*")

    def each(self, users: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        self.demand(
            len(set(users.values())) > 1, "the fixture 'users' should have two users, or more, of other secrets"
        )
        self.demand(
            all(len(secret) >= 6 for secret in users.values()),
            "the secrets of the fixture 'users' should have 6 characters, or more, to be told from other words",
        )
        for scheme in self.schemes:
            for userid, secret in users.items():
                yield scheme, userid, secret

    # The checks

    def test_users_are_let_in(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            for _ in range(2):
                reply = self.request(candidate, scheme, userid, secret)
                self.demand(
                    reply.status_int == 200,
                    f"{userid!r} with the right {scheme} secret is answered {reply.status_int}, not let in",
                )
                self.demand(reply.json["userid"] == userid, f"{userid!r} was let in as {reply.json['userid']!r}")
            groups = getattr(self.answer(candidate, scheme, userid, secret), "groups", None)
            self.demand(
                groups is not None and all(group and not group.startswith("@") for group in groups),
                f"the groups of {userid!r} should be names without '@', and are {groups!r}",
            )

    def test_wrong_secrets_are_refused(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            others = [other for other in users.values() if other != secret] if scheme == "Basic" else []
            for shown in ("", *_near(secret), *others):
                self._refused(candidate, scheme, userid, shown, f"a wrong {scheme} secret of {userid!r}")

    def test_strangers_are_refused(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            stranger = f"no-{userid}"
            shown = secret if scheme != "Bearer" else secret[::-1]
            self._refused(candidate, scheme, stranger, shown, f"an unknown user with a {scheme} secret")

    def test_a_refusal_names_the_schemes(self, candidate: Candidate) -> None:
        asked = TestApp(candidate.gateway.app.app).get("/who", status=401).headers["WWW-Authenticate"]
        for scheme in {"Basic", "Bearer"}.intersection(self.schemes):
            self.demand(
                f"{scheme} realm" in asked,
                f"a 401 asks for {asked!r}, and not for {scheme}; give the plugin an attribute 'schemes'",
            )

    def test_other_schemes_are_left_to_others(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        others = {"Basic", "Bearer", *FOREIGN} - set(self.schemes)
        for _, userid, secret in self.each(users):
            for scheme in others:
                for name in (userid, ""):
                    answer = self.answer(candidate, scheme, name, secret)
                    self.demand(
                        answer is None,
                        f"credentials of the scheme {scheme!r}, which is not the plugin's, should be answered None, and"
                        f" are answered {_kind(answer)}",
                    )

    def test_hostile_secrets(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            for odd in (*ODD_SECRETS, secret + "\0", "\0" + secret, secret + "\0x", secret * 1000):
                what = f"the {scheme} secret {odd[:20]!r} ({len(odd)} characters) of {userid!r}"
                self._refused(candidate, scheme, userid, odd, what, HOSTILE)
            self._still_let_in(candidate, scheme, userid, secret)

    def test_hostile_userids(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            if scheme == "Bearer":
                continue
            near = (f"{userid}*", f"{userid[:1]}*", f"{userid[:-1]}?", f"{userid}%", f"{userid}\0", f"{userid}\0x")
            injected = (f"{userid})(uid=*", f"{userid},dc=x", f"uid={userid}", f"{userid}' --", f"{userid}\n{userid}")
            for odd in (*ODD_USERIDS, *near, *injected):
                what = f"the userid {odd[:20]!r} ({len(odd)} characters) with the secret of {userid!r}"
                self._refused(candidate, scheme, odd, secret, what, HOSTILE)
            self._still_let_in(candidate, scheme, userid, secret)

    def test_a_user_has_one_spelling(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        for scheme, userid, secret in self.each(users):
            for spelling in _spellings(userid) if scheme != "Bearer" else ():
                answer = self.answer(candidate, scheme, spelling, secret)
                is_answer = answer is None or isinstance(answer, Denied | Identity)
                demand(is_answer, f"the userid {spelling!r} is answered {_kind(answer)}", HOSTILE)
                self.demand(
                    getattr(answer, "userid", userid) == userid,
                    f"{userid!r}, spelt {spelling!r}, is let in as another user; either refuse, or answer {userid!r}",
                )

    def test_threads(self, candidate: Candidate, users: Mapping[str, str]) -> None:
        def ask(scheme: str, userid: str, secret: str, bad: str) -> list[tuple[str, Any]]:
            found = []
            for _ in range(10):
                found.append((userid, self.answer(candidate, scheme, userid, secret)))
                found.append(("", self.answer(candidate, scheme, userid, bad)))
            return found

        shown = list(self.each(users))
        jobs = [partial(ask, *shown[place % len(shown)], f"wrong-{place}") for place in range(max(8, len(shown)))]
        for found in in_threads(jobs, 60):
            demand(isinstance(found, list), f"eight threads that ask at once get no answer: {found!r}", THREADS)
            for userid, answer in found if isinstance(found, list) else ():
                is_in = isinstance(answer, Identity)
                if userid:
                    said = answer.userid if is_in else _kind(answer)
                    demand(said == userid, f"asked by several threads, {userid!r} was answered {said}", THREADS)
                else:
                    demand(not is_in, f"asked by several threads, a wrong secret was answered {answer!r}", THREADS)

    def test_secrets_are_told_to_nobody(
        self,
        candidate: Candidate,
        users: Mapping[str, str],
        secrets: Sequence[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Neither the log nor a reply nor a repr has a secret in it, whoever asks."""
        for scheme, userid, secret in self.each(users):
            shown = (secret, f"{secret}Wr0ng")
            with caplog.at_level(logging.DEBUG):
                replies = [self.request(candidate, scheme, userid, word) for word in shown]
            fields = [field for word in shown for field in self.headers(scheme, userid, word).values()]
            told = {
                "the log": caplog.text,
                "a reply": "".join(f"{reply.headers} {reply.text}" for reply in replies),
                "the plugin's repr": repr(candidate.plugin),
            }
            words = {*users.values(), *secrets, *(field.rpartition(" ")[2] for field in fields)} - {"", userid}
            for where, text in told.items():
                said = f"{where} has a secret in it, that of {userid!r} or one beside it"
                demand(not any(word in text for word in words), said, SECRETS)

    # What the checks have in common

    def _refused(
        self, candidate: Candidate, scheme: str, userid: str, secret: str, what: str, heading: str = "authenticate"
    ) -> None:
        __tracebackhide__ = True
        answer = self.answer(candidate, scheme, userid, secret)
        demand(not isinstance(answer, Identity), f"{what} lets in {answer!r}", heading)
        demand(answer is None or isinstance(answer, Denied), f"{what} is answered {_kind(answer)}", heading)
        reply = self.request(candidate, scheme, userid, secret)
        if reply is not None:
            demand(reply.status_int in REFUSALS, f"{what} is answered with status {reply.status_int}", heading)

    def _still_let_in(self, candidate: Candidate, scheme: str, userid: str, secret: str) -> None:
        __tracebackhide__ = True
        status = self.request(candidate, scheme, userid, secret).status_int
        demand(status == 200, f"after hostile input, {userid!r} is answered {status}, and was let in before", HOSTILE)


class OutageConformance(AuthenticationConformance):
    """Further, for a plugin with a backend that can be down. Gives the fixture ``broken``.

    Where a plugin demands its backend for its start, as a file, set ``test_it_starts_while_the_backend_is_down`` to
    ``None`` in the class of tests.
    """

    @pytest.fixture
    def broken(self) -> Trouble:
        """Called, it returns a context manager within whose block the backend is down. To be given."""
        raise NotImplementedError("override the fixture 'broken'")

    def test_a_backend_that_is_down(self, start: Start, users: Mapping[str, str], broken: Trouble) -> None:
        for scheme, userid, secret in self.each(users):
            with start() as candidate, broken():
                reply, when = self.request(candidate, scheme, userid, secret), "while the backend is down"
                said = "should be answered 503 (raise smsgw.model.Unavailable), and is answered"
                demand(reply.status_int == 503, f"{when}, {userid!r} {said} {reply.status_int}", OUTAGE)
                seconds = reply.headers.get("Retry-After", "")
                is_number = seconds.isdigit() and int(seconds) > 0
                demand(is_number, f"{when}, the reply's Retry-After should be seconds, and is {seconds!r}", OUTAGE)
                demand(not candidate.behind.asked, f"{when}, the next plugin is asked; it should not be", OUTAGE)

    def test_wrong_secrets_while_it_is_down(self, start: Start, users: Mapping[str, str], broken: Trouble) -> None:
        for scheme, userid, secret in self.each(users):
            with start() as candidate:
                self.request(candidate, scheme, userid, secret)  # which a plugin may remember
                with broken():
                    for shown in ("", *_near(secret)):
                        what = f"while the backend is down, a wrong {scheme} secret"
                        answer = self.answer(candidate, scheme, userid, shown)
                        demand(not isinstance(answer, Identity), f"{what} lets in {answer!r}", OUTAGE)
                        status = self.request(candidate, scheme, userid, shown).status_int
                        demand(status in (503, *REFUSALS), f"{what} is answered with status {status}", OUTAGE)

    def test_it_recovers(self, candidate: Candidate, users: Mapping[str, str], broken: Trouble) -> None:
        scheme, userid, secret = next(self.each(users))
        with broken():
            self.request(candidate, scheme, userid, secret)
        self._comes_back(candidate, scheme, userid, secret)

    def test_it_starts_while_the_backend_is_down(self, start: Start, users: Mapping[str, str], broken: Trouble) -> None:
        scheme, userid, secret = next(self.each(users))
        with contextlib.ExitStack() as started:
            with broken():
                try:
                    candidate = started.enter_context(start())
                except SystemExit:
                    sentence = "the gateway does not start while the backend is down; ask it when a request needs it"
                    raise AssertionError(wrong(sentence, OUTAGE)) from None
            self._comes_back(candidate, scheme, userid, secret)

    def test_secrets_are_told_to_nobody_while_it_is_down(
        self,
        candidate: Candidate,
        users: Mapping[str, str],
        secrets: Sequence[str],
        caplog: pytest.LogCaptureFixture,
        broken: Trouble,
    ) -> None:
        with broken():
            self.test_secrets_are_told_to_nobody(candidate, users, secrets, caplog)

    def _comes_back(self, candidate: Candidate, scheme: str, userid: str, secret: str) -> None:
        __tracebackhide__ = True

        def status() -> int:
            return int(self.request(candidate, scheme, userid, secret).status_int)

        with contextlib.suppress(AssertionError):
            eventually(lambda: status() == 200)
        last = status()
        demand(last == 200, f"10 seconds after the backend is back in service, {userid!r} is answered {last}", OUTAGE)


class DelayConformance(AuthenticationConformance):
    """Further, for a plugin with a backend that can be slow. Gives the fixture ``slow``.

    ``patience`` is in how many seconds every request is answered, whatever the backend does; have the settings name a
    timeout that is shorter.
    """

    patience: ClassVar[float] = 10.0

    @pytest.fixture
    def slow(self) -> Trouble:
        """Called, it returns a context manager within whose block the backend is silent. To be given."""
        raise NotImplementedError("override the fixture 'slow'")

    def test_a_backend_that_is_slow(self, start: Start, users: Mapping[str, str], slow: Trouble) -> None:
        scheme, userid, secret = next(self.each(users))
        with start() as candidate, slow():
            (reply,) = in_threads([partial(self.request, candidate, scheme, userid, secret)], self.patience)
            self._answered(candidate, [reply])

    def test_several_wait_no_longer_than_one(self, start: Start, users: Mapping[str, str], slow: Trouble) -> None:
        shown = list(self.each(users))
        with start() as candidate, slow():
            jobs = [partial(self.request, candidate, *shown[place % len(shown)]) for place in range(8)]
            self._answered(candidate, in_threads(jobs, self.patience))

    def _answered(self, candidate: Candidate, replies: Sequence[Any]) -> None:
        __tracebackhide__ = True
        for reply in replies:
            asked = ", when several ask at once" if len(replies) > 1 else ""
            late = f"while the backend is slow, there is no answer within {self.patience} seconds{asked}"
            demand(reply is not None, late, OUTAGE)
            status = getattr(reply, "status_int", repr(reply))
            said = "while the backend is silent, a request should be answered 503, and is answered"
            demand(status == 503, f"{said} {status}", OUTAGE)
        demand(not candidate.behind.asked, "while the backend is slow, the next plugin is asked", OUTAGE)


def _near(secret: str) -> list[str]:
    """Secrets that are nearly that one."""
    near = (secret + "x", "x" + secret, secret[:-1], secret.swapcase(), secret[::-1], secret + secret)
    return [other for other in near if other != secret]


def _spellings(userid: str) -> list[str]:
    """That userid as a directory may read it, or a person mistype it."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in userid)
    lookalikes = userid.translate(str.maketrans("skSK", "ſKſK"))
    found = (
        *(userid.upper(), userid.lower(), userid.title(), userid.swapcase()),
        *(f" {userid}", f"{userid} ", f"\u00a0{userid}", f"{userid}\u200b", f"{userid}\u00ad"),
        *(wide, lookalikes, unicodedata.normalize("NFD", userid)),
    )
    return [spelling for spelling in dict.fromkeys(found) if spelling != userid]


def _kind(answer: object) -> str:
    """An answer in a word or two; an exception's message may have a secret in it."""
    if isinstance(answer, BaseException):
        return f"with the exception {type(answer).__name__}"
    if isinstance(answer, Denied):
        return "Denied"
    return repr(answer)
