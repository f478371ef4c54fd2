"""``ldap``: servers that are dead, silent, slow, false or unsafe; what is remembered, what is configured wrongly."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.security import Denied

from smsgw.model import ConfigurationError, Identity, Unavailable
from smsgw_plugins.ldap.link import Link
from smsgw_plugins.ldap.wire import Address, Broken
from tests import slapd
from tests.conftest import Gateway, at_length, eventually, sha
from tests.directory import SECRET, BlackHole, Listener, Recorder, ask, gateway_settings, make, send
from tests.server import Server
from tests.slapd import PEOPLE, SERVICE_PASSWORD, SUFFIX, Certificate, Slapd, certify, person

pytestmark = pytest.mark.skipif(slapd.missing() is not None, reason=f"{slapd.missing()} is not installed")

TIMEOUT = 0.5  # seconds for one server, where it is waited for
SLACK = 1.0  # seconds that a busy machine adds


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(tmp_path: Path, certificate: Certificate) -> Iterator[Slapd]:
    with Slapd(tmp_path, person("lvv", SECRET), person("ops", "Alarm!ng"), certificate=certificate) as running:
        yield running


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took < seconds + SLACK, f"it took {took:.2f} s"


def nobody_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"ldap://127.0.0.1:{listener.getsockname()[1]}"


SUCCESS = b"\x0a\x01\x00\x04\x00\x04\x00"  # of an LDAPResult (RFC 4511, 4.1.9)


def element(tag: int, content: bytes) -> bytes:
    """Of BER, and short."""
    return bytes([tag, len(content)]) + content


def message(request: bytes, operation: bytes) -> bytes:
    """An answer to that request: it has the same number."""
    return element(0x30, request[2 : 4 + request[3]] + operation)


# Servers that are down


def test_dead(server: Slapd, make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(gateway_settings(server.by_search, cache_seconds="60"))
    send(gateway, "lvv")
    server.kill()
    send(gateway, "lvv")  # it was verified just now
    for userid, secret in (("lvv", "wrong"), ("ops", "Alarm!ng"), ("nobody", "x")):
        with within(0):
            reply = send(gateway, userid, secret, status=503)
        assert int(reply.headers["Retry-After"]) > 0
        assert reply.json == {"error": "The directory is out of service"}
    server.start()
    send(gateway, "ops", "Alarm!ng")
    send(gateway, "lvv", "wrong", status=401)


def test_health_tells_that_it_is_dead(
    server: Slapd, make_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute: where nobody is sent to the gateway any more, no request finds out that it is back."""
    gateway = make_gateway(gateway_settings(server.by_search))
    gateway.get("/health/ready", user=None)
    server.kill()
    send(gateway, "lvv", status=503)
    found = gateway.get("/health/ready", user=None, status=503).json
    assert found == {"ready": False, "wrong": ["plugin", "authentication"]}
    server.start()
    send(gateway, "lvv")
    gateway.get("/health/ready", user=None)
    server.kill()
    send(gateway, "ops", "Alarm!ng", status=503)
    gateway.get("/health/ready", user=None, status=503)
    monkeypatch.setattr("smsgw_plugins.ldap.directory.REMEMBERED", 0.0)
    gateway.get("/health/ready", user=None)


def test_an_emergency_account_stands_before_it(
    server: Slapd, make_gateway: Callable[..., Gateway], password_file: Path
) -> None:
    password_file.write_text(f"root:{sha('Adm1nist')}\n")
    chain = {"smsgw.plugins": "htpasswd ldap allow", "smsgw.htpasswd.path": str(password_file)}
    gateway = make_gateway(gateway_settings(server.by_search) | chain)
    send(gateway, "root", "Adm1nist")
    send(gateway, "lvv")
    server.kill()
    send(gateway, "root", "Adm1nist")
    send(gateway, "lvv", "wrong", status=503)


