"""The real application on a spool of its own, asked by HTTP. Plugin classes need not be installed for it."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import itertools
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import colander
import pytest
from pyramid.registry import Registry
from pyramid.security import Denied
from webtest import TestApp

from smsgw import main
from smsgw.application import Application
from smsgw.hookspecs import hookimpl
from smsgw.model import Content, Credentials, Identity, Message, Options, StoredMessage, Submission
from smsgw.plugins import GROUP
from smsgw.settings import Lines
from smsgw.spool.layout import KINDS
from smsgw.text import measure

OUTGOING = "/api/v1.0/sms/outgoing"
USERS = {"lvv": "SecretPAss", "ops": "Alarm!ng", "root": "Adm1nist"}  # and their passwords
GROUPS = {"@alarms": "ops"}


class Users:
    """An authentication plugin for tests, which each of the kit's gateways has as ``users``. Passwords are in clear."""

    class Settings(colander.MappingSchema):
        passwords = colander.SchemaNode(Lines(), missing=USERS, description="lines 'user: password'")
        groups = colander.SchemaNode(Lines(), missing=GROUPS, description="lines '@group: user …'")

    def __init__(self, passwords: dict[str, str], groups: dict[str, str]) -> None:
        self.passwords = passwords
        self._groups = {name.removeprefix("@"): users.split() for name, users in groups.items()}

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        if credentials.scheme != "Basic" or credentials.userid not in self.passwords:
            return None
        if credentials.secret != self.passwords[credentials.userid]:
            return Denied("wrong password")
        groups = frozenset(group for group, users in self._groups.items() if credentials.userid in users)
        return Identity(credentials.userid, groups)


@dataclass
class Gateway:
    """An application, its spool, and shorthands for what clients do. ``users`` has passwords by userid."""

    app: TestApp
    spool: Path
    settings: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=USERS.copy, repr=False)

    @property
    def registry(self) -> Registry:
        """Pyramid's, as ``config.registry`` is."""
        return self.app.app.registry

    @property
    def application(self) -> Application:
        """Its parts."""
        found: Application = self.registry.application
        return found

    @property
    def state(self) -> Path:
        """smsgw's own folder."""
        return self.spool / "outgoing" / ".smsgw"

    def plugin(self, name: str) -> Any:
        """The instance of a plugin, as the application made it."""
        return self.application.plugins.get_plugin(name)

    def files(self, kind: str = "outgoing") -> dict[str, bytes]:
        """The messages in a folder: what smsd would see there."""
        folder = self.spool / kind
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}

    def messages(self, kind: str = "outgoing") -> list[StoredMessage]:
        """The same, read: headers, text, owner."""
        found = [self.application.folders.find(kind, id) for id in self.files(kind)]
        return [message for message in found if message is not None]

    def send(self, body: Any = None, *, user: str | None = "lvv", status: int | str = 201, **fields: Any) -> Any:
        """POST a send; ``fields`` go over a body that would be sent as it stands."""
        if body is None:
            body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"} | fields
        return self.call("POST_JSON", OUTGOING, body, user=user, status=status)

    def call(
        self, method: str, url: str, *args: Any, user: str | None = "lvv", status: int | str = 200, **kw: Any
    ) -> Any:
        """A request by a method of WebTest's ``TestApp``; ``user`` is one of ``users``, or ``None`` for nobody.

        :param status: which the reply should have; ``"*"``: any.

        :raises webtest.AppError: the reply has another status.
        """
        self.app.authorization = ("Basic", (user, self.users[user])) if user else None
        return getattr(self.app, method.lower())(url, *args, status=status, **kw)

    def get(self, url: str, **kw: Any) -> Any:
        return self.call("GET", url, **kw)

    def delete(self, url: str, **kw: Any) -> Any:
        return self.call("DELETE", url, **kw)

    def put(self, kind: str, name: str, content: bytes | str) -> Path:
        """A file that another program, or smsd, left in a folder."""
        path = self.spool / kind / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


class MakeGateway(Protocol):
    """The fixture ``make_gateway``: a gateway of ``base_settings`` and those given over them; ``None`` takes one away.

    ``plugins`` are classes by the names that they have in ``smsgw.plugins``; installed ones need not be given.
    """

    def __call__(self, changes: Mapping[str, str | None] | None = None, **plugins: type) -> Gateway: ...


@contextlib.contextmanager
def running(settings: Mapping[str, str], **plugins: type) -> Iterator[Gateway]:
    """The gateway of those settings; at the end of the block its background work has ended.

    :param plugins: classes that are not installed, by the names that they have in ``smsgw.plugins``.
    :raises SystemExit: with 3, where a setting is wrong; the sentence is on stderr.
    """
    named = settings.get("smsgw.plugins", "").split()
    with offered(**{name: cls for name, cls in ({"users": Users} | plugins).items() if name in named}):
        router = main({}, **settings)
    try:
        spool = Path(settings.get("smsgw.spool") or router.registry.application.layout.outgoing.parent)
        users = router.registry.application.plugins.get_plugin("users")
        passwords = users.passwords if isinstance(users, Users) else USERS
        yield Gateway(TestApp(router), spool, dict(settings), dict(passwords))
    finally:
        router.registry.application.close()


