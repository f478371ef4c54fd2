"""``ldap`` for tests: the plugin alone or in a gateway, and servers that are none, or between it and a real one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from pyramid.security import Denied

from smsgw.model import Credentials, Identity
from smsgw.settings import read
from smsgw_plugins.ldap import Ldap
from tests.conftest import OUTGOING, Gateway, basic

SECRET = "SecretPAss"


def make(settings: dict[str, str], **changes: str | None) -> Ldap:
    """The plugin of ``smsgw.ldap.*`` settings, with changes by their last words; it remembers nothing."""
    raw = {key.removeprefix("smsgw.ldap."): value for key, value in settings.items()}
    known = {key: value for key, value in ({"cache_seconds": "0"} | raw | changes).items() if value is not None}
    return Ldap(**read(Ldap.Settings(), known, "smsgw.ldap."))


def ask(plugin: Ldap, userid: str, secret: str = SECRET, scheme: str = "Basic") -> Identity | Denied | None:
    return plugin.authenticate(Credentials(scheme, userid, secret, "127.0.0.1"))


def gateway_settings(settings: dict[str, str], **changes: str) -> dict[str, str | None]:
    """A gateway whose only users are the directory's."""
    ldap = {f"smsgw.ldap.{key}": value for key, value in changes.items()}
    return {"smsgw.plugins": "ldap allow", "smsgw.htpasswd.path": None, **settings, **ldap}


def send(gateway: Gateway, userid: str, secret: str = SECRET, *, status: int = 201) -> Any:
    """POST a message with those credentials."""
    gateway.app.authorization = None
    body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"}
    return gateway.app.post_json(OUTGOING, body, headers={"Authorization": basic(userid, secret)}, status=status)


class Listener:
    """A server on a port of its own that does with each connection, in a thread, what ``serve`` does."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"ldap://127.0.0.1:{self._listening.getsockname()[1]}"
        self.accepted = 0
        self._taken: list[socket.socket] = []

    def __enter__(self) -> Any:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._taken:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.accepted += 1
                self._taken.append(connection)
                threading.Thread(target=self._run, args=[connection], daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(connection)


class Recorder(Listener):
    """Between the plugin and a server: ``sent`` is all that went to the server."""

    def __init__(self, port: int) -> None:
        super().__init__(self._relay)
        self._port = port
        self.sent = b""

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            threading.Thread(target=self._back, args=[server, client], daemon=True).start()
            while received := client.recv(65536):
                self.sent += received
                server.sendall(received)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := server.recv(65536):
                client.sendall(received)


class BlackHole:
    """A port that takes connections and never answers."""

    def __enter__(self) -> BlackHole:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"ldap://127.0.0.1:{self._listening.getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