@pytest.mark.parametrize("way", ["search", "template"])
def test_a_restart_is_not_noticed(server: Slapd, way: str) -> None:
    """The connections that were kept are dead; nobody is refused for it."""
    plugin = make(server.by_search if way == "search" else server.by_template)
    for end in (server.stop, server.kill):
        assert ask(plugin, "lvv") == Identity("lvv")
        end()
        server.start()
        assert ask(plugin, "lvv") == Identity("lvv")
        assert not isinstance(ask(plugin, "lvv", "wrong"), Identity)


def test_connections_are_reused(server: Slapd) -> None:
    plugin = make(server.by_search)
    for _ in range(10):
        ask(plugin, "lvv")
        ask(plugin, "nobody")
    assert server.count("ACCEPT from") == 1 + 2  # the first one looked whether it is up


@pytest.mark.parametrize("dead", ["refused", "black hole", "paused"])
def test_the_next_server(server: Slapd, tmp_path: Path, dead: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its time is waited for once, and then it is left alone for a while."""
    with contextlib.ExitStack() as stack:
        if dead == "refused":
            url = nobody_listens()
        elif dead == "black hole":
            url = stack.enter_context(BlackHole()).url
        else:
            paused = stack.enter_context(Slapd(tmp_path, person("lvv", SECRET)))
            paused.pause()
            url = paused.url
        plugin = make(server.by_search, url=f"{url} {server.url}", timeout=str(TIMEOUT))
        with within(TIMEOUT):
            assert ask(plugin, "lvv") == Identity("lvv")
        with within(0):
            for _ in range(5):
                assert ask(plugin, "lvv") == Identity("lvv")
                assert isinstance(ask(plugin, "lvv", "wrong"), Denied)
        assert caplog.text.count(f"{url} is out of service") == 1


def test_the_preferred_server_is_asked_again(server: Slapd, tmp_path: Path) -> None:
    with Slapd(tmp_path, person("lvv", SECRET)) as preferred:
        plugin = make(server.by_search, url=f"{preferred.url} {server.url}")
        ask(plugin, "lvv")
        assert server.count("BIND dn") == 0
        preferred.kill()
        assert ask(plugin, "lvv") == Identity("lvv")
        assert server.count("BIND dn") > 0
        preferred.start()
        before = preferred.count("BIND dn")
        assert ask(plugin, "lvv") == Identity("lvv")
        eventually(lambda: preferred.count("BIND dn") > before)


def test_one_that_hangs_while_in_use(server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw_plugins.ldap.directory.AVOIDED", 1.0)
    plugin = make(server.by_search, timeout=str(TIMEOUT))
    assert ask(plugin, "lvv") == Identity("lvv")
    server.pause()
    with within(TIMEOUT), pytest.raises(Unavailable):
        ask(plugin, "lvv")
    with within(0), pytest.raises(Unavailable):
        ask(plugin, "lvv")
    server.resume()

    def is_back() -> bool:
        with contextlib.suppress(Unavailable):
            return ask(plugin, "lvv") == Identity("lvv")
        return False

    eventually(is_back)


def test_one_request_finds_out_for_all(monkeypatch: pytest.MonkeyPatch, server: Slapd) -> None:
    """The others do not wait: of several threads, one tries the silent server again."""
    monkeypatch.setattr("smsgw_plugins.ldap.directory.AVOIDED", 0.2)
    with BlackHole() as silent:
        plugin = make(server.by_search, url=f"{silent.url} {server.url}", timeout=str(TIMEOUT))
        ask(plugin, "lvv")
        time.sleep(0.25)  # it may be asked again from then on
        took: list[float] = []

        def measure() -> None:
            begun = time.monotonic()
            assert ask(plugin, "lvv") == Identity("lvv")
            took.append(time.monotonic() - begun)

        threads = [threading.Thread(target=measure) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(value > TIMEOUT * 0.9 for value in took) == [False] * 5 + [True]


@pytest.mark.parametrize("every", [0.0, 0.1])
def test_one_that_trickles(every: float) -> None:
    """Each octet comes in time, and the answer never does; or there are too many of them."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"\x30\x84\x7f\xff\xff\xff")
        while True:
            connection.sendall(b"x" if every else b"x" * 65536)
            time.sleep(every)

    with Listener(trickle) as listener:
        plugin = make({}, url=listener.url, user_dn=f"uid={{userid}},{PEOPLE}", timeout=str(TIMEOUT))
        with within(TIMEOUT), pytest.raises(Unavailable):
            ask(plugin, "lvv")


@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x03\x40\x00"])
def test_one_that_is_silent_or_trickles_under_tls(answer: bytes) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(answer)
        while True:
            connection.sendall(b"x" if answer else b"")
            time.sleep(0.1)

    with Listener(trickle) as listener:
        url = listener.url.replace("ldap:", "ldaps:")
        plugin = make({}, url=url, user_dn=f"uid={{userid}},{PEOPLE}", timeout=str(TIMEOUT))
        with within(TIMEOUT), pytest.raises(Unavailable):
            ask(plugin, "lvv")


def test_under_load_while_it_restarts(server: Slapd, base_settings: dict[str, str], tmp_path: Path) -> None:
    """Nobody gets in with a wrong password, everybody does with the right one as soon as it is back."""
    changes = gateway_settings(server.by_search, cache_seconds="0", timeout="2")
    merged = {key: value for key, value in (base_settings | changes).items() if value is not None}
    merged["smsgw.guesses_per_user"] = merged["smsgw.guesses_per_address"] = "0"
    stop = threading.Event()
    seen: list[tuple[float, str, int]] = []
    with Server(tmp_path, merged) as gateway:

        def load(password: str) -> None:
            while not stop.is_set():
                begun = time.monotonic()
                seen.append((begun, password, gateway.send(["79680000000"], password=password).status))

        threads = [threading.Thread(target=load, args=[password]) for password in (SECRET, SECRET, "wrong")]
        for thread in threads:
            thread.start()
        down: list[tuple[float, float]] = []
        for end in (server.kill, server.stop, server.kill):
            count = len(seen)
            eventually(lambda count=count: len(seen) > count + 30)
            begun = time.monotonic()
            end()
            count = len(seen)
            eventually(lambda count=count: len(seen) > count + 6)
            server.start()
            down.append((begun, time.monotonic()))
        count = len(seen)
        eventually(lambda: len(seen) > count + 30)
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for _, password, status in seen if password == SECRET} == {201, 503}
    assert {status for _, password, status in seen if password == "wrong"} == {401, 503}
    for begun, _, status in seen:
        if status == 503:
            assert any(since - 0.5 <= begun <= until for since, until in down)
    assert SECRET not in gateway.stderr


