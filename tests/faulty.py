"""Plugins with one fault each, and the check of the kit that must find it; run by ``test_testing.py``."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.security import Allowed, Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity, Message, Options, TextRefused, Unavailable
from smsgw.testing import (
    USERS,
    DelayConformance,
    OutageConformance,
    PolicyConformance,
    RouteConformance,
    TransformConformance,
    message,
    stored,
)

TIMEOUT = 0.3  # seconds for which plugins wait for their backend

log = logging.getLogger("acme")


@dataclass(frozen=True)
class Fault:
    """In the class of tests named ``subject``, ``check`` fails, and says ``words``."""

    subject: str
    check: str
    words: str


SOUND: list[str] = []
FAULTS: list[Fault] = []


def sound(base: type) -> Callable[[type], type]:
    """A plugin that stands all checks of that class."""

    def register(plugin_class: type) -> type:
        SOUND.append(_subject(base, plugin_class))
        return plugin_class

    return register


def fault(base: type, check: str, words: str) -> Callable[[type], type]:
    def register(plugin_class: type) -> type:
        FAULTS.append(Fault(_subject(base, plugin_class), check, words))
        return plugin_class

    return register


def _subject(base: type, plugin_class: type) -> str:
    name = f"Test{base.__name__}Of{plugin_class.__name__}"
    globals()[name] = type(name, (base,), {"plugin": "subject", "plugin_class": plugin_class})
    return name


# Authentication


@dataclass
class Directory:
    """A backend that can be down, or silent until it is let go."""

    is_down: bool = False
    silence: threading.Event | None = None

    def users(self, timeout: float | None) -> Mapping[str, str]:
        if self.is_down:
            raise OSError("connection refused")
        silence = self.silence
        if silence is not None and not silence.wait(timeout):
            raise TimeoutError("no answer")
        return USERS

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self.is_down = True
        try:
            yield
        finally:
            self.is_down = False

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        silence = self.silence = threading.Event()
        try:
            yield
        finally:
            self.silence = None
            silence.set()


DIRECTORY = Directory()


class Authentication(OutageConformance, DelayConformance):
    patience = 2.0

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        return USERS

    @pytest.fixture
    def broken(self) -> Any:
        return DIRECTORY.stopped

    @pytest.fixture
    def slow(self) -> Any:
        return DIRECTORY.hanging


@sound(Authentication)
class Sound:
    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        if credentials.scheme != "Basic":
            return None
        try:
            users = DIRECTORY.users(TIMEOUT)
        except OSError as error:
            raise Unavailable("The directory is out of service", 5) from error
        return self.judge(credentials, users)

    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        if credentials.userid not in users:
            return None
        return self.let_in(credentials) if users[credentials.userid] == credentials.secret else Denied("wrong password")

    def let_in(self, credentials: Credentials) -> Any:
        return Identity(credentials.userid)


@sound(Authentication)
class Pyramidic(Sound):
    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        try:
            return super().authenticate(credentials)
        except Unavailable:
            raise HTTPServiceUnavailable("The directory is out of service") from None


@fault(Authentication, "test_users_are_let_in", "let in as 'LVV'")
class Shouting(Sound):
    def let_in(self, credentials: Credentials) -> Any:
        return Identity(credentials.userid.upper())


@fault(Authentication, "test_users_are_let_in", "is answered 401, not let in")
class NoIdentity(Sound):
    def let_in(self, credentials: Credentials) -> Any:
        return credentials.userid


@fault(Authentication, "test_users_are_let_in", "without '@'")
class GroupsWithSigns(Sound):
    def let_in(self, credentials: Credentials) -> Any:
        return Identity(credentials.userid, frozenset({"@alarms"}))


@fault(Authentication, "test_users_are_let_in", "is answered 500, not let in")
class OneGroup(Sound):
    def let_in(self, credentials: Credentials) -> Any:
        return Identity(credentials.userid, "alarms")  # type: ignore[arg-type]


@fault(Authentication, "test_wrong_secrets_are_refused", "a wrong Basic secret of 'lvv' lets in")
class AnyCase(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        right = users.get(credentials.userid, "").casefold() == credentials.secret.casefold() != ""
        return self.let_in(credentials) if right else None


@fault(Authentication, "test_wrong_secrets_are_refused", "a wrong Basic secret of 'lvv' lets in")
class EmptyBinds(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        return super().judge(credentials, users) if credentials.secret else self.let_in(credentials)


@fault(Authentication, "test_strangers_are_refused", "an unknown user with a Basic secret lets in")
class AnySecret(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        return self.let_in(credentials) if credentials.secret in users.values() else None


@fault(Authentication, "test_a_refusal_names_the_schemes", "and not for Basic; give the plugin an attribute")
class Unnamed(Sound):
    schemes = ("Bearer",)


@fault(Authentication, "test_other_schemes_are_left_to_others", "should be answered None")
class AnyScheme(Sound):
    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        return self.judge(credentials, USERS)


@fault(Authentication, "test_other_schemes_are_left_to_others", "are answered Denied")
class Jealous(Sound):
    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        return super().authenticate(credentials) if credentials.scheme == "Basic" else Denied("no password")


@fault(Authentication, "test_hostile_secrets", "is answered with the exception UnicodeEncodeError")
class Encoding(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        credentials.secret.encode()
        return super().judge(credentials, users)


@fault(Authentication, "test_hostile_secrets", "lets in")
class Terminated(Sound):
    """As a library in C."""

    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        is_right = users.get(credentials.userid) == credentials.secret.partition("\0")[0]
        return self.let_in(credentials) if is_right else None


@fault(Authentication, "test_hostile_secrets", "after hostile input, 'lvv' is answered 500")
class Exhausted(Sound):
    budget = 14

    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        answer = super().judge(credentials, users)
        self.budget -= isinstance(answer, Denied)
        if isinstance(answer, Identity) and self.budget < 0:
            raise MemoryError
        return answer


@fault(Authentication, "test_hostile_userids", "lets in Identity")
class Wildcards(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        found = fnmatch.filter(users, credentials.userid)
        return Identity(found[0]) if found and users[found[0]] == credentials.secret else None


@fault(Authentication, "test_hostile_userids", "is answered with the exception ValueError")
class Filters(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        if "(" in credentials.userid:
            raise ValueError("malformed filter")
        return super().judge(credentials, users)


@fault(Authentication, "test_a_user_has_one_spelling", "is let in as another user")
class Spellings(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        right = users.get(credentials.userid.casefold()) == credentials.secret
        return self.let_in(credentials) if right else None


@fault(Authentication, "test_a_user_has_one_spelling", "with the exception UnicodeEncodeError")
class PlainAscii(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        credentials.userid.encode("ascii")
        return super().judge(credentials, users)


@fault(Authentication, "test_threads", "asked by several threads")
class Shared(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        self.asking = credentials
        time.sleep(0.001)
        return super().judge(self.asking, users)


@fault(Authentication, "test_threads", "a wrong secret was answered Identity")
class Verdict(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        right = self.right = users.get(credentials.userid) == credentials.secret
        time.sleep(0.001)
        return self.let_in(credentials) if right or self.right else None


@fault(Authentication, "test_secrets_are_told_to_nobody", "the log has a secret in it")
class Chatty(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        log.debug("asked for %s:%s", credentials.userid, credentials.secret)
        return super().judge(credentials, users)


@dataclass(repr=True)
class Remembers(Sound):
    cache: list[str] = field(default_factory=list)

    def let_in(self, credentials: Credentials) -> Any:
        self.cache.append(credentials.secret)
        return super().let_in(credentials)


fault(Authentication, "test_secrets_are_told_to_nobody", "the plugin's repr has a secret in it")(Remembers)


@fault(Authentication, "test_secrets_are_told_to_nobody", "a reply has a secret in it")
class Telling(Sound):
    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        raise HTTPServiceUnavailable(f"bind failed for {credentials.secret}")


class Lenient(Sound):
    """``meanwhile`` answers while the backend is in trouble."""

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        try:
            return super().authenticate(credentials)
        except Unavailable:
            return self.meanwhile(credentials)

    def meanwhile(self, credentials: Credentials) -> Any:
        raise NotImplementedError


@fault(Authentication, "test_a_backend_that_is_down", "should be answered 503 (raise smsgw.model.Unavailable)")
class GivesUp(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        return None


@fault(Authentication, "test_a_backend_that_is_down", "and is answered 200")
class FailsOpen(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        return self.let_in(credentials)


@fault(Authentication, "test_a_backend_that_is_down", "and is answered 500")
class Lets(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        raise ConnectionError("refused")


@fault(Authentication, "test_a_backend_that_is_down", "the reply's Retry-After should be seconds")
class Never(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        raise HTTPServiceUnavailable("down", headers=[("Retry-After", "soon")])


@fault(Authentication, "test_wrong_secrets_while_it_is_down", "while the backend is down, a wrong Basic secret lets in")
class ForgetsTheSecret(Lenient):
    def __init__(self) -> None:
        self.verified: set[str] = set()

    def let_in(self, credentials: Credentials) -> Any:
        self.verified.add(credentials.userid)
        return super().let_in(credentials)

    def meanwhile(self, credentials: Credentials) -> Any:
        if credentials.userid in self.verified:
            return super().let_in(credentials)
        raise Unavailable("down")


@fault(Authentication, "test_wrong_secrets_while_it_is_down", "is answered with status 500")
class Raises(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        raise KeyError(credentials.userid)


@fault(Authentication, "test_it_recovers", "10 seconds after the backend is back in service")
class Resentful(Lenient):
    is_broken = False

    def judge(self, credentials: Credentials, users: Mapping[str, str]) -> Any:
        if self.is_broken:
            raise Unavailable("down")
        return super().judge(credentials, users)

    def meanwhile(self, credentials: Credentials) -> Any:
        self.is_broken = True
        raise Unavailable("down")


@fault(Authentication, "test_it_starts_while_the_backend_is_down", "does not start while the backend is down")
class Eager(Sound):
    def __init__(self) -> None:
        DIRECTORY.users(TIMEOUT)


@fault(Authentication, "test_secrets_are_told_to_nobody_while_it_is_down", "the log has a secret in it")
class Explains(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        raise Unavailable("The directory is out of service") from OSError(f"GET /?password={credentials.secret}")


@fault(Authentication, "test_a_backend_that_is_slow", "no answer within 2.0 seconds")
class Patient(Sound):
    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        return self.judge(credentials, DIRECTORY.users(None))


@fault(Authentication, "test_a_backend_that_is_slow", "is answered 401")
class Hasty(Lenient):
    def meanwhile(self, credentials: Credentials) -> Any:
        return None


@fault(Authentication, "test_several_wait_no_longer_than_one", "when several ask at once")
class OneByOne(Sound):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Any:
        with self.lock:
            return super().authenticate(credentials)


# Policies

LVV, OPS = Identity("lvv"), Identity("ops", frozenset({"alarms"}))


class Policy(PolicyConformance):
    @pytest.fixture
    def answers(self) -> Sequence[Any]:
        return [
            (Denied, LVV, "send", message("112")),
            (None, LVV, "send", message("79680000000")),
            (None, OPS, "send", message("112")),
            (Allowed, OPS, "read", stored(owner="lvv")),
        ]


@sound(Policy)
class Cheap:
    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Any:
        if permission == "send" and isinstance(context, Message):
            return self.may_send(identity, context)
        return self.otherwise(identity, permission, context)

    def may_send(self, identity: Identity, context: Message) -> Any:
        return Denied("short numbers cost extra") if len(context.to) < 5 and identity.userid == "lvv" else None

    def otherwise(self, identity: Identity, permission: str, context: Any) -> Any:
        return Allowed("alarms read all") if permission == "read" and "alarms" in identity.groups else None


@fault(Policy, "test_every_documented_question_has_an_answer", "raises AttributeError")
class LooksAtEveryContext(Cheap):
    def otherwise(self, identity: Identity, permission: str, context: Any) -> Any:
        return Denied("not yours") if context.owner == "nobody" else super().otherwise(identity, permission, context)


@fault(Policy, "test_every_documented_question_has_an_answer", "and is answered False")
class Truthful(Cheap):
    def otherwise(self, identity: Identity, permission: str, context: Any) -> Any:
        return "alarms" in identity.groups


@fault(Policy, "test_unknown_permissions_are_left_to_others", "which is no permission of smsgw's")
class Opinionated(Cheap):
    def otherwise(self, identity: Identity, permission: str, context: Any) -> Any:
        return super().otherwise(identity, permission, context) if permission == "read" else Denied("only reading")


@fault(Policy, "test_it_answers_as_it_should", "should be answered Denied, and is answered None")
class Forgiving(Cheap):
    def may_send(self, identity: Identity, context: Message) -> Any:
        return None


@fault(Policy, "test_it_answers_as_it_should", "should be answered None, and is answered <Denied")
class Strict(Cheap):
    def may_send(self, identity: Identity, context: Message) -> Any:
        return Denied("no")


class Undemanding(Policy):
    @pytest.fixture
    def answers(self) -> Sequence[Any]:
        return [(None, LVV, "send", message())]


@fault(Undemanding, "test_it_answers_as_it_should", "the fixture 'answers' should have something")
class Indifferent(Cheap):
    """Nothing is known of what it denies."""


@fault(Policy, "test_it_remembers_nothing", "after other questions")
class Remembering(Cheap):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def may_send(self, identity: Identity, context: Message) -> Any:
        return self.seen.setdefault(identity.userid, super().may_send(identity, context))


@fault(Policy, "test_threads", "asked by several threads")
class SharedPolicy(Cheap):
    def may_send(self, identity: Identity, context: Message) -> Any:
        self.asking = identity
        time.sleep(0)
        return super().may_send(self.asking, context)


@fault(Policy, "test_each_recipient_is_decided_alone", "should be refused, and ['112', '79680000000'] are")
class FirstDecides(Cheap):
    """Takes the object, which is one for all recipients of a request, for the request."""

    def __init__(self) -> None:
        self.last: tuple[Any, Any] = (None, None)

    def may_send(self, identity: Identity, context: Message) -> Any:
        if self.last[0] is not context.content:
            self.last = context.content, super().may_send(identity, context)
        return self.last[1]


# Routers


class Route(RouteConformance):
    @pytest.fixture
    def answers(self) -> Sequence[Any]:
        return [
            (Options(queue="MTS"), LVV, message("79160000000")),
            (Options(queue="MTS", high_priority=True), OPS, message("79160000000")),
            (None, LVV, message("79680000000", options=Options(queue="OTHER", validity=60))),
        ]


@sound(Route)
class Carrier:
    @hookimpl
    def route(self, message: Message, identity: Identity) -> Any:
        return self.choose(message, identity)

    def choose(self, message: Message, identity: Identity) -> Any:
        if not message.to.startswith("7916"):
            return None
        return replace(message.content.options, queue="MTS", high_priority="alarms" in identity.groups)


@fault(Route, "test_any_message_has_an_answer", "should be answered Options(…) or None, and is answered 'MTS'")
class NamesTheQueue(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        return "MTS"


@fault(Route, "test_any_message_has_an_answer", "raises KeyError")
class KnowsItsUsers(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        return {"lvv": None, "ops": None}[identity.userid]


@fault(Route, "test_any_message_has_an_answer", "whose validity has a wrong type")
class Hours(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        return Options(validity=1.5)  # type: ignore[arg-type]


@fault(Route, "test_it_answers_as_it_should", "should be answered None, and is answered Options")
class AlwaysMts(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        return Options(queue="MTS", high_priority="alarms" in identity.groups)


@fault(Route, "test_it_remembers_nothing", "after other messages")
class SticksToIt(Carrier):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def choose(self, message: Message, identity: Identity) -> Any:
        return self.seen.setdefault(identity.userid, super().choose(message, identity))


@fault(Route, "test_threads", "asked by several threads")
class SharedRoute(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        self.asking = message
        time.sleep(0)
        return super().choose(self.asking, identity)


@fault(Route, "test_what_it_answers_is_what_goes_out", "is answered 500, and should be sent")
class NoSuchQueue(Carrier):
    def choose(self, message: Message, identity: Identity) -> Any:
        return Options(queue="a\nb")


# Transforms


class Transform(TransformConformance):
    """As they come."""


@sound(Transform)
class Plain:
    @hookimpl
    def transform(self, text: str, identity: Identity) -> Any:
        return self.make(text, identity)

    def make(self, text: str, identity: Identity) -> Any:
        return text


@sound(Transform)
class Refusing(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        if not text.strip():
            raise TextRefused("has nothing but white space")
        return text


@fault(Transform, "test_text_in_text_out", "becomes empty")
class Stripping(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return text.strip()


@fault(Transform, "test_text_in_text_out", "raises UnicodeEncodeError")
class Western(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return text.encode("cp1252").decode("cp1252")


@fault(Transform, "test_text_in_text_out", "should become a str")
class Bytes(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return text.encode()


@fault(Transform, "test_text_in_text_out", "becomes half of a surrogate pair")
class Cutting(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return text.encode("utf-16-le")[:140].decode("utf-16-le", "surrogatepass") if len(text) > 70 else "\ud83d"


@fault(Transform, "test_text_in_text_out", "is refused without a reason")
class Silent(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        raise TextRefused(" ")


@fault(Transform, "test_it_costs_no_more", "override most_parts")
class Decorating(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return f"★ {text}"


@fault(Transform, "test_it_remembers_nothing", "and after other texts")
class Counting(Plain):
    count = 0

    def make(self, text: str, identity: Identity) -> Any:
        self.count += 1
        return f"{text} ({self.count})"


@fault(Transform, "test_threads", "while other threads ask")
class SharedText(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        self.text = text
        time.sleep(0)
        return self.text


@fault(Transform, "test_what_it_makes_is_what_goes_out", "goes out as")
class Dated(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        return f"{text} {time.monotonic_ns()}"


@fault(Transform, "test_what_it_makes_is_what_goes_out", "is answered 500")
class Failing(Plain):
    def make(self, text: str, identity: Identity) -> Any:
        raise RuntimeError


class Nothing:
    """No hook at all."""


fault(Transform, "test_text_in_text_out", "has no method 'transform' marked @hookimpl")(Nothing)
fault(Policy, "test_it_answers_as_it_should", "has no method 'permits' marked @hookimpl")(Nothing)
fault(Authentication, "test_wrong_secrets_are_refused", "has no method 'authenticate' marked @hookimpl")(Nothing)
