"""Who is asking: credentials of every kind, and guessing slowed down."""

from __future__ import annotations

import base64
import os
import struct
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid.request import Request

from smsgw.guessing import Guesses
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity
from smsgw.security import HOPS, client_address
from tests.conftest import Gateway, basic

LIST = "/api/v1.0/sms/sent/"

QUIET = """
from smsgw.hookspecs import hookimpl

class Quiet:
    @hookimpl
    def authenticate(self, credentials):
        return None
"""


class Folding:
    """As directories do, it passes over case, and answers in its own spelling."""

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | None:
        userid = credentials.userid.lower()
        return Identity(userid) if credentials.secret == f"{userid}'s own" else None


class Anybody:
    """Lets in whoever comes, by the userid that was shown, or by one that the secret spells out."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity:
        self.asked.append(credentials.userid)
        return Identity(credentials.secret.encode().decode("unicode_escape") or credentials.userid)


def ask(gateway: Gateway, header: str | None, status: int, address: str = "10.0.0.1", **headers: str) -> dict[str, str]:
    gateway.app.authorization = None
    sent = ({"Authorization": header} if header is not None else {}) | headers
    reply = gateway.app.get(LIST, headers=sent, extra_environ={"REMOTE_ADDR": address}, status=status)
    return dict(reply.headers)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic bHZ2",
        "Basic " + base64.b64encode(b":SecretPAss").decode(),
        "Basic " + base64.b64encode(b"lvv\0:SecretPAss").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        basic("lvv", ""),
        basic("lvv", "secretpass"),
        basic("LVV", "SecretPAss"),
        basic("lvv", "SecretPAss\n"),
        basic("lvv", "x" * 100000),
        basic("x" * 100000, "x"),
        "Bearer",
        "Bearer token",
        "Digest username=lvv",
        "Basic Basic " + basic("lvv", "SecretPAss"),
        basic("lvv", "SecretPAss") + " x",
    ],
)
def test_not_let_in(gateway: Gateway, header: str | None) -> None:
    assert ask(gateway, header, 401)["WWW-Authenticate"] == 'Basic realm="smsgw"'


@pytest.mark.parametrize(
    ("plugins", "challenge"),
    [
        ("htpasswd", 'Basic realm="smsgw"'),
        ("token htpasswd", 'Bearer realm="smsgw", Basic realm="smsgw"'),
        ("htpasswd token", 'Basic realm="smsgw", Bearer realm="smsgw"'),
        ("quiet", 'Basic realm="smsgw"'),
        ("", 'Basic realm="smsgw"'),
    ],
)
def test_a_401_asks_for_what_is_taken(
    make_gateway: Callable[..., Gateway], distribution: Callable[..., None], plugins: str, challenge: str
) -> None:
    distribution("acme", QUIET, quiet="Quiet")
    known = {} if "htpasswd" in plugins else {"smsgw.htpasswd.path": None}
    gateway = make_gateway({"smsgw.plugins": f"{plugins} allow"} | known)
    for header in (None, basic("lvv", "wrong"), "Bearer wrong"):
        assert ask(gateway, header, 401)["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_let_in(gateway: Gateway, scheme: str) -> None:
    ask(gateway, basic("lvv", "SecretPAss").replace("Basic", scheme), 200)


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")))
def test_any_authorization_header(gateway: Gateway, header: str) -> None:
    ask(gateway, header, 401, address="10.9.9.9")
    ask(gateway, "Basic " + header, 401, address="10.9.9.9")


@given(st.binary())
def test_any_basic_credentials(gateway: Gateway, pair: bytes) -> None:
    gateway.app.authorization = None
    header = {"Authorization": "Basic " + base64.b64encode(pair).decode()}
    gateway.app.get(LIST, headers=header, extra_environ={"REMOTE_ADDR": os.urandom(4).hex()}, status=401)


PROXIES = tuple(ip_network(f"10.0.{number}.0/24") for number in reversed(range(50)))


def forwarded(header: str) -> str:
    """The address of a client whose request came through trusted proxies."""
    environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": header}
    return client_address(Request.blank("/", environ=environ), PROXIES)


@pytest.mark.parametrize("userid", ["lvv\x07", "lvv\x1b[2J", "l\u200bvv", "lvv\x85", "l\u2028vv", "lvv\t", "lvv\x7f"])
def test_a_userid_that_cannot_be_printed_is_shown_to_no_plugin(
    make_gateway: Callable[..., Gateway], userid: str
) -> None:
    gateway = make_gateway({"smsgw.plugins": "anybody allow", "smsgw.htpasswd.path": None}, anybody=Anybody)
    ask(gateway, basic(userid, ""), 401)
    assert gateway.plugin("anybody").asked == []
    ask(gateway, basic("lvv", ""), 200)


@pytest.mark.parametrize("answer", ["@alarms", "*", " lvv", "lvv\\n", "l\\x07vv", "\\x85lvv", "x" * 1000])
def test_a_userid_that_cannot_be_one_lets_nobody_in(make_gateway: Callable[..., Gateway], answer: str) -> None:
    gateway = make_gateway({"smsgw.plugins": "anybody allow", "smsgw.htpasswd.path": None}, anybody=Anybody)
    ask(gateway, basic("lvv", answer), 401)


class TestGuessing:
    WRONG, RIGHT = basic("lvv", "wrong"), basic("lvv", "SecretPAss")

    def test_a_user_from_an_address(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "3"})
        for _ in range(3):
            ask(gateway, self.WRONG, 401)
        for header in (self.WRONG, self.RIGHT):
            assert 0 < int(ask(gateway, header, 429)["Retry-After"]) <= 60
        ask(gateway, self.RIGHT, 200, address="10.0.0.2")
        ask(gateway, basic("ops", "Alarm!ng"), 200)

    def test_however_a_userid_is_spelt(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "3", "smsgw.guesses_per_address": "0"})
        for userid in ("lvv", "LVV", "Lvv"):
            ask(gateway, basic(userid, "wrong"), 401)
        ask(gateway, self.RIGHT, 429)
        for userid in ("straße", "STRASSE", "Strasse"):
            ask(gateway, basic(userid, "wrong"), 401)
        ask(gateway, basic("strasse", "wrong"), 429)

    def test_a_success_clears_no_count_of_the_address(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "0", "smsgw.guesses_per_address": "3"})
        for _ in range(2):
            ask(gateway, self.WRONG, 401)
            ask(gateway, self.RIGHT, 200)
        ask(gateway, self.WRONG, 401)
        ask(gateway, self.RIGHT, 429)

    def test_a_minute_is_waited_at_most_and_then_nothing(self, tmp_path: Path) -> None:
        """The file has times of the machine's clock since it was started."""
        guesses = Guesses(tmp_path, 3, 0)
        for _ in range(3):
            guesses.attempt("lvv", "10.0.0.1").wrong()
        assert 55 <= guesses.attempt("lvv", "10.0.0.1").wait <= 60
        (counter,) = tmp_path.iterdir()
        now = time.monotonic()
        for ages, least, most in (
            ((61, 61, 61), 0, 0),
            ((61, 5, 5), 0, 0),
            ((40, 5, 5), 15, 20),
            ((70, 40, 30, 20), 15, 20),
            ((50, 40, 30, 20), 15, 20),  # the oldest no longer counts, since three are enough
            ((-100, -100, -100), 0, 0),  # of before the machine was started anew
        ):
            counter.write_bytes(b"".join(struct.pack("d", now - age) for age in ages))
            assert least <= guesses.attempt("lvv", "10.0.0.1").wait <= most, ages

    def test_a_success_clears_the_user_there(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "3", "smsgw.guesses_per_address": "0"})
        for _ in range(5):
            ask(gateway, self.WRONG, 401)
            ask(gateway, self.WRONG, 401)
            ask(gateway, self.RIGHT, 200)

    def test_an_address(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_address": "5"})
        for number in range(5):
            ask(gateway, basic(f"user{number}", "wrong"), 401)
        ask(gateway, self.RIGHT, 429)
        ask(gateway, "Bearer token", 429)
        ask(gateway, None, 401)
        ask(gateway, self.RIGHT, 200, address="10.0.0.2")

    def test_an_address_of_ipv6_is_its_network(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_address": "3"})
        for number in range(3):
            ask(gateway, basic(f"user{number}", "wrong"), 401, address=f"2001:db8::{number}")
        ask(gateway, self.RIGHT, 429, address="2001:db8:0:0:ffff::1")
        ask(gateway, self.RIGHT, 200, address="2001:db8:0:1::1")

    def test_an_address_of_ipv4_is_itself_in_ipv6(self, tmp_path: Path) -> None:
        guesses = Guesses(tmp_path, 0, 1)
        guesses.attempt("lvv", "::ffff:10.0.0.1").wrong()
        assert guesses.attempt("lvv", "10.0.0.1").wait > 0
        assert guesses.attempt("lvv", "::ffff:10.0.0.2").wait == 0

    def test_no_limit(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "0", "smsgw.guesses_per_address": "0"})
        for _ in range(150):
            ask(gateway, self.WRONG, 401)
        ask(gateway, self.RIGHT, 200)

    def test_forwarded_addresses_are_not_believed(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "3"})
        for number in range(3):
            ask(gateway, self.WRONG, 401, **{"X-Forwarded-For": f"10.1.1.{number}"})
        ask(gateway, self.RIGHT, 429, **{"X-Forwarded-For": "10.1.1.9"})

    def test_a_trusted_proxy_s_are(self, make_gateway: Callable[..., Gateway]) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "3", "smsgw.trusted_proxies": "10.0.0.1 192.168.0.0/16"})
        forwarded = {"X-Forwarded-For": "6.6.6.6, 10.1.1.1, 192.168.3.4"}
        for _ in range(3):
            ask(gateway, self.WRONG, 401, **forwarded)
        ask(gateway, self.RIGHT, 429, **{"X-Forwarded-For": "10.1.1.1"})
        ask(gateway, self.RIGHT, 200, **{"X-Forwarded-For": "6.6.6.6"})
        ask(gateway, self.RIGHT, 200)
        ask(gateway, self.RIGHT, 200, **{"X-Forwarded-For": "10.1.1.1, bogus"})
        ask(gateway, self.RIGHT, 429, address="10.1.1.1")

    @pytest.mark.parametrize("proxy", ["127.0.0.1", "::ffff:127.0.0.1", ""])
    @pytest.mark.parametrize("hop", ["10.1.1.1", "10.1.1.1:4711", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711"])
    def test_every_form_of_an_address(self, make_gateway: Callable[..., Gateway], proxy: str, hop: str) -> None:
        gateway = make_gateway({"smsgw.guesses_per_address": "1", "smsgw.trusted_proxies": "127.0.0.1 unix"})
        ask(gateway, self.WRONG, 401, address=proxy, **{"X-Forwarded-For": f"6.6.6.6, {hop}"})
        ask(gateway, self.RIGHT, 429, address=proxy, **{"X-Forwarded-For": hop})
        ask(gateway, self.RIGHT, 200, address=proxy, **{"X-Forwarded-For": "10.1.1.2"})

    @pytest.mark.parametrize(
        ("header", "address"),
        [
            ("6.6.6.6", "6.6.6.6"),
            ("6.6.6.6:1, 10.0.0.2:4711", "6.6.6.6"),
            ("::ffff:6.6.6.6, [::ffff:10.0.0.2]:4711", "::ffff:6.6.6.6"),
            ("6.6.6.6,\t10.0.0.2 ", "6.6.6.6"),
            ("6.6.6.6, unknown", "10.0.0.1"),
            ("6.6.6.6, _hidden", "10.0.0.1"),
            ("6.6.6.6, ", "10.0.0.1"),
            ("6.6.6.6:http", "10.0.0.1"),
            ("[::1]:_x", "10.0.0.1"),
            ("[::1]x", "10.0.0.1"),
            ("fe80::1%eth0", "10.0.0.1"),
            ("::1:" + "0" * 100, "10.0.0.1"),
            ("6.6.6.6" + ", 10.0.0.2" * (HOPS - 1), "6.6.6.6"),
            ("6.6.6.6" + ", 10.0.0.2" * HOPS, "10.0.0.2"),
        ],
    )
    def test_what_is_read_of_the_header(self, header: str, address: str) -> None:
        assert forwarded(header) == address

    @pytest.mark.parametrize(
        "repeated", [*":.,[]1a% ", "10.0.0.1,", "10.0.0.1:1, ", "[::ffff:10.0.0.1]:1,", "::,", "::ffff:10.0.0.1, "]
    )
    def test_the_longest_header_takes_little_time(self, repeated: str) -> None:
        """262,144 bytes is the most that waitress takes for all headers."""
        header = (repeated * 262144)[-262144:]
        begin = time.thread_time()
        assert forwarded(header) in ("10.0.0.1", "::ffff:10.0.0.1", "::")
        assert time.thread_time() - begin < 0.05

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        guesses = Guesses(tmp_path / "nowhere", 3, 100)
        for _ in range(3):
            attempt = guesses.attempt("lvv", "10.0.0.1")
            assert attempt.wait == 0
            attempt.wrong()
        blocked = guesses.attempt("lvv", "10.0.0.1")
        assert blocked.wait > 0
        assert guesses.attempt("ops", "10.0.0.1").wait == 0
        blocked.right()
        assert guesses.attempt("lvv", "10.0.0.1").wait == 0

    def test_what_cannot_be_written_is_remembered_of_so_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The address that was first is forgotten for a new one, and for none that is there."""
        monkeypatch.setattr("smsgw.guessing.REMEMBERED", 2)
        guesses = Guesses(tmp_path / "nowhere", 0, 1)
        waits = []
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"):
            guesses.attempt("lvv", address).wrong()
            waits.append([guesses.attempt("lvv", f"10.0.0.{last}").wait > 0 for last in (1, 2, 3)])
        assert waits == [[True, False, False], [True, True, False], [True, True, False], [False, True, True]]

    def test_processes_count_together_and_nobody_else_reads_it(self, tmp_path: Path) -> None:
        one, other = Guesses(tmp_path, 2, 0), Guesses(tmp_path, 2, 0)
        one.attempt("lvv", "10.0.0.1").wrong()
        other.attempt("lvv", "10.0.0.1").wrong()
        assert one.attempt("lvv", "10.0.0.1").wait > 0
        assert [counter.stat().st_mode & 0o777 for counter in tmp_path.iterdir()] == [0o600]

    def test_a_counter_that_is_broken(self, tmp_path: Path) -> None:
        guesses = Guesses(tmp_path, 3, 0)
        for junk in (b"x", b"\xff" * 800, os.urandom(1000)):
            guesses.attempt("lvv", "10.0.0.1").wrong()
            (counter,) = tmp_path.iterdir()
            counter.write_bytes(junk)
            assert 0 <= guesses.attempt("lvv", "10.0.0.1").wait <= 60

    def test_what_no_longer_counts_is_forgotten(self, tmp_path: Path) -> None:
        guesses = Guesses(tmp_path, 3, 3)
        guesses.attempt("lvv", "10.0.0.1").wrong()
        guesses.expire()
        assert len(list(tmp_path.iterdir())) == 2
        for counter in tmp_path.iterdir():
            os.utime(counter, (0, 0))
        guesses.expire()
        assert list(tmp_path.iterdir()) == []


def test_a_user_of_a_backend_is_nobody_else_s_in_another_spelling(make_gateway: Callable[..., Gateway]) -> None:
    """The order is that of the ini file, however the userid is written."""
    gateway = make_gateway({"smsgw.plugins": "htpasswd folding allow"}, folding=Folding)
    ask(gateway, basic("root", "Adm1nist"), 200)
    ask(gateway, basic("Anna", "anna's own"), 200)
    for spelling in ("root", "ROOT", "Root"):
        ask(gateway, basic(spelling, "root's own"), 401)
    gateway = make_gateway({"smsgw.plugins": "folding htpasswd allow"}, folding=Folding)
    ask(gateway, basic("ROOT", "root's own"), 200)


def test_no_secret_is_logged(make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture) -> None:
    gateway = make_gateway({"smsgw.guesses_per_user": "2"})
    for header in (basic("lvv", "Sup3rSecret"), basic("nobody", "Sup3rSecret"), "Bearer Sup3rSecret") * 2:
        ask(gateway, header, 401)
    ask(gateway, basic("lvv", "Sup3rSecret"), 429)
    files = b"".join(path.read_bytes() for path in gateway.spool.rglob("*") if path.is_file())
    assert "Sup3rSecret" not in caplog.text
    assert b"Sup3rSecret" not in files


def test_neither_a_token_for_a_userid_nor_a_long_one_is_logged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    ask(gateway, basic("smsgw_Sup3rSecret", ""), 401)
    assert "wrong credentials of '' from 10.0.0.1" in caplog.text
    assert "Sup3rSecret" not in caplog.text
    ask(gateway, basic("x" * 5000, "wrong"), 401)
    assert "x" * 100 in caplog.text
    assert "x" * 101 not in caplog.text
