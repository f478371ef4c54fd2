"""Plugins: found, configured, ordered, and refused with one sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smsgw import main
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity
from tests.conftest import PATIENCE, Gateway, eventually, make_spool

BASE = "htpasswd allow"


@pytest.fixture
def refused(
    make_gateway: Callable[..., Gateway], capsys: pytest.CaptureFixture[str]
) -> Callable[[dict[str, str | None]], str]:
    """The sentence with which a gateway of such settings does not start."""

    def start(changes: dict[str, str | None]) -> str:
        with pytest.raises(SystemExit) as stopped:
            make_gateway(changes)
        assert stopped.value.code == 3
        sentence = capsys.readouterr().err
        assert sentence.startswith("smsgw does not start: ")
        assert sentence.count("\n") == 1
        return sentence

    return start


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smsgw.plugins": "htpaswd allow"}, ["'htpaswd'", "did you mean 'htpasswd'"]),
        ({"smsgw.plugins": "htpasswd allow allow"}, ["'allow' twice"]),
        ({"smsgw.htpasswd.pth": "x"}, ["'smsgw.htpasswd.pth'", "did you mean 'smsgw.htpasswd.path'"]),
        ({"smsgw.htpasswd.path": None}, ["smsgw.htpasswd.path is missing"]),
        ({"smsgw.htpasswd.path": " "}, ["smsgw.htpasswd.path is empty"]),
        (
            {"smsgw.htpasswd.path": "/nonexistent"},
            ["smsgw.htpasswd.path", "/nonexistent", "htpasswd -B -c /nonexistent"],
        ),
        ({"smsgw.spol": "x"}, ["'smsgw.spol'", "did you mean 'smsgw.spool'"]),
        ({"smsgw.quota.limits": "x"}, ["'quota'", "does not name"]),
        ({"smsgw.journal.keep_day": "9"}, ["'smsgw.journal.keep_day'", "did you mean 'smsgw.journal.keep_days'?"]),
        ({"smsgw.journal.keep_days": "0"}, ["smsgw.journal.keep_days", "0"]),
        ({"smsgw.journal.keep_files_days": "a year"}, ["smsgw.journal.keep_files_days", "a year"]),
        ({"smsgw.plugins": "htpasswd allow journal"}, ["journal is a part of the gateway", "smsgw.plugins"]),
        ({"smsgw.spool": None}, ["smsgw.spool", "smsgw.smsd_conf"]),
        ({"smsgw.spool": "spool"}, ["absolute"]),
        ({"smsgw.smsd_conf": "/etc/smsd.conf"}, ["either"]),
        ({"smsgw.smsd_conf": "/nonexistent", "smsgw.spool": None}, ["/nonexistent", "No such file"]),
        ({"smsgw.fsync": "maybe"}, ["smsgw.fsync", "'maybe'"]),
        ({"smsgw.get_send": "2"}, ["smsgw.get_send", "'2'"]),
        ({"smsgw.max_parts": "0"}, ["smsgw.max_parts"]),
        ({"smsgw.max_parts": "256"}, ["smsgw.max_parts"]),
        ({"smsgw.max_parts": "ten"}, ["smsgw.max_parts", "ten"]),
        ({"smsgw.max_recipients": "0"}, ["smsgw.max_recipients"]),
        ({"smsgw.file_mode": "rw"}, ["smsgw.file_mode", "0660"]),
        ({"smsgw.file_mode": "0060"}, ["smsgw.file_mode"]),
        ({"smsgw.file_group": "no-such-group"}, ["smsgw.file_group", "no-such-group"]),
        ({"smsgw.state": "/proc/smsgw"}, ["smsgw.state", "file system"]),
        ({"smsgw.state": "state"}, ["absolute"]),
        ({"smsgw.prefix": "a\0b"}, ["smsgw.prefix", "NUL"]),
        ({"smsgw.allow.admins": "root ; no longer lvv"}, ["smsgw.allow.admins", "comment"]),
        ({"smsgw.allow.admins": "root\n  smsgw.max_parts = 3"}, ["smsgw.max_parts is indented", "smsgw.allow.admins"]),
        ({"smsgw.prefix": "../x"}, ["smsgw.prefix"]),
        ({"smsgw.prefix": ".x"}, ["smsgw.prefix"]),
        ({"smsgw.region": "XX"}, ["smsgw.region", "'XX'", "RU"]),
        ({"smsgw.trusted_proxies": "10.0.0.300"}, ["smsgw.trusted_proxies", "10.0.0.300"]),
        ({"smsgw.default_queue": "a\nb"}, ["smsgw.default_queue"]),
        ({"debug": "true"}, ["'debug' is no setting", "indented"]),
        ({"smsgw.plugins": "htpasswd allow signature"}, ["signature", "smsgw.signature.text"]),
        ({"smsgw.plugins": "htpasswd allow simulator", "smsgw.simulator.delay": "soon"}, ["smsgw.simulator.delay"]),
        ({"smsgw.plugins": "htpasswd allow simulator", "smsgw.simulator.delay": "nan"}, ["smsgw.simulator.delay"]),
        (
            {"smsgw.plugins": "htpasswd ldap allow", "smsgw.ldap.url": "ldap://localhost", "smsgw.ldap.timeout": "nan"},
            ["smsgw.ldap.timeout: 'nan' is not a number"],
        ),
        (
            {
                "smsgw.plugins": "htpasswd jwt allow",
                "smsgw.jwt.issuer": "https://id.example.com",
                "smsgw.jwt.audience": "smsgw",
                "smsgw.jwt.timeout": "inf",
            },
            ["smsgw.jwt.timeout: 'inf' is not a number"],
        ),
        ({"smsgw.plugins": "htpasswd allow simulator", "smsgw.spool": "/proc/none"}, ["'simulator'", "/proc/none"]),
    ],
)
def test_settings_that_are_wrong(
    refused: Callable[[dict[str, str | None]], str], changes: dict[str, str | None], words: list[str]
) -> None:
    sentence = refused(changes)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"smsgw.plugins": "ldap jwt allow"},
            "the plugin 'ldap' needs the module 'ldap3'; the plugin 'jwt' needs the module 'jwt'; "
            "{python} -m pip install 'smsgw[ldap,jwt]'",
        ),
        (
            {"smsgw.plugins": "allow", "smsgw.store": "postgresql://sms@db/sms"},
            "smsgw.store needs the module 'psycopg'; {python} -m pip install 'smsgw[postgresql]'",
        ),
    ],
    ids=["two", "a database"],
)
def test_modules_that_are_missing(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    settings = {"smsgw.spool": str(make_spool(tmp_path / "spool")), **settings}
    lacking = "import sys; sys.modules.update(dict.fromkeys(['ldap3', 'jwt', 'psycopg']))"
    code = f"{lacking}; from smsgw import main; main({{}}, **{settings!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == f"smsgw does not start: {told.format(python=sys.executable)}."


@pytest.mark.parametrize(
    "changes",
    [
        {"smsgw.plugins": "htpasswd allow history"},
        {"smsgw.history.keep_days": "30"},
        {"smsgw.plugins": "htpasswd allow history", "smsgw.history.keep_files_days": "400"},
    ],
)
def test_an_ini_file_from_before_the_journal(
    refused: Callable[[dict[str, str | None]], str], changes: dict[str, str | None]
) -> None:
    assert refused(changes) == (
        "smsgw does not start: history is a part of the gateway now: take it out of smsgw.plugins, and call"
        " smsgw.history.keep_days smsgw.journal.keep_days.\n"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Plugin:\n    @hookimpl\n    def authorise(self): ...", ["'authorise'", "no hook"]),
        ("class Plugin:\n    @hookimpl\n    def transfrom(self, text): ...", ["did you mean 'transform'"]),
        ("class Plugin:\n    @hookimpl\n    def transform(self, txt): ...", ["txt"]),
        ("class Plugin:\n    def transform(self, text): ...", ["'transform'", "not marked @hookimpl"]),
        ("import no_such_module", ["needs the module 'no_such_module'"]),
        ("from smsgw.hookspecs import no_such_name", ["no_such_name"]),
        ("Other = 1", ["Plugin"]),
        ("def Plugin(): ...", ["should be a class"]),
        ("class Plugin:\n    def __init__(self):\n        raise ConfigurationError('turn it off')", ["turn it off"]),
        (
            "class Plugin:\n    def __init__(self):\n        raise ValueError('no such tea')",
            ["ValueError", "no such tea"],
        ),
        ("class Plugin:\n    def __init__(self, cup): ...", ["cup"]),
        ("class Plugin:\n    Settings = 5", ["TypeError"]),
        ("class Plugin:\n    def includeme(self, config):\n        1 / 0", ["ZeroDivisionError"]),
        ("class Plugin\n", ["SyntaxError"]),
        ("class Plugin:\n    @hookimpl(wrapper=True)\n    def transform(self): ...", ["only 'deliver' can be wrapped"]),
        ("class Plugin:\n    @hookimpl(hookwrapper=True)\n    def notify(self): yield", ["only 'deliver'"]),
        ("class Plugin:\n    @hookimpl(tryfirst=True)\n    def transform(self): ...", ["tryfirst"]),
        (
            "class Plugin:\n    @hookimpl\n    async def notify(self, events): ...",
            ["'async def notify'", "'def notify'"],
        ),
        (
            "class Plugin:\n    def __init__(self):\n        self.notify = self.tell\n\n"
            "    async def tell(self, events): ...\n    tell.smsgw_impl = hookimpl(lambda: None).smsgw_impl",
            ["'async def notify'"],
        ),
        ("class Plugin:\n    @hookimpl\n    async def permits(self):\n        yield", ["'async def permits'"]),
        (
            "class Plugin:\n    @staticmethod\n    @hookimpl\n    async def transform(text): ...",
            ["'async def transform'"],
        ),
        (
            "class Plugin:\n    @hookimpl\n    @classmethod\n    async def transform(cls): ...",
            ["'async def transform'"],
        ),
        ("class Plugin:\n    @hookimpl\n    @classmethod\n    def transfrom(cls): ...", ["did you mean 'transform'"]),
        ("class Plugin:\n    @classmethod\n    def transform(cls, text): ...", ["'transform'", "not marked @hookimpl"]),
        ("class Plugin:\n    @hookimpl\n    def deliver(self):\n        yield", ["'yield'", "@hookimpl(wrapper=True)"]),
        (
            "class Plugin:\n    @hookimpl\n    def notify(self, events):\n        yield",
            ["'yield'", "return the answer"],
        ),
        ("class Plugin:\n    @hookimpl(hookwrapper=True)\n    def deliver(self):\n        yield", ["wrapper=True"]),
        ("class Plugin:\n    @hookimpl(wrapper=True)\n    def deliver(self): ...", ["'deliver'", "generator"]),
        (
            "class Plugin:\n    @hookimpl(wrapper=True)\n    async def deliver(self):\n        yield",
            ["'async def deliver'"],
        ),
    ],
)
def test_plugins_that_are_wrong(
    refused: Callable[[dict[str, str | None]], str],
    distribution: Callable[..., None],
    source: str,
    words: list[str],
) -> None:
    imports = "from smsgw.hookspecs import hookimpl\nfrom smsgw.model import ConfigurationError\n"
    distribution("acme", imports + source, rules="Plugin")
    sentence = refused({"smsgw.plugins": f"{BASE} rules"})
    assert all(word in sentence for word in ("'rules'", *words)), sentence


def test_settings_for_all_applications(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main({"smsgw.spool": "/spool"})
    assert stopped.value.code == 3
    assert "[DEFAULT]" in capsys.readouterr().err


def test_a_plugin_without_settings(
    refused: Callable[[dict[str, str | None]], str], distribution: Callable[..., None]
) -> None:
    distribution("acme", "class Plugin: ...", rules="Plugin")
    assert "smsgw.rules.x" in refused({"smsgw.plugins": f"{BASE} rules", "smsgw.rules.x": "1"})


def test_a_plugin_that_two_distributions_offer(
    refused: Callable[[dict[str, str | None]], str], distribution: Callable[..., None]
) -> None:
    distribution("acme", "class Plugin: ...", allow="Plugin")
    assert "acme and smsgw" in refused({})


TRANSFORMS = """
import colander
from smsgw.hookspecs import hookimpl