# TLS


def safe_ways(server: Slapd) -> list[dict[str, str]]:
    """``ldaps://`` and StartTLS, by a name that the certificate has."""
    return [{"url": server.tls_url}, {"url": server.url.replace("127.0.0.1", "localhost"), "starttls": "true"}]


@pytest.mark.parametrize("way", [0, 1], ids=["ldaps", "StartTLS"])
def test_tls(server: Slapd, certificate: Certificate, way: int) -> None:
    plugin = make(server.by_search, ca_file=str(certificate.authority), **safe_ways(server)[way])
    assert ask(plugin, "lvv") == Identity("lvv")
    assert isinstance(ask(plugin, "lvv", "wrong"), Denied)
    assert "ssf=256" in server.log
    by_address = {key: value.replace("localhost", "127.0.0.1") for key, value in safe_ways(server)[way].items()}
    assert ask(make(server.by_search, ca_file=str(certificate.authority), **by_address), "lvv") == Identity("lvv")


@pytest.mark.parametrize("way", [0, 1], ids=["ldaps", "StartTLS"])
@pytest.mark.parametrize("wrong", ["name", "expired", "authority", "system"])
def test_a_certificate_that_is_wrong(
    tmp_path: Path, certificate: Certificate, way: int, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["elsewhere.example"] if wrong == "name" else []
    until = datetime.now(UTC) - timedelta(days=1) if wrong == "expired" else None
    own = certify(tmp_path / "own", *names, until=until)
    authority = {"authority": str(certificate.authority), "system": None}.get(wrong, str(own.authority))
    with Slapd(tmp_path, person("lvv", SECRET), certificate=own) as server:
        plugin = make(server.by_template, ca_file=authority, **safe_ways(server)[way])
        with pytest.raises(Unavailable):
            ask(plugin, "lvv")
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        assert server.count("BIND") == 0
        unsafe = make(server.by_template, insecure_accept_any_certificate="true", **safe_ways(server)[way])
        assert ask(unsafe, "lvv") == Identity("lvv")
        assert "no certificate of the directory is checked" in caplog.text


@pytest.mark.parametrize("way", ["search", "template"])
def test_a_server_that_refuses_starttls(tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    with Slapd(tmp_path, person("lvv", SECRET)) as server, Recorder(server.port) as recorder:
        settings = server.by_search if way == "search" else server.by_template
        with pytest.raises(Unavailable):
            ask(make(settings, url=recorder.url, starttls="true"), "lvv")
        eventually(lambda: b"1.3.6.1.4.1.1466.20037" in recorder.sent)
        assert SECRET.encode() not in recorder.sent
        assert SERVICE_PASSWORD.encode() not in recorder.sent
        assert server.count("BIND") == 0
        assert "is out of service" in caplog.text


def test_starttls_that_is_stripped(server: Slapd, certificate: Certificate) -> None:
    """Whoever is between says yes to StartTLS, and goes on without it."""

    def pretend(connection: socket.socket) -> None:
        connection.sendall(message(connection.recv(4096), element(0x78, SUCCESS)))
        seen.append(connection.recv(4096))

    seen: list[bytes] = []
    with Listener(pretend) as listener:
        plugin = make(server.by_template, url=listener.url, starttls="true", timeout=str(TIMEOUT))
        with within(TIMEOUT), pytest.raises(Unavailable):
            ask(plugin, "lvv")
    eventually(lambda: seen)
    assert seen[0][:1] == b"\x16"  # the first octet of a TLS handshake, and no bind


def test_a_connection_that_was_closed_is_not_opened_again_without_tls(server: Slapd, certificate: Certificate) -> None:
    """ldap3 would do so by itself."""
    context = ssl.create_default_context(cafile=str(certificate.authority))
    dn, deadline = f"uid=lvv,{PEOPLE}", time.monotonic() + 60
    link = Link(Address(server.url, "localhost", server.port, context, has_starttls=True), deadline)
    with contextlib.closing(link):
        assert link.bind(dn, SECRET.encode())
        server.stop()
        server.start()
        before = server.count("BIND dn")
        with pytest.raises(Broken):
            link.read(dn, ["uid"])
        with pytest.raises(Broken):
            link.bind(dn, SECRET.encode())
        assert server.count("BIND dn") == before


def test_a_warning_where_passwords_could_be_read(caplog: pytest.LogCaptureFixture, certificate: Certificate) -> None:
    for url in ("ldap://127.0.0.1", "ldap://localhost:3890", "ldap://[::1]", "ldaps://ldap.example.com"):
        make({}, url=url, user_dn=f"uid={{userid}},{PEOPLE}")
    make({}, url="ldap://ldap.example.com", starttls="true", user_dn=f"uid={{userid}},{PEOPLE}")
    assert caplog.text == ""
    make({}, url="ldap://ldap.example.com", user_dn=f"uid={{userid}},{PEOPLE}")
    assert "passwords go over ldap://ldap.example.com as they are typed" in caplog.text


# Servers that are false


@settings(max_examples=at_length(120, 15))
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=3))
def test_any_answer(answers: list[bytes]) -> None:
    """No octets are a yes, or an error of ours."""

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        for octets in answers:
            connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)

    with Listener(answer) as listener:
        plugin = make({}, url=listener.url, user_dn=f"uid={{userid}},{PEOPLE}", timeout="2")
        with pytest.raises(Unavailable):
            ask(plugin, "lvv")


