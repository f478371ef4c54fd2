"""``webhooks``: rights that are granted and taken away. Nobody hears what they may not hear when it is told."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from smsgw.cli import main as command
from smsgw.hookspecs import hookimpl
from smsgw.model import Event, Identity, Received, Sent, Unavailable
from smsgw.store import Store
from smsgw.testing import MakeGateway, base_settings_in, basic, bearer, running, stored
from smsgw_plugins.token import Token, table, text
from smsgw_plugins.webhooks import Webhooks
from smsgw_plugins.webhooks.rights import refresh
from smsgw_plugins.webhooks.table import SCRIPTS
from smsgw_plugins.webhooks.table import Webhooks as Table
from tests.conftest import Gateway, at_length, eventually
from tests.plugins.conftest import Trusting
from tests.plugins.test_token import write_ini
from tests.receiver import Receiver

WEBHOOKS = "/api/v2/webhooks"
DAY = 24 * 3600  # seconds
NOW = datetime(2030, 1, 1, tzinfo=UTC).timestamp()  # later than any webhook was made: that time is the system's

_names = itertools.count(1)


class Clock:
    """Seconds since 1970, as a test says."""

    now = NOW

    def __call__(self) -> float:
        return self.now


Start = Callable[..., Gateway]


def plugins_of(clock: Clock) -> dict[str, type]:
    """``clocked`` and ``issuer`` are ``webhooks`` and ``token`` by that clock; ``trusting`` believes everybody."""

    class Clocked(Webhooks):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings, clock=clock)

    class Issuer(Token):
        def __init__(self) -> None:
            super().__init__(clock=clock)

    return {"clocked": Clocked, "issuer": Issuer, "trusting": Trusting}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(make_gateway: MakeGateway, clock: Clock, store_url: str) -> Start:
    """Start the gateway on that database, after the one before it has stopped."""
    earlier: list[Gateway] = []

    def start(plugins: str = "issuer trusting allow clocked", **changes: str | None) -> Gateway:
        for gateway in earlier:
            gateway.application.owner.stop()
        settings: dict[str, str | None] = {
            "smsgw.plugins": plugins,
            "smsgw.htpasswd.path": None,
            "smsgw.store": store_url,
            "smsgw.allow.admins": "root @staff",
            "smsgw.clocked.allow_private": "true",
        }
        given = {name.replace("__", "."): value for name, value in changes.items()}
        earlier.append(make_gateway(settings | given, **plugins_of(clock), backend=Backend))
        return earlier[-1]

    return start


class Backend:
    """An authentication plugin whose tickets hold, or not, or nobody knows."""

    answer: Any = True

    @hookimpl
    def authenticate(self, credentials: Any) -> Identity | None:
        if credentials.scheme != "Bearer" or not credentials.secret.startswith("ticket"):
            return None
        return Identity("ann", frozenset({"staff"}), f"ticket:{credentials.secret}")

    @hookimpl
    def holds(self, credential: str) -> Any:
        if not credential.startswith("ticket:"):
            return None
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def call(gateway: Gateway, method: str, path: str, who: str, body: Any = None, status: int = 200) -> Any:
    """A request with that header ``Authorization``."""
    gateway.app.authorization = None
    options = {} if body is None else {"params": body}
    return getattr(gateway.app, method)(path, **options, headers={"Authorization": who}, status=status).json


def password(user: str, *groups: str) -> str:
    """What a user of these groups shows to ``Trusting``."""
    return basic(user, " ".join(groups) or "-")


def register(gateway: Gateway, who: str, url: str) -> str:
    """The id of a webhook that hears of all that is sent or received."""
    body = {"url": url, "events": ["message.sent", "message.received"]}
    return str(call(gateway, "post_json", WEBHOOKS, who, body, 201)["id"])


def sign_in(gateway: Gateway, who: str) -> None:
    call(gateway, "get", WEBHOOKS, who)


def make_token(store: Store, user: str, *groups: str, expires: float | None = None) -> str:
    token = text.make()
    until = None if expires is None else int(expires)
    table.add(store, table.Record(text.id_of(token), user, " ".join(groups), "", int(NOW), until), text.digest(token))
    return token


def happened(owner: str | None) -> Event:
    """A message of that user was sent, or, where that is nobody, one was received."""
    kind: type[Event] = Sent if owner else Received
    message = replace(stored("sent" if owner else "incoming", owner), id=f"m{next(_names)}")
    return kind(message, datetime.now(UTC))


def tell(gateway: Gateway, *owners: str | None) -> list[str]:
    """The ids of messages that these users sent, of which the plugin has been told."""
    events = [happened(owner) for owner in owners]
    gateway.plugin("clocked").notify(events)
    return [event.message.id for event in events]


def heard(gateway: Gateway, receiver: Receiver) -> set[str]:
    """What has come in, once nothing waits any more."""
    waiting = sqlalchemy.text("SELECT count(*) FROM webhooks_deliveries WHERE due IS NOT NULL")

    def is_all() -> bool:
        with gateway.application.stores.shared.begin(is_reading=True) as connection:
            return bool(connection.execute(waiting).scalar_one() == 0)

    eventually(is_all, seconds=60)
    return {each.message for each in receiver.deliveries}


# Tokens


def test_a_webhook_ends_with_its_token(make_gateway: MakeGateway, store_url: str, tmp_path: Path) -> None:
    """Made and revoked by the command, through restarts; what its owner made otherwise goes on."""
    settings: dict[str, str | None] = {
        "smsgw.plugins": "token htpasswd allow webhooks",
        "smsgw.store": store_url,
        "smsgw.allow.admins": "@staff",
        "smsgw.webhooks.allow_private": "true",
    }

    def run(*arguments: str) -> str:
        ran = CliRunner().invoke(command, ["token", *arguments], env={"SMSGW_INI": str(ini)})
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    def told(gateway: Gateway) -> set[str]:
        events = [happened("ops"), happened("lvv"), happened(None)]
        gateway.plugin("webhooks").notify(events)
        return {event.message.id for event in events}

    gateway = make_gateway(settings)
    ini = write_ini(tmp_path, gateway.settings)
    token, other = (run("create", "--user", "ops", "--groups", "staff").strip() for _ in range(2))
    with Receiver() as receiver, Receiver() as going_on, Receiver() as own:
        id = register(gateway, bearer(token), receiver.url)
        register(gateway, bearer(other), going_on.url)
        register(gateway, basic("ops", "Alarm!ng"), own.url)
        assert gateway.get(f"{WEBHOOKS}/{id}", user="ops").json["ended"] is None
        first = told(gateway)
        assert heard(gateway, receiver) == heard(gateway, going_on) == first
        run("revoke", text.id_of(token))
        later = told(gateway)
        gateway.application.owner.stop()
        gateway = make_gateway(settings)
        later |= told(gateway)
        assert heard(gateway, going_on) == first | later
        assert len(heard(gateway, own)) == 3
        assert heard(gateway, receiver) == first
        listed = CliRunner().invoke(command, ["webhooks", "list"], env={"SMSGW_INI": str(ini)})
        assert f"token:{text.id_of(token)}" in listed.stdout
        ended = f"It was made with token:{text.id_of(token)}, which is no longer valid"
        shown = {each["id"]: each["ended"] for each in gateway.get(WEBHOOKS, user="ops").json["webhooks"]}
        assert shown.pop(id) == ended
        assert set(shown.values()) == {None}
        gateway.delete(f"{WEBHOOKS}/{id}", user="ops")


def test_a_sign_in_after_the_clock_was_set_back_counts(start: Start, clock: Clock) -> None:
    gateway = start()
    with Receiver() as receiver:
        register(gateway, password("ann"), receiver.url)
    refresh(gateway.application.stores.shared, Identity("ann", frozenset({"visitors"})), int((clock.now - 1800) * 1000))
    (webhook,) = Table(gateway.application.stores.shared).all("ann")
    assert webhook.maker.groups == {"visitors"}


def test_what_waits_when_the_token_ends_is_given_up(start: Start, clock: Clock) -> None:
    gateway = start()
    token = make_token(gateway.application.stores.shared, "ann", "staff")
    with Receiver() as receiver:
        receiver.answer = lambda delivery: 500
        path = f"{WEBHOOKS}/{register(gateway, bearer(token), receiver.url)}"
        tell(gateway, "lvv")
        eventually(lambda: call(gateway, "get", path, password("ann"))["last_error"])
        table.revoke(gateway.application.stores.shared, text.id_of(token), int(clock.now))
        receiver.answer = lambda delivery: 200
        for replay in ("failures/replay", f"failures/{receiver.deliveries[0].id}/replay"):
            refused = call(gateway, "post", f"{path}/{replay}", password("ann"), status=403)
            assert "no longer valid" in refused["detail"]
        gateway = start()
        clock.now += 10
        assert len(heard(gateway, receiver)) == len(receiver.deliveries) == 1
        shown = call(gateway, "get", path, password("ann"))
        assert (shown["waiting"], shown["failed"]) == (0, 1)
        (failure,) = call(gateway, "get", f"{path}/failures", password("ann"))["failures"]
        assert failure["error"] == shown["ended"]
        call(gateway, "post", f"{path}/failures/replay", password("ann"), status=403)


def test_a_token_that_expires(start: Start, clock: Clock) -> None:
    """Until then its groups count, however long nobody has signed in with it."""
    gateway = start()
    token = make_token(gateway.application.stores.shared, "ann", "staff", expires=clock.now + 90 * DAY)
    with Receiver() as receiver:
        register(gateway, bearer(token), receiver.url)
        clock.now += 90 * DAY - 1
        before = tell(gateway, "ann", "lvv", None)
        assert heard(gateway, receiver) == {*before}
        clock.now += 1
        tell(gateway, "ann", "lvv", None)
        gateway = start()
        tell(gateway, "ann", "lvv", None)
        assert heard(gateway, receiver) == {*before}


def test_a_token_whose_plugin_is_gone_and_comes_back(start: Start) -> None:
    gateway = start()
    token = make_token(gateway.application.stores.shared, "ann", "staff")
    with Receiver() as receiver:
        register(gateway, bearer(token), receiver.url)
        gateway = start("trusting allow clocked")
        tell(gateway, "ann", "lvv", None)
        (shown,) = call(gateway, "get", WEBHOOKS, password("ann"))["webhooks"]
        assert "no longer valid" in shown["ended"]
        gateway = start()
        told = tell(gateway, "ann", "lvv", None)
        assert heard(gateway, receiver) == {*told}


@pytest.mark.parametrize("failure", [Unavailable("the desk is closed"), RuntimeError("a mistake")])
def test_a_backend_that_is_down_ends_no_webhook(start: Start, clock: Clock, failure: Exception) -> None:
    """What is to be told is told later, and what waits goes on waiting, while that of others is delivered."""
    gateway = start("backend trusting allow clocked")
    backend, later = gateway.plugin("backend"), happened("ann")
    with Receiver() as receiver, Receiver() as other:
        for found, who in ((receiver, bearer("ticket 1")), (other, password("lvv"))):
            found.answer = lambda delivery: 500
            path = f"{WEBHOOKS}/{register(gateway, who, found.url)}"
            tell(gateway, "ann" if found is receiver else "lvv")
            eventually(lambda path=path, who=who: call(gateway, "get", path, who)["last_error"])
        told = {each.message for each in receiver.deliveries}
        receiver.answer = other.answer = lambda delivery: 200
        heard_before = len(receiver.deliveries)
        backend.answer = failure
        with pytest.raises(Unavailable):
            gateway.plugin("clocked").notify([later])
        clock.now += 10
        other.wait(2)
        assert len(receiver.deliveries) == heard_before
        backend.answer = True
        gateway.plugin("clocked").notify([later])
        assert heard(gateway, receiver) == {*told, later.message.id}


@pytest.mark.parametrize("answer", [False, None, 1, "yes"])
def test_only_a_clear_yes_holds(start: Start, answer: Any) -> None:
    gateway = start("backend trusting allow clocked")
    with Receiver() as receiver:
        register(gateway, bearer("ticket 1"), receiver.url)
        gateway.plugin("backend").answer = answer
        tell(gateway, "ann", "lvv", None)
        assert heard(gateway, receiver) == set()


# Sign-ins


def test_groups_are_those_of_the_last_sign_in(start: Start, clock: Clock) -> None:
    gateway = start()
    with Receiver() as receiver:
        register(gateway, password("ann", "staff"), receiver.url)
        expected = {*tell(gateway, "ann", "lvv", None)}
        sign_in(gateway, password("ann", "night"))
        own, _, _ = tell(gateway, "ann", "lvv", None)
        gateway = start()
        later, _, _ = tell(gateway, "ann", "lvv", None)
        expected |= {own, later}
        assert heard(gateway, receiver) == expected
        call(gateway, "post_json", "/api/v1.0/sms/outgoing", password("ann", "staff"), {"mobiles": [], "text": ""}, 400)
        expected |= {*tell(gateway, "ann", "lvv", None)}
        assert heard(gateway, receiver) == expected


def test_a_sign_in_counts_for_what_was_made_with_the_same(start: Start) -> None:
    """Neither is a password's webhook given the groups of a token, nor the other way round, nor another user's."""
    gateway = start()
    token = make_token(gateway.application.stores.shared, "ann", "staff")
    with Receiver() as by_token, Receiver() as by_password, Receiver() as other:
        register(gateway, bearer(token), by_token.url)
        register(gateway, password("ann"), by_password.url)
        register(gateway, password("lvv"), other.url)
        sign_in(gateway, bearer(token))
        sign_in(gateway, password("ann", "night"))
        told = tell(gateway, "ann", "lvv", None)
        assert heard(gateway, by_token) == {*told}
        assert heard(gateway, by_password) == {told[0]}
        assert heard(gateway, other) == {told[1]}


@pytest.mark.parametrize("maker", [password("ann", "staff"), password("root")])
@pytest.mark.parametrize("days", [30, 7])
def test_who_has_not_signed_in_for_long(start: Start, clock: Clock, maker: str, days: int) -> None:
    """Perhaps since they have left: their own messages are all that they hear of, whoever they were."""
    changes = {} if days == 30 else {"smsgw__clocked__groups_days": str(days)}
    gateway, user = start(**changes), "ann" if maker == password("ann", "staff") else "root"
    with Receiver() as receiver:
        register(gateway, maker, receiver.url)
        clock.now += 2
        sign_in(gateway, maker)
        clock.now += 3 * DAY
        sign_in(gateway, maker)
        clock.now += days * DAY
        expected = {*tell(gateway, user, "lvv", None)}
        assert heard(gateway, receiver) == expected  # what waits longer is told by the rights of then
        clock.now += 1
        gateway = start(**changes)
        own, _, _ = tell(gateway, user, "lvv", None)
        expected |= {own}
        assert heard(gateway, receiver) == expected
        sign_in(gateway, maker)
        expected |= {*tell(gateway, user, "lvv", None)}
        assert heard(gateway, receiver) == expected


def test_a_sign_in_by_a_clock_that_was_ahead(start: Start, clock: Clock) -> None:
    """It counts no longer than one of today."""
    clock.now = NOW + 365 * DAY
    gateway = start()
    with Receiver() as receiver:
        register(gateway, password("ann", "staff"), receiver.url)
        clock.now = NOW
        gateway = start()
        latest = sqlalchemy.text("SELECT max(signed_in) FROM webhooks")

        def is_corrected() -> bool:
            with gateway.application.stores.shared.begin(is_reading=True) as connection:
                return bool(connection.execute(latest).scalar_one() == NOW * 1000)

        eventually(is_corrected)
        clock.now += 30 * DAY + 1
        own, _, _ = tell(gateway, "ann", "lvv", None)
        assert heard(gateway, receiver) == {own}


def test_what_was_received_is_nobody_s_own(start: Start) -> None:
    gateway = start()
    received = Received(replace(stored("incoming", "ann"), id="m0"), datetime.now(UTC))
    with Receiver() as receiver, Receiver() as other:
        register(gateway, password("ann"), receiver.url)
        register(gateway, password("root"), other.url)
        gateway.plugin("clocked").notify([received])
        assert heard(gateway, other) == {"m0"}
        assert heard(gateway, receiver) == set()


def test_a_webhook_ends_when_its_user_is_gone_from_the_password_file(
    make_gateway: MakeGateway, clock: Clock, password_file: Path
) -> None:
    """At once, also for what waits. Until then the user need not sign in again."""
    settings: dict[str, str | None] = {"smsgw.plugins": "htpasswd allow clocked"}
    gateway = make_gateway(settings | {"smsgw.clocked.allow_private": "true"}, **plugins_of(clock))
    with Receiver() as receiver:
        path = f"{WEBHOOKS}/{register(gateway, basic('root', 'Adm1nist'), receiver.url)}"
        clock.now += 31 * DAY
        expected = {*tell(gateway, "root", "lvv")}
        assert heard(gateway, receiver) == expected
        content = password_file.read_text()
        receiver.answer = lambda delivery: 500
        tell(gateway, "root")
        assert eventually(lambda: call(gateway, "get", path, basic("root", "Adm1nist"))["last_error"])
        password_file.write_text("".join(line for line in content.splitlines(True) if not line.startswith("root:")))
        receiver.answer = lambda delivery: 200
        tell(gateway, "root", "lvv")
        clock.now += 6
        assert heard(gateway, receiver) == expected | {receiver.deliveries[-1].message}
        assert len(receiver.deliveries) == len(expected) + 1
        password_file.write_text(content)
        found = call(gateway, "get", path, basic("root", "Adm1nist"))
        assert (found["ended"], found["waiting"], found["failed"]) == (None, 0, 1)
        expected = {*tell(gateway, "lvv")}
        eventually(lambda: {each.message for each in receiver.deliveries} >= expected)


def test_a_sign_in_that_cannot_be_noted(
    make_gateway: MakeGateway, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sending does not need the database; it is tried again in a minute, and at once with other groups."""
    folder = tmp_path / "database"
    settings: dict[str, str | None] = {
        "smsgw.plugins": "trusting allow clocked",
        "smsgw.htpasswd.path": None,
        "smsgw.allow.admins": "@staff",
        "smsgw.store": f"sqlite:///{folder}/store.sqlite3",
        "smsgw.clocked.allow_private": "true",
    }
    gateway = make_gateway(settings, **plugins_of(clock))
    body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"}

    def send(*groups: str) -> None:
        call(gateway, "post_json", "/api/v1.0/sms/outgoing", password("ann", *groups), body, 201)

    folder.mkdir()
    with Receiver() as receiver:
        register(gateway, password("ann", "staff"), receiver.url)
        folder.rename(folder.with_name("away"))
        gateway.app.authorization = ("Basic", ("lvv", "-"))
        eventually(lambda: gateway.app.get(WEBHOOKS, status="*").status_int == 503)
        caplog.clear()
        for _ in range(3):
            send()
        assert caplog.text.count("a sign-in could not be noted") == 1
        folder.with_name("away").rename(folder)
        clock.now += 60
        send()
        own, _ = tell(gateway, "ann", "lvv")
        assert heard(gateway, receiver) == {own}