class Shout:
    class Settings(colander.MappingSchema):
        mark = colander.SchemaNode(colander.String(), missing="!")

    def __init__(self, mark):
        self.mark = mark
        self.calls = []

    @hookimpl
    def transform(self, text):
        self.calls.append(text)
        return text.upper() + self.mark

class Reverse:
    @hookimpl
    def transform(self, text, identity):
        assert identity.userid == "lvv"
        return text[::-1]

class Broken:
    @hookimpl
    def transform(self, text):
        raise RuntimeError("secret detail")

class Empty:
    @hookimpl
    def transform(self, text):
        return ""

class Nothing:
    @hookimpl
    def transform(self, text):
        return None

class Half:
    @hookimpl
    def transform(self, text):
        return text + chr(0xD83D)

class Later:
    @hookimpl
    def transform(self, text):
        async def later(): ...
        return later()
"""


@pytest.fixture
def transforms(distribution: Callable[..., None]) -> None:
    names = ("Shout", "Reverse", "Broken", "Empty", "Nothing", "Half", "Later")
    distribution("acme", TRANSFORMS, **{name.lower(): name for name in names})


@pytest.mark.usefixtures("transforms")
class TestTransforms:
    def test_in_order(self, make_gateway: Callable[..., Gateway]) -> None:
        for plugins, text in (("shout reverse", "?IH"), ("reverse shout", "IH?")):
            gateway = make_gateway({"smsgw.plugins": f"{BASE} {plugins}", "smsgw.shout.mark": "?"})
            assert gateway.send(text="hi").json["sent_text"] == text

    def test_once_for_each_text(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} shout"})
        gateway.send(mobiles=["79680000000", "79160000000"], text="hi")
        assert gateway.application.plugins.get_plugin("shout").calls == ["hi"]

    @pytest.mark.parametrize(
        ("name", "status", "words"),
        [
            ("broken", 500, "raised by the plugin 'broken'"),
            ("empty", 400, ""),
            ("nothing", 500, "the plugin 'nothing' should make a text of a text, and made None"),
            ("half", 500, "the plugin 'half' made a text with half of a surrogate pair"),
            ("later", 500, "the plugin 'later' should make a text of a text, and made a coroutine"),
        ],
    )
    def test_one_that_fails_stops_the_request(
        self,
        make_gateway: Callable[..., Gateway],
        caplog: pytest.LogCaptureFixture,
        name: str,
        status: int,
        words: str,
    ) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} {name}"})
        reply = gateway.send(status=status)
        assert "secret" not in reply.text
        assert words in caplog.text
        assert gateway.files() == {}


POLICIES = """
from pyramid.security import Allowed, Denied
from pyramid.httpexceptions import HTTPServiceUnavailable
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity, TooMany