@pytest.mark.parametrize("way", [{"user_dn": "uid={userid},dc=example"}, {"search_base": "dc=example"}])
@pytest.mark.parametrize(
    ("dn", "attribute", "value", "status"),
    [
        (b"uid=lvv", b"uid", b"lvv", 201),
        (b"", b"uid", b"lvv", 503),
        (b"\xff", b"uid", b"lvv", 503),
        (b"no name", b"uid", b"", 401),
        (b"uid=lvv", b"uid", b"\xff\xfe", 401),
        (b"uid=lvv", b"uid", b"a\nb", 401),
        (b"uid=lvv", b"uid;range=0-9", b"lvv", 503),
        (b"uid=lvv", b"\xff", b"lvv", 401),
        (b"uid=lvv", b"mail", b"lvv", 401),
    ],
)
def test_odd_entries(
    make_gateway: Callable[..., Gateway], way: dict[str, str], dn: bytes, attribute: bytes, value: bytes, status: int
) -> None:
    """Of a server that takes any password."""

    def answer(connection: socket.socket) -> None:
        while request := connection.recv(4096):
            if request.find(b"\x60", 2, 10) > 0:
                connection.sendall(message(request, element(0x61, SUCCESS)))
            else:
                values = element(0x30, element(0x04, attribute) + element(0x31, element(0x04, value)))
                entry = element(0x64, element(0x04, dn) + element(0x30, values))
                connection.sendall(message(request, entry) + message(request, element(0x65, SUCCESS)))

    with Listener(answer) as listener:
        gateway = make_gateway(gateway_settings({}, url=listener.url, timeout="2", **way))
        send(gateway, "lvv", status=status)