def base_settings_in(folder: Path) -> dict[str, str]:
    """Settings of a gateway with a spool in that folder, ``USERS``, and the permission to send.

    ``ops`` is in the group ``alarms``; ``root`` is an administrator.
    """
    return {
        "smsgw.spool": str(make_spool(folder / "spool")),
        "smsgw.plugins": "users allow",
        "smsgw.allow.admins": "root",
        "smsgw.fsync": "false",
    }


def make_spool(folder: Path) -> Path:
    """The folders of smsd, empty."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    return folder


_numbers = itertools.count(1)


@contextlib.contextmanager
def offered(**plugins: type) -> Iterator[None]:
    """Within the block, those classes are offered by those names as if a distribution that has them were installed.

    For all of the process; a class that an installed distribution offers by the same name is left to that one.
    """
    if not plugins:  # to read what all distributions offer takes some milliseconds
        yield
        return
    installed = {offer.name: offer for offer in importlib.metadata.entry_points(group=GROUP)}
    fresh = {name: cls for name, cls in plugins.items() if name not in installed or installed[name].load() is not cls}
    module = types.ModuleType(f"smsgw_offered_{next(_numbers)}")
    attributes = {name: f"plugin_{number}" for number, name in enumerate(fresh)}  # a plugin's name may have a hyphen
    vars(module).update({attribute: fresh[name] for name, attribute in attributes.items()})
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder, f"{module.__name__}-0.dist-info")
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.__name__}\nVersion: 0\n")
        lines = [f"{name} = {module.__name__}:{attribute}\n" for name, attribute in attributes.items()]
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        sys.modules[module.__name__] = module
        sys.path.append(folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            del sys.modules[module.__name__]


def message(
    to: str = "79680000000",
    text: str = "Hi, Jack!",
    sender: str = "lvv",
    options: Options = Options(),  # noqa: B008
) -> Message:
    """A message on its way out, as a policy is asked about: ``to`` is digits alone."""
    encoding = measure(text)
    return Message("smsgw.http.TEST", to, Content(sender, text, encoding.alphabet, encoding.parts, options))


def submission(*messages: Message, identity: Identity = Identity("lvv")) -> Submission:  # noqa: B008
    """The messages of one request, as a policy is asked about (``submit``); of nothing given, one message."""
    return Submission(identity, messages or (message(),))


def stored(kind: str = "sent", owner: str | None = "lvv", text: str = "Hi, Jack!", **headers: str) -> StoredMessage:
    """A message in the spool, as a policy is asked about."""
    return StoredMessage(kind, "smsgw.http.TEST", {"To": "79680000000"} | headers, text, owner)


def basic(userid: str, secret: str) -> str:
    """An ``Authorization`` header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{userid}:{secret}".encode()).decode()


def bearer(token: str) -> str:
    """An ``Authorization`` header (RFC 6750)."""
    return f"Bearer {token}"


def eventually(look: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``look`` finds, as soon as it finds something.

    :raises AssertionError: it finds nothing for that long.
    """
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)
    return found


@pytest.fixture
def base_settings(tmp_path: Path) -> dict[str, str]:
    """What ``make_gateway`` starts from: a spool of the test's own, users, and the permission to send."""
    return base_settings_in(tmp_path)


@pytest.fixture
def make_gateway(base_settings: dict[str, str]) -> Iterator[MakeGateway]:
    """Make gateways, as ``MakeGateway`` says; their background work ends with the test."""
    with contextlib.ExitStack() as gateways:

        def make(changes: Mapping[str, str | None] | None = None, **plugins: type) -> Gateway:
            merged = {key: value for key, value in {**base_settings, **(changes or {})}.items() if value is not None}
            return gateways.enter_context(running(merged, **plugins))

        yield make


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    """The gateway of ``base_settings``."""
    return make_gateway()


@pytest.fixture
def refusal(make_gateway: MakeGateway, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Called as ``make_gateway`` is: the sentence with which such a gateway does not start."""

    def start(changes: Mapping[str, str | None], **plugins: type) -> str:
        with pytest.raises(SystemExit) as stopped:
            make_gateway(changes, **plugins)
        sentence = capsys.readouterr().err
        assert stopped.value.code == 3, "a wrong setting ends the process with status 3"
        assert sentence.startswith("smsgw does not start: ")
        assert sentence.count("\n") == 1, f"this should be one sentence on one line:\n{sentence}"
        return sentence

    return start