class Deny:
    @hookimpl
    def permits(self, identity, permission, context):
        if permission == "send" and context.to == "911":
            return Denied("not that one")

class Raise:
    @hookimpl
    def permits(self, permission):
        if permission == "send":
            raise KeyError("secret detail")

class Bogus:
    @hookimpl
    def permits(self, permission):
        return True if permission == "send" else None

class Down:
    @hookimpl
    def authenticate(self):
        raise HTTPServiceUnavailable("the directory is down")

class Stop:
    @hookimpl
    def authenticate(self, credentials):
        return Denied("no") if credentials.userid == "ops" else None

class Odd:
    @hookimpl
    def authenticate(self, credentials):
        if credentials.userid == "ops":
            raise RuntimeError("secret\\n2026-11-23 ERROR forged")
        return Identity(7) if credentials.userid == "root" else "lvv"

class Any:
    @hookimpl
    def authenticate(self, credentials):
        return Identity(credentials.userid)

class Sesame:
    @hookimpl
    def find_credentials(self, request):
        if "X-Token" in request.headers:
            return Credentials("Token", "", request.headers["X-Token"], "127.0.0.1")

    @hookimpl
    def authenticate(self, credentials):
        if credentials.scheme == "Token" and credentials.secret == "open sesame":
            return Identity("lvv")

