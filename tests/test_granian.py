"""``egg:smsgw#granian``: what clients may do to it, and how it stops and takes new settings."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests import programs
from tests.conftest import OUTGOING, USERS, basic, eventually, settings_in, write_passwords
from tests.server import MONITORING, TIMEOUT, Server

THREADS = 3
HEADER = 65_536  # bytes
AUTHORIZATION = f"Authorization: {basic('lvv', USERS['lvv'])}"
HEAD = f"POST {OUTGOING} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{AUTHORIZATION}\r\n"
BODY = json.dumps({"mobiles": ["79680000000"], "text": "Hi"})
GET = f"GET {MONITORING} HTTP/1.1\r\nHost: x\r\n"
LAST = "Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("granian")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    return settings_in(folder, write_passwords(folder)) | {"smsgw.fsync": "false"}


@pytest.fixture(scope="module")
def server(folder: Path, settings: dict[str, str]) -> Iterator[Server]:
    """One process, whose clients have two seconds for their headers."""
    granian = {"threads": str(THREADS), "header_timeout": "2", "connection_limit": "50"}
    with Server(folder, settings, granian=granian) as server:
        yield server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):  # it closes without having read all
        while some := connection.recv(65_536):
            found += some
    return found


def ask(server: Server, request: str) -> bytes:
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):  # it closes before it has read all
            connection.sendall(request.encode("latin-1"))
        return rest(connection)


def status(reply: bytes) -> int:
    return int(reply.split()[1])


def test_the_contract_over_the_wire(server: Server) -> None:
    sent = server.send(["79680000000"], "Grüße")
    [id] = sent.json["message_id"].values()
    assert (sent.status, sent.headers["Content-Type"]) == (201, "application/json")
    assert server.request("GET", f"{OUTGOING}/{id}").json["text"] == "Grüße"
    again = [server.send(["79680000001"], key="a key that is long").json for _ in range(2)]
    assert again[0] == again[1]
    refused = server.request("GET", f"{OUTGOING}/", password="wrong")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="smsgw"')
    assert server.request("GET", f"{OUTGOING}/%ff").status == 404
    assert server.request("PUT", MONITORING).status == 405
    assert server.request("GET", "/api/v2/messages?limit=%ff").headers["Content-Type"] == "application/problem+json"


def test_the_log_is_that_of_the_ini_file(server: Server) -> None:
    server.request("GET", MONITORING)
    assert f"INFO _granian: Listening at: http://127.0.0.1:{server.port}" in server.stderr
    assert "Spawning worker-1" in server.stderr
    assert MONITORING not in server.stderr  # there is no access log


def test_headers_that_are_too_large_or_too_many(server: Server) -> None:
    assert status(ask(server, f"{GET}X-A: {'a' * 1000}\r\n{LAST}")) == 200
    assert status(ask(server, f"{GET}X-A: {'a' * 20 * HEADER}\r\n{LAST}")) == 431
    assert status(ask(server, GET + "".join(f"X-{n}: 1\r\n" for n in range(200)) + LAST)) == 431


def test_clients_that_are_slow_with_their_headers_hold_up_nobody_and_are_cut_off(server: Server) -> None:
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connect(server)) for _ in range(10 * THREADS)]
        for connection in slow:
            connection.sendall(GET.encode())
        assert server.monitor().status == 200
        assert [rest(connection) for connection in slow] == [b""] * len(slow)


def test_clients_that_are_slow_with_a_body_hold_a_thread_each(server: Server) -> None:
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connect(server)) for _ in range(THREADS - 1)]
        for connection in slow:
            connection.sendall(f"{HEAD}Content-Length: {len(BODY)}\r\n{LAST}{BODY[:9]}".encode())
        assert server.send(["79680000000"]).status == 201
        for connection in slow:
            connection.sendall(BODY[9:].encode())
        assert [status(rest(connection)) for connection in slow] == [201] * len(slow)


def test_clients_that_do_not_read_hold_no_thread(server: Server) -> None:
    ids = server.send([f"7968{number:07}" for number in range(10_000)]).json["message_id"]
    request = f"GET /api/v1.0/sms/outgoing/?limit={len(ids)} HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n{LAST}".encode()
    with contextlib.ExitStack() as opened:
        slow = []
        for _ in range(2 * THREADS):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(TIMEOUT)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(request)
            connection.recv(1)
            slow.append(connection)
        assert server.monitor().status == 200
        for connection in slow:
            assert len(json.loads(rest(connection).partition(b"\r\n\r\n")[2])["message_id"]) >= len(ids) / 2


def test_requests_in_a_row_are_answered_in_their_order(server: Server) -> None:
    reply = ask(
        server, f"{GET}\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}{GET}{LAST}"
    )
    assert [int(part[:4]) for part in reply.split(b"HTTP/1.1")[1:]] == [200, 401, 400, 200]


def test_http_1_0_without_a_host(server: Server) -> None:
    assert status(ask(server, f"GET {MONITORING} HTTP/1.0\r\n\r\n")) == 200
    sent = f"POST {OUTGOING} HTTP/1.0\r\nContent-Type: application/json\r\n{AUTHORIZATION}\r\n"
    assert status(ask(server, f"{sent}Content-Length: {len(BODY)}\r\n\r\n{BODY}")) == 201


def test_chunks(server: Server) -> None:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n{LAST}"
    assert status(ask(server, f"{head}5\r\n{BODY[:5]}\r\n{len(BODY) - 5:x}\r\n{BODY[5:]}\r\n0\r\n\r\n")) == 201
    assert status(ask(server, f"{head}5\r\n{BODY[:5]}\r\nZZ\r\n")) == 400


def test_two_lengths_and_a_length_beside_chunks(server: Server) -> None:
    assert status(ask(server, f"{HEAD}Content-Length: 3\r\nContent-Length: 4\r\n{LAST}abcd")) == 400
    both = f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n{LAST}{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
    assert status(ask(server, both)) == 201  # RFC 9112, 6.3: the chunks count


def test_http_2_is_not_spoken(server: Server) -> None:
    assert b"200" not in ask(server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def test_it_stops_when_the_requests_under_way_are_answered(tmp_path: Path, base_settings: dict[str, str]) -> None:
    with Server(tmp_path, base_settings, workers=2, granian={}) as server, ThreadPoolExecutor() as pool:
        [id] = server.send(["79680000000"]).json["message_id"].values()
        cancelled = pool.submit(server.request, "DELETE", f"{OUTGOING}/{id}")  # which takes a second
        taken = Path(base_settings["smsgw.spool"]) / "outgoing" / ".smsgw" / "cancelling" / id
        eventually(taken.exists)
        assert server.stop() == 0
        assert cancelled.result().status == 200
        assert "Traceback" not in server.stderr


def test_a_dead_worker_is_replaced_and_hangup_takes_the_settings_that_are_there_now(
    tmp_path: Path, base_settings: dict[str, str]
) -> None:
    with Server(tmp_path, base_settings, granian={}) as server:
        [dead] = server.workers
        os.kill(dead, signal.SIGKILL)
        eventually(lambda: server.workers and dead not in server.workers)
        server.await_answer()
        old = server.workers
        server.configure(base_settings | {"smsgw.get_send": "true"})
        os.kill(server.pid, signal.SIGHUP)
        eventually(lambda: server.workers and not set(old) & set(server.workers))
        assert server.request("GET", f"{OUTGOING}?mobiles=79680000000&text=Hi").status == 201


class Tls(Server):
    """The same with a certificate of an authority of its own, whose key has that form."""

    def __init__(self, folder: Path, settings: dict[str, str], form: PrivateFormat = PrivateFormat.PKCS8) -> None:
        authority = trustme.CA()
        found = authority.issue_cert("127.0.0.1")
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(b"".join(each.bytes() for each in found.cert_chain_pems))
        loaded = load_pem_private_key(found.private_key_pem.bytes(), None)
        key.write_bytes(loaded.private_bytes(Encoding.PEM, form, NoEncryption()))
        super().__init__(folder, settings, granian={"tls_certificate": str(certificate), "tls_key": str(key)})

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self._context)


def test_tls(folder: Path, settings: dict[str, str]) -> None:
    with Tls(folder, settings) as server:
        assert server.send(["79680000000"]).status == 201


def test_a_key_of_another_form(folder: Path, settings: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match=r"tls_key: .*key\.pem should be in PKCS#8: openssl pkey -in"):
        Tls(folder, settings, PrivateFormat.TraditionalOpenSSL).start()


class UnixConnection(http.client.HTTPConnection):
    """To the unix socket whose path is its host."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


