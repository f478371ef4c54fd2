"""``accounts``: what every authentication plugin must stand, and what this one does besides."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from smsgw.testing import DelayConformance, Gateway, MakeGateway, OutageConformance, basic

from accounts_server import PASSWORDS, AccountsServer

FOLDER = "/api/v1.0/sms/sent/"


class TestAccounts(OutageConformance, DelayConformance):
    plugin = "accounts"
    patience = 5.0

    @pytest.fixture
    def settings(self, accounts: AccountsServer) -> Mapping[str, str]:
        return {"smsgw.accounts.url": accounts.url, "smsgw.accounts.timeout": "1"}

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        return PASSWORDS

    @pytest.fixture
    def broken(self, accounts: AccountsServer) -> object:
        return accounts.failing

    @pytest.fixture
    def slow(self, accounts: AccountsServer) -> object:
        return accounts.silent


@pytest.fixture
def make(make_gateway: MakeGateway, accounts: AccountsServer) -> Callable[..., Gateway]:
    def make(**settings: str) -> Gateway:
        changes = {"smsgw.plugins": "accounts allow", "smsgw.accounts.url": accounts.url, "smsgw.allow.admins": None}
        return make_gateway(changes | {f"smsgw.accounts.{name}": value for name, value in settings.items()})

    return make


def ask(gateway: Gateway, userid: str, password: str, status: int) -> None:
    gateway.get(FOLDER, user=None, headers={"Authorization": basic(userid, password)}, status=status)


def test_a_verified_password_is_remembered(make: Callable[..., Gateway], accounts: AccountsServer) -> None:
    gateway = make()
    for _ in range(5):
        ask(gateway, "ann", "SecretPAss", 200)
    assert accounts.asked == 1
    with accounts.failing():
        ask(gateway, "ann", "SecretPAss", 200)
        ask(gateway, "ann", "SecretPass", 503)


def test_a_wrong_password_is_not(make: Callable[..., Gateway], accounts: AccountsServer) -> None:
    gateway = make()
    for _ in range(3):
        ask(gateway, "ann", "wrong", 401)
    assert accounts.asked == 3


def test_nothing_is_remembered(make: Callable[..., Gateway], accounts: AccountsServer) -> None:
    gateway = make(cache_seconds="0")
    for _ in range(3):
        ask(gateway, "ann", "SecretPAss", 200)
    assert accounts.asked == 3


@pytest.mark.parametrize("status", [100, 201, 204, 302, 400, 403, 500, 503])
def test_what_the_service_should_not_answer(
    make: Callable[..., Gateway], accounts: AccountsServer, status: int
) -> None:
    gateway = make(timeout="0.5")
    with accounts.failing(status):
        ask(gateway, "ann", "SecretPAss", 503)


def test_a_service_that_is_not_there(make: Callable[..., Gateway], accounts: AccountsServer) -> None:
    gateway = make()
    accounts.server_close()
    ask(gateway, "ann", "SecretPAss", 503)


def test_an_answer_that_makes_no_sense(make: Callable[..., Gateway], accounts: AccountsServer) -> None:
    gateway = make()
    with accounts.failing(200):
        ask(gateway, "ann", "SecretPAss", 503)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60000,
        b"[]",
        b'{"userid": "ann"}',
        b'{"userid": ["ann"], "groups": []}',
        b'{"userid": "ann", "groups": "alarms"}',
        b'{"userid": "ann", "groups": [["alarms"]]}',
        b'{"userid": "ann", "groups": ["' + b"x" * 100000 + b'"]}',
    ],
)
def test_a_body_that_is_none(make: Callable[..., Gateway], body: bytes) -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\n" + body) as url:
        ask(make(url=url), "ann", "SecretPAss", 503)


def test_a_service_that_is_never_done(make: Callable[..., Gateway]) -> None:
    """It says something all the time, which is no answer."""
    with answering(b"HTTP/1.0 200 OK\r\n\r\n", *[b" "] * 100, pause=0.1) as url:
        begin = time.monotonic()
        ask(make(url=url, timeout="0.5"), "ann", "SecretPAss", 503)
        assert time.monotonic() - begin < 5


@contextlib.contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A service that answers one question with those pieces, with pauses (seconds) between them."""
    ended = threading.Event()

    def answer() -> None:
        connected, _ = server.accept()
        with connected, contextlib.suppress(OSError):
            connected.recv(65536)
            for piece in pieces:
                connected.sendall(piece)
                if ended.wait(pause):
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("accounts.example.org", "should be a URL"),
        ("ftp://accounts.example.org", "should be a URL"),
        ("http://accounts.example.org/login", "should begin with https://"),
    ],
)
def test_a_url_that_is_wrong(refusal: Callable[..., str], url: str, words: str) -> None:
    assert words in refusal({"smsgw.plugins": "accounts allow", "smsgw.accounts.url": url})