# What is remembered


def test_what_was_verified_is_not_asked_for_again(server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = make(server.by_search, cache_seconds="60")
    now = time.monotonic()
    assert ask(plugin, "LVV") == Identity("lvv")
    before = server.count("BIND dn"), server.count("SRCH base")
    assert ask(plugin, "LVV") == Identity("lvv")
    assert (server.count("BIND dn"), server.count("SRCH base")) == before
    assert isinstance(ask(plugin, "LVV", "wrong"), Denied)
    server.kill()
    assert ask(plugin, "LVV") == Identity("lvv")
    for userid, secret in (("lvv", SECRET), ("LVV", "wrong"), ("ops", SECRET)):
        with pytest.raises(Unavailable):
            ask(plugin, userid, secret)
    monkeypatch.setattr("smsgw.verified.time.monotonic", lambda: now + 61)
    with pytest.raises(Unavailable):
        ask(plugin, "LVV")


def test_a_new_password_takes_effect_at_once_and_the_old_one_ends(server: Slapd) -> None:
    plugin = make(server.by_search, cache_seconds="1")
    assert ask(plugin, "lvv") == Identity("lvv")
    server.modify(f"dn: uid=lvv,{PEOPLE}\nchangetype: modify\nreplace: userPassword\nuserPassword: other\n")
    assert ask(plugin, "lvv", "other") == Identity("lvv")
    eventually(lambda: isinstance(ask(plugin, "lvv"), Denied))
    assert ask(plugin, "lvv", "other") == Identity("lvv")


def test_nothing_is_remembered_of_a_no(server: Slapd) -> None:
    plugin = make(server.by_search, cache_seconds="60")
    assert ask(plugin, "new") is None
    server.add(person("new", SECRET))
    assert ask(plugin, "new") == Identity("new")


# The service account


def test_the_service_account_s_password_can_change(server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next connection; one that is refused is not tried again at once, so that the account is not locked."""
    monkeypatch.setattr("smsgw_plugins.ldap.directory.AVOIDED", 60.0)
    plugin = make(server.by_search)
    assert ask(plugin, "lvv") == Identity("lvv")
    replace = "changetype: modify\nreplace: userPassword\nuserPassword: changed\n"
    server.modify(f"dn: {slapd.SERVICE_DN}\n{replace}")
    assert ask(plugin, "lvv") == Identity("lvv")
    server.stop()
    server.start()
    before = server.log.count(f'BIND dn="{slapd.SERVICE_DN}" method')
    for _ in range(5):
        with pytest.raises(Unavailable):
            ask(plugin, "lvv")
    assert server.log.count(f'BIND dn="{slapd.SERVICE_DN}" method') == before + 1
    monkeypatch.setattr("smsgw_plugins.ldap.directory.AVOIDED", 0.1)
    plugin = make(server.by_search)
    with pytest.raises(Unavailable):
        ask(plugin, "lvv")
    server.password_file.write_text("changed")

    def is_back() -> bool:
        with contextlib.suppress(Unavailable):
            return ask(plugin, "lvv") == Identity("lvv")
        return False

    eventually(is_back)


def test_a_password_file_that_is_opened_to_all_later(server: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    plugin = make(server.by_search)
    server.password_file.chmod(0o644)
    with pytest.raises(Unavailable) as raised:
        ask(plugin, "lvv")
    assert "can be read by everybody" in str(raised.value.__cause__)
    server.password_file.chmod(0o640)
    assert ask(plugin, "lvv") == Identity("lvv")


# Settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": None}, r"smsgw\.ldap\.url is missing"),
        ({"url": ""}, r"smsgw\.ldap\.url is empty"),
        ({"url": "ldap.example.com"}, r"'ldap\.example\.com' should be ldap://"),
        ({"url": "http://ldap.example.com"}, r"should be ldap://"),
        ({"url": "ldap://user:word@ldap.example.com"}, r"should be ldap://"),
        ({"url": "ldap://ldap.example.com/dc=example"}, r"should be ldap://"),
        ({"url": "ldap://ldap.example.com:port"}, r"smsgw\.ldap\.url: 'ldap://ldap\.example\.com:port'"),
        ({"search_base": None}, r"either smsgw\.ldap\.user_dn or smsgw\.ldap\.search_base"),
        ({"user_dn": f"uid={{userid}},{PEOPLE}"}, r"either smsgw\.ldap\.user_dn or"),
        ({"search_base": None, "user_dn": f"uid=lvv,{PEOPLE}"}, r"user_dn has no place for the user; write \{userid\}"),
        ({"search_base": None, "user_dn": "uid={user},dc=x"}, r"user_dn has \{user\}; write \{userid\}"),
        (
            {"search_base": None, "user_dn": "{userid}@corp.example"},
            r"no distinguished name.*set smsgw\.ldap\.search_base",
        ),
        ({"search_base": None, "user_dn": "cn=x {userid},dc=x"}, r"set smsgw\.ldap\.userid_attribute"),
        ({"search_base": "example.com"}, r"search_base.*no distinguished name"),
        ({"search_filter": "(uid=lvv)"}, r"search_filter has no place for the user"),
        ({"search_filter": "uid={userid}"}, r"search_filter.*invalid filter"),
        ({"search_filter": "(uid={userid}"}, r"search_filter.*invalid filter"),
        ({"search_filter": "(&(uid={userid})(x=*{userid}*))", "decoy_dn": "x"}, r"no distinguished name"),
        ({"service_password_file": None}, r"go together; set both"),
        ({"service_dn": None}, r"go together; set both"),
        ({"service_password_file": "/nowhere"}, r"/nowhere cannot be read: No such file"),
        ({"ca_file": "/nowhere"}, r"ca_file: /nowhere: No such file"),
        ({"ca_file": __file__}, r"ca_file: .*: has no certificates"),
        ({"timeout": "0"}, r"smsgw\.ldap\.timeout"),
        ({"cache_seconds": "-1"}, r"smsgw\.ldap\.cache_seconds"),
        ({"group_filter": "(member={dn})"}, r"group_filter is for a search under group_base"),
        ({"group_base": SUFFIX, "group_filter": "(member={user})"}, r"group_filter has \{user\}"),
        ({"group_base": "groups"}, r"group_base.*no distinguished name"),
        ({"required_group": "ops"}, r"set smsgw\.ldap\.group_base or group_attribute"),
        ({"groups": "\nops: x"}, r"set smsgw\.ldap\.group_base or group_attribute"),
        ({"group_base": SUFFIX, "groups": "\nops"}, r"should be 'group of the directory: groups of the gateway'"),
        ({"group_base": SUFFIX, "required_group": "cn=,,"}, r"required_group.*no distinguished name"),
    ],
)
def test_wrong_settings(tmp_path: Path, changes: dict[str, str | None], sentence: str) -> None:
    password = tmp_path / "password"
    password.write_text("x\n")
    password.chmod(0o600)
    base = {"url": "ldap://127.0.0.1", "search_base": SUFFIX, "service_dn": f"cn=x,{SUFFIX}"}
    with pytest.raises(ConfigurationError, match=sentence):
        make({}, **{**base, "service_password_file": str(password), **changes})


@pytest.mark.parametrize(
    ("content", "mode", "sentence"), [("x", 0o604, "can be read by everybody"), ("\n", 0o600, "is empty")]
)
def test_a_password_file_that_is_wrong(tmp_path: Path, content: str, mode: int, sentence: str) -> None:
    path = tmp_path / "password"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=sentence):
        make({}, url="ldap://127.0.0.1", search_base=SUFFIX, service_dn="cn=x", service_password_file=str(path))


def test_it_starts_while_the_directory_is_down(make_gateway: Callable[..., Gateway]) -> None:
    changes = {"smsgw.ldap.url": nobody_listens(), "smsgw.ldap.user_dn": f"uid={{userid}},{PEOPLE}"}
    send(make_gateway(gateway_settings(changes)), "lvv", status=503)


# Secrets, and time


def test_nothing_of_a_secret_is_shown(
    server: Slapd, make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = make_gateway(gateway_settings(server.by_search, timeout=str(TIMEOUT)))
    plugin = gateway.application.plugins.get_plugin("ldap")
    send(gateway, "lvv")
    send(gateway, "lvv", "Wr0ngSecret", status=401)
    send(gateway, "nobody", "Wr0ngSecret", status=401)
    server.kill()
    send(gateway, "lvv", "Wr0ngSecret", status=503)
    with BlackHole() as silent:
        other = make_gateway(gateway_settings(server.by_template, url=silent.url, timeout=str(TIMEOUT)))
        send(other, "lvv", status=503)
    server.password_file.unlink()
    send(gateway, "ops", "Wr0ngSecret", status=503)
    for secret in (SECRET, "Wr0ngSecret", SERVICE_PASSWORD):
        assert secret not in caplog.text + repr(plugin) + repr(vars(plugin))
    assert "is out of service" in caplog.text


def wrong_answers(plugin: object, count: int) -> tuple[float, float]:
    """The least seconds for a wrong password of a user, and of nobody, in turn: without what else the machine does."""
    took: dict[str, list[float]] = {"lvv": [], "nobody": []}
    for number in range(count):
        for userid in ("lvv", "nobody") if number % 2 else ("nobody", "lvv"):
            begun = time.perf_counter()
            ask(plugin, userid, "wrong")  # type: ignore[arg-type]
            took[userid].append(time.perf_counter() - begun)
    return min(took["lvv"]), min(took["nobody"])


def test_an_unknown_user_takes_as_long_as_a_wrong_password(server: Slapd) -> None:
    for way in (server.by_search, server.by_template):
        user, nobody = wrong_answers(make(way), 40)
        assert abs(user - nobody) < 0.001


def test_it_does_so_where_the_hash_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a decoy. What a machine's noise adds is far below that hash."""
    monkeypatch.setattr("smsgw_plugins.ldap.GRAIN", 1e-6)
    users = (person(name, slapd.hashed(f"{name}'s password", "{ARGON2}")) for name in ("lvv", "decoy"))
    with Slapd(tmp_path, *users) as server:
        user, nobody = wrong_answers(make(server.by_search, decoy_dn=f"uid=decoy,{PEOPLE}"), 25)
        assert 0.6 < user / nobody < 1.6
        user, nobody = wrong_answers(make(server.by_search), 15)
        assert user > 2 * nobody  # what the decoy is for