def test_webhooks_of_before(start: Start, store_url: str, tmp_path: Path) -> None:
    """Nobody knows what they were made with: their makers hear of their own messages, until they sign in."""
    folder = tmp_path / "webhooks" / "migrations"
    folder.mkdir(parents=True)
    for name in ("__init__.py", "v001.py"):
        shutil.copy(SCRIPTS / name, folder)
    with Receiver() as receiver:
        columns = {"id": f"wh_{'0' * 20}", "owner": "ann", "groups": '["staff"]', "url": receiver.url}
        columns |= {"events": "message.sent", "description": "", "secret": f"whsec_{'A' * 43}=", "created": 1}
        with contextlib.closing(Store(store_url)) as store:
            store.keep(sqlalchemy.MetaData(), folder)
            with store.begin() as connection:
                names = ", ".join(f'"{name}"' for name in columns)
                values = ", ".join(f":{name}" for name in columns)
                connection.execute(sqlalchemy.text(f"INSERT INTO webhooks ({names}) VALUES ({values})"), columns)
        gateway = start()
        own, _ = tell(gateway, "ann", "lvv")
        assert heard(gateway, receiver) == {own}
        sign_in(gateway, password("ann", "staff"))
        assert heard(gateway, receiver) == {own}
        told = tell(gateway, "ann", "lvv")
        assert heard(gateway, receiver) == {own, *told}