class Frugal:
    def __init__(self):
        self.parts = 0

    @hookimpl(wrapper=True)
    def deliver(self, submission):
        parts = sum(message.content.parts for message in submission.messages)
        if parts > 3:
            raise TooMany(17, "3 parts are enough")
        messages = yield
        self.parts += sum(message.content.parts for message in messages)
        return messages

class Elsewhere:
    def __init__(self):
        self.messages = []

    @hookimpl
    def deliver(self, submission):
        self.messages += submission.messages
        return submission.messages
"""


async def later() -> None: ...


@pytest.fixture
def policies(distribution: Callable[..., None]) -> None:
    names = ("Odd", "Deny", "Raise", "Bogus", "Down", "Stop", "Any", "Sesame", "Frugal", "Elsewhere")
    distribution("acme", POLICIES, **{name.lower(): name for name in names})


@pytest.mark.usefixtures("policies")
class TestPolicies:
    def test_any_denied_wins(self, make_gateway: Callable[..., Gateway]) -> None:
        for order in ("htpasswd allow deny", "htpasswd deny allow"):
            gateway = make_gateway({"smsgw.plugins": order})
            reply = gateway.send(mobiles=["911", "79680000000"])
            assert set(reply.json["errors"]) == {"911"}

    @pytest.mark.parametrize("name", ["raise", "bogus"])
    def test_one_that_fails_refuses(self, make_gateway: Callable[..., Gateway], name: str) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} {name}"})
        assert "secret" not in gateway.send(status=403).text
        assert gateway.files() == {}

    def test_a_backend_that_is_down_ends_the_request(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": "down htpasswd allow"})
        reply = gateway.send(status=503)
        assert reply.headers["Retry-After"]
        assert reply.json == {"error": "the directory is down"}
        assert gateway.get("/no/such/path", status=503).json
        gateway = make_gateway({"smsgw.plugins": "htpasswd down allow"})
        gateway.send()

    def test_denied_ends_the_chain(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": "stop any allow", "smsgw.htpasswd.path": None})
        gateway.send()
        gateway.send(user="ops", status=401)

    def test_answers_that_make_no_sense(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = make_gateway({"smsgw.plugins": "odd allow", "smsgw.htpasswd.path": None})
        for user in ("lvv", "root"):
            gateway.send(user=user, status=401)
            gateway.get("/no/such/path", user=user, status=401)
        assert "'odd' should answer Identity" in caplog.text
        for path in ("/api/v1.0/sms/sent/", "/no/such%0a2026-11-23%20ERROR%20forged"):
            reply = gateway.get(path, user="ops", status=500)
            assert "secret" not in reply.text
            assert reply.json["error"]
        assert not [line for line in caplog.text.splitlines() if line.startswith("2026-11-23 ERROR")]

    def test_answers_of_policies_that_make_no_sense(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} bogus"})
        gateway.send(status=403)
        assert "the plugin 'bogus' should answer Allowed, Denied or None, and answered True" in caplog.text

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (True, "found True"),
            ({"userid": "lvv"}, "found a value of type 'dict'"),
            ((), "found a value of type 'tuple'"),
            (Credentials("Basic", "lvv", b"SecretPAss", ""), "their secret is none"),  # type: ignore[arg-type]
            (RuntimeError("secret detail"), "raised by the plugin 'acme'"),
        ],
    )
    def test_nobody_gets_in_by_credentials_that_are_none(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture, answer: object, words: str
    ) -> None:
        class Acme:
            @hookimpl
            def find_credentials(self) -> object:
                if isinstance(answer, Exception):
                    raise answer
                return answer

        gateway = make_gateway({"smsgw.plugins": f"acme {BASE}"}, acme=Acme)
        status = 500 if isinstance(answer, Exception) else 401
        for path in ("/api/v1.0/sms/sent/", "/api/v2/me", "/no/such/path"):
            caplog.clear()
            assert "SecretPAss" not in gateway.get(path, status=status).text
            assert words in caplog.text
            assert "'acme'" in caplog.text
        assert "SecretPAss" not in caplog.text

    @pytest.mark.parametrize("answer", [True, "lvv", "coroutine", {"userid": "lvv"}, [Identity("lvv")]])
    def test_nobody_gets_in_by_an_answer_that_is_none(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture, answer: object
    ) -> None:
        class Acme:
            @hookimpl
            def authenticate(self) -> object:
                return later() if answer == "coroutine" else answer

        gateway = make_gateway({"smsgw.plugins": f"acme {BASE}"}, acme=Acme)
        gateway.send(status=401)
        assert "the plugin 'acme' should answer Identity, Denied or None, and answered" in caplog.text

    @pytest.mark.parametrize("groups", ["alarms", None, 7, {"alarms", 7}, b"alarms"])
    def test_groups_that_are_none(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture, groups: Any
    ) -> None:
        class Acme:
            @hookimpl
            def authenticate(self) -> Identity:
                return Identity("lvv", groups)

        gateway = make_gateway({"smsgw.plugins": f"acme {BASE}"}, acme=Acme)
        gateway.send(status=500)
        assert "TypeError: groups should be a set of names" in caplog.text
        assert "raised by the plugin 'acme'" in caplog.text
        assert gateway.files() == {}

    @pytest.mark.parametrize("groups", [["night", "alarms"], ("alarms", "night"), {"alarms", "night"}])
    def test_groups_of_any_collection(self, groups: Any) -> None:
        assert Identity("lvv", groups) == Identity("lvv", frozenset({"alarms", "night"}))
        assert hash(Identity("lvv", groups))
        assert Identity("lvv", groups).names == ("lvv", "@alarms", "@night", "*")

    @pytest.mark.parametrize("answer", [None, "10 a day", [("day", 10)], "coroutine", {}])
    def test_limits_that_are_none(
        self, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture, answer: object
    ) -> None:
        class Acme:
            @hookimpl
            def limits(self) -> object:
                return later() if answer == "coroutine" else answer

        gateway = make_gateway({"smsgw.plugins": f"{BASE} acme"}, acme=Acme)
        gateway.get("/api/v2/me", status=500)
        assert "the plugin 'acme' should answer a list of Allowance, and answered" in caplog.text

    def test_credentials_of_a_plugin(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": "sesame htpasswd allow"})
        gateway.get("/api/v1.0/sms/sent/", user=None, headers={"X-Token": "open sesame"})
        gateway.get("/api/v1.0/sms/sent/", user=None, headers={"X-Token": "wrong"}, status=401)
        gateway.send()

    @pytest.mark.parametrize("userid", ["a\x85b", "@alarms", " lvv", "lvv ", "u" * 100, "é" * 50])
    def test_a_userid_that_cannot_be_one(self, make_gateway: Callable[..., Gateway], userid: str) -> None:
        gateway = make_gateway({"smsgw.plugins": "any allow", "smsgw.htpasswd.path": None})
        gateway.app.authorization = ("Basic", (userid, "x"))
        gateway.app.get("/api/v1.0/sms/sent/", status=401)

    def test_a_wrapper_counts_parts_and_refuses_whole(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} frugal"})
        frugal = gateway.application.plugins.get_plugin("frugal")
        reply = gateway.send(mobiles=["79680000000", "79160000000"], text="a" * 161, status=429)
        assert reply.headers["Retry-After"] == "17"
        assert reply.json == {"error": "3 parts are enough"}
        assert gateway.files() == {}
        gateway.send(text="a" * 161)
        assert frugal.parts == 2

    def test_carried_elsewhere(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.plugins": f"{BASE} elsewhere"})
        key = {"Idempotency-Key": "elsewhere-1"}
        elsewhere = gateway.application.plugins.get_plugin("elsewhere")
        for _ in range(2):
            gateway.send(text="Hi", status=201)
        replies = [
            gateway.call(
                "POST_JSON", "/api/v1.0/sms/outgoing", {"mobiles": ["911"], "text": "Hi"}, headers=key, status=201
            )
            for _ in range(2)
        ]
        assert replies[0].body == replies[1].body
        assert len(elsewhere.messages) == 3
        assert gateway.files() == {}


BACKGROUND = """
import threading
from smsgw.hookspecs import hookimpl

