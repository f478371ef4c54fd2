"""Requests that no client library sends, over sockets, to each server: JSON or the server's own text, never a 5xx."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import USERS, basic, sha
from tests.server import TIMEOUT, Server

AUTHORIZATION = f"Authorization: {basic('lvv', USERS['lvv'])}"
POST = f"POST /api/v1.0/sms/outgoing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{AUTHORIZATION}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
BODY = '{"mobiles": ["79680000000"], "text": "Hi"}'

REQUESTS = {
    "a chunk without a size": (f"{POST}{CHUNKED}ZZ\r\n", {400}),
    "a chunk cut short": (f"{POST}{CHUNKED}ff\r\nabc", {400}),
    "a chunk without an end": (f"{POST}{CHUNKED}3\r\nabcdef\r\n0\r\n\r\n", {400}),
    "chunks": (f"{POST}{CHUNKED}{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n", {201}),
    "chunks without credentials": (f"POST /api/v1.0/sms/outgoing HTTP/1.1\r\nHost: x\r\n{CHUNKED}0\r\n\r\n", {401}),
    "chunks that are too many": (f"{POST}{CHUNKED}1000\r\n{'x' * 4096}\r\n1000\r\n{'x' * 4096}\r\n0\r\n\r\n", {413}),
    "a body cut short": (f"{POST}Content-Length: 500\r\n\r\n{BODY}", {400}),
    "a body that is too large": (f"{POST}Content-Length: 5000\r\n\r\n{'x' * 5000}", {413}),
    "no body": (f"{POST}Content-Length: 0\r\n\r\n", {400}),
    "a length that is none": (f"{POST}Content-Length: x\r\n\r\n{BODY}", {400}),
    "a length below nought": (f"{POST}Content-Length: -1\r\n\r\n{BODY}", {400}),
    # granian reads no body that nobody asks for.
    "bad chunks to monitoring": (f"GET /api/v1.0/monitoring HTTP/1.1\r\nHost: x\r\n{CHUNKED}ZZ\r\n", {200, 400}),
    "a path that is not text": (f"GET /api/v1.0/sms/sent/%ff%00 HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n\r\n", {404}),
    "a path that leaves the folder": (
        f"GET /api/v1.0/sms/sent/../x HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n\r\n",
        {404},
    ),
    "a path of another server": (
        f"GET http://y/api/v1.0/monitoring HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n\r\n",
        {200, 400, 404},
    ),
    "a method that is none": (f"BREW /api/v1.0/monitoring HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n\r\n", {405}),
    "a line end in the path": (f"POST /api/v1.0/sms/outgoing%0A HTTP/1.1\r\nHost: x\r\n{AUTHORIZATION}\r\n\r\n", {404}),
    "no request": ("\x00\x01\r\n\r\n", {400}),
}


@pytest.fixture(scope="module", params=["pserve", "gunicorn", "granian"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("servers")
    (folder / "spool" / "outgoing").mkdir(parents=True)
    users = folder / "htpasswd"
    users.write_text(f"lvv:{sha(USERS['lvv'])}\n")
    settings = {
        "smsgw.spool": str(folder / "spool"),
        "smsgw.plugins": "htpasswd allow",
        "smsgw.htpasswd.path": str(users),
        "smsgw.max_body": "4096",
        "smsgw.fsync": "false",
    }
    workers, granian = 2 * (request.param != "pserve"), {} if request.param == "granian" else None
    with Server(Path(folder), settings, workers=workers, granian=granian) as server:
        yield server


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(server: Server, name: str) -> None:
    sent, statuses = REQUESTS[name]
    is_cut_short = name in ("a body cut short", "a chunk cut short")
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as connection:
        connection.sendall(sent.replace("Host: x\r\n", "Host: x\r\nConnection: close\r\n").encode("latin-1"))
        if is_cut_short:
            connection.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    if not reply and is_cut_short:
        return  # waitress and granian close the connection of a client that hung up
    status = int(reply.split()[1])
    assert status in statuses, reply
    assert b"Traceback" not in reply
    assert "Traceback" not in server.stderr