# Whatever happens, in any order


@dataclass
class Made:
    """What the model knows of a webhook."""

    user: str
    token: str | None
    groups: frozenset[str]
    signed_in: float
    receiver: Receiver
    expected: set[str] = field(default_factory=set)


class House:
    """A gateway that is restarted, and beside it a model of who may hear what."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.clock = Clock()
        self.settings = base_settings_in(folder)
        self.stack = stack
        self.running = contextlib.ExitStack()
        stack.callback(lambda: self.running.close())
        self.admins, self.knows_tokens = {"root", "@staff"}, True
        self.restart()
        store = self.gateway.application.stores.shared
        self.tokens = {  # each with whose it is, with its groups, and until when it is good
            make_token(store, "ann", "staff"): ["ann", frozenset({"staff"}), float("inf")],
            make_token(store, "root"): ["root", frozenset(), float("inf")],
            make_token(store, "lvv", "staff", expires=NOW + 10 * DAY): ["lvv", frozenset({"staff"}), NOW + 10 * DAY],
        }
        self.made: list[Made] = []
        for user, groups in (("ann", frozenset({"staff"})), ("root", frozenset[str]()), ("lvv", frozenset({"night"}))):
            self.do("register", user, groups, None, 0)
        for number in range(len(self.tokens)):
            self.do("register", "", frozenset(), number, 0)

    def restart(self) -> None:
        self.running.close()
        names = "issuer trusting allow clocked" if self.knows_tokens else "trusting allow clocked"
        changes = {"smsgw.plugins": names, "smsgw.allow.admins": " ".join(sorted(self.admins))}
        changes["smsgw.clocked.allow_private"] = "true"
        self.gateway = self.running.enter_context(running(self.settings | changes, **plugins_of(self.clock)))

    def is_good(self, token: str) -> bool:
        return self.knows_tokens and self.clock.now < self.tokens[token][2]

    def show(self, user: str, groups: frozenset[str], number: int | None) -> tuple[Identity, str, str | None] | None:
        """Who signs in, with which header and token; the model notes it. ``None``: nobody can, with that token."""
        token = None if number is None else list(self.tokens)[number]
        if token is not None:
            if not self.is_good(token):
                return None
            user, groups, _ = self.tokens[token]
        for made in self.made:
            if (made.user, made.token) == (user, token):
                made.groups, made.signed_in = groups, self.clock.now
        return Identity(user, groups), bearer(token) if token else password(user, *groups), token

    def do(self, action: str, user: str, groups: frozenset[str], number: int | None, days: int) -> None:
        if action in ("sign in", "register"):
            if (shown := self.show(user, groups, number)) is None:
                return
            identity, who, token = shown
            if action == "sign in":
                sign_in(self.gateway, who)
            else:
                receiver = self.stack.enter_context(Receiver())
                register(self.gateway, who, receiver.url)
                self.made.append(Made(identity.userid, token, identity.groups, self.clock.now, receiver))
        elif action == "revoke" and number is not None:
            token = list(self.tokens)[number]
            table.revoke(self.gateway.application.stores.shared, text.id_of(token), int(self.clock.now))
            self.tokens[token][2] = 0
        elif action == "wait":
            self.clock.now += days * DAY
        elif action == "restart":
            self.knows_tokens = number is not None
            self.admins = {user, *(f"@{group}" for group in groups)}
            self.restart()
        self.tell()

    def tell(self) -> None:
        for owner, id in zip(OWNERS, tell(self.gateway, *OWNERS), strict=True):
            for made in self.made:
                if self.may_hear(made, owner):
                    made.expected.add(id)
        self.check()  # before anything is taken away: what waits is another test's

    def may_hear(self, made: Made, owner: str | None) -> bool:
        if made.token is not None and not self.is_good(made.token):
            return False
        if owner == made.user:
            return True
        if made.token is None and self.clock.now - made.signed_in > 30 * DAY:
            return False
        return made.user in self.admins or any(f"@{group}" in self.admins for group in made.groups)

    def check(self) -> None:
        for made in self.made:
            assert heard(self.gateway, made.receiver) == made.expected


OWNERS = ("ann", "root", "lvv", None)
STEPS = st.tuples(
    st.sampled_from(["register", "sign in", "revoke", "wait", "wait", "restart"]),
    st.sampled_from(["ann", "root", "lvv"]),
    st.frozensets(st.sampled_from(["staff", "night"])),
    st.none() | st.integers(0, 2),
    st.sampled_from([1, 9, 29, 31]),
)


@settings(max_examples=at_length(20, 6))
@given(steps=st.lists(STEPS, min_size=1, max_size=8))
def test_no_webhook_hears_what_its_maker_may_not(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        house = House(Path(folder), stack)
        for step in steps:
            house.do(*step)