class Unix(Server):
    """The same on a unix socket."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.path = folder / "socket"
        super().__init__(folder, settings, granian={"unix_socket": str(self.path), "unix_socket_perms": "0660"})

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return UnixConnection(str(self.path), timeout=timeout)


def test_a_unix_socket(folder: Path, settings: dict[str, str]) -> None:
    with Unix(folder, settings | {"smsgw.trusted_proxies": "unix", "smsgw.guesses_per_user": "1"}) as server:
        assert server.path.stat().st_mode & 0o777 == 0o660
        addresses = ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
        found = [
            server.request("GET", OUTGOING + "/", password="no", headers={"X-Forwarded-For": each})
            for each in addresses
        ]
        assert [each.status for each in found] == [401, 429, 401]
        assert "let the proxy drop headers with an underscore" in server.stderr
        server.stop()
        assert not server.path.exists()


@pytest.mark.parametrize(
    ("granian", "sentence"),
    [
        ({"worker": "2"}, "there is no setting 'worker'; did you mean 'workers'?"),
        ({"workers": "0"}, "workers: 0 is less than minimum value 1"),
        ({"listen": "127.0.0.1:5000 [::1]:5000"}, "listen: should be one address, such as 127.0.0.1:5000"),
        ({"tls_key": "/key.pem"}, "tls_certificate and tls_key belong together: set both, or none"),
        ({"tls_key": "/none", "tls_certificate": "/none"}, "tls_certificate, tls_key: [Errno 2] No such file"),
    ],
)
def test_settings_that_are_wrong(
    folder: Path, settings: dict[str, str], granian: dict[str, str], sentence: str
) -> None:
    ini = folder / "wrong.ini"
    lines = {"app:main": {"use": "egg:smsgw"} | settings, "server:main": {"use": "egg:smsgw#granian"} | granian}
    sections = (f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in lines[name].items()) for name in lines)
    ini.write_text("".join(sections))
    ended = programs.run([Path(sys.executable).with_name("pserve"), ini])
    assert ended.returncode == 3
    assert f"smsgw does not start: the server's section: {sentence}" in ended.stderr