class Work:
    def __init__(self):
        self.begun, self.ended, self.times = threading.Event(), threading.Event(), 0

    @hookimpl
    def background(self, stop):
        self.times += 1
        self.begun.set()
        stop.wait()
        self.ended.set()

    def includeme(self, config):
        config.add_route("acme", "/acme")
        config.add_view(lambda request: {"who": request.identity.userid}, route_name="acme", renderer="json")

class Views:
    def includeme(self, config):
        config.add_route("acme2", "/acme2")
        config.add_view(lambda request: "two", route_name="acme2", renderer="json", permission="read-all")
"""


def test_background_and_views(make_gateway: Callable[..., Gateway], distribution: Callable[..., None]) -> None:
    distribution("acme", BACKGROUND, work="Work", views="Views")
    gateway = make_gateway({"smsgw.plugins": f"{BASE} work views"})
    work = gateway.application.plugins.get_plugin("work")
    assert work.begun.wait(PATIENCE)
    assert gateway.get("/acme").json == {"who": "lvv"}
    gateway.get("/acme", user=None, status=401)
    gateway.get("/acme2", status=403)
    assert gateway.get("/acme2", user="root").json == "two"

    second = make_gateway({"smsgw.plugins": f"{BASE} work views"})
    waiting = second.application.plugins.get_plugin("work")
    assert not waiting.begun.is_set()
    gateway.application.owner.stop()
    assert work.ended.is_set()
    assert waiting.begun.wait(PATIENCE)
    assert not [thread for thread in threading.enumerate() if thread.name == "smsgw-work" and not thread.is_alive()]


def test_background_follows_a_spool_that_is_made_anew(
    make_gateway: Callable[..., Gateway], distribution: Callable[..., None]
) -> None:
    distribution("acme", BACKGROUND, work="Work", views="Views")
    gateway = make_gateway({"smsgw.plugins": f"{BASE} work"})
    work = gateway.application.plugins.get_plugin("work")
    assert work.begun.wait(PATIENCE)
    gateway.spool.rename(gateway.spool.with_name("old"))
    assert work.ended.wait(PATIENCE)
    (gateway.spool / "outgoing").mkdir(parents=True)
    eventually(lambda: work.times == 2)
    gateway.send()
    assert len(gateway.files()) == 1
