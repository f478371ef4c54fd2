"""``accounts``: users and passwords that a service of the organisation's own knows, asked through HTTP.

The service takes ``POST`` with ``{"userid": …, "password": …}`` and answers 200 with ``{"userid": …, "groups": […]}``,
the userid as it spells it; 401 for a wrong password; 404 for a user that it has not got. Anything else means that it is
out of service. What was verified is remembered for a while, so that a program that sends a thousand messages does not
ask a thousand times.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import threading
from typing import Any
from urllib.parse import SplitResult, urlsplit

import colander
from pyramid.security import Denied
from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity, Unavailable
from smsgw.settings import Number
from smsgw.verified import Verified

LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST = 1000  # characters of a userid, or of a password, that the service is asked about
ANSWER = 64 * 1024  # bytes

log = logging.getLogger(__name__)


class Accounts:
    """An authentication backend."""

    class Settings(colander.MappingSchema):
        url = colander.SchemaNode(colander.String(), description="where the service answers, https://HOST/PATH")
        timeout = colander.SchemaNode(
            Number(),
            missing=5.0,
            validator=colander.Range(0.1, 60),
            description="seconds for connecting to the service, and for its answer",
        )
        cache_seconds = colander.SchemaNode(
            colander.Integer(),
            missing=60,
            validator=colander.Range(0, 86400),
            description="seconds for which a verified password is not asked about again; 0: ask every time",
        )

    def __init__(self, url: str, timeout: float, cache_seconds: int) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ConfigurationError("smsgw.accounts.url should be a URL such as https://accounts.example.org/login")
        if self._url.scheme == "http" and self._url.hostname not in LOOPBACK:
            raise ConfigurationError("smsgw.accounts.url should begin with https://, since passwords go there")
        self._timeout = timeout
        self._verified = Verified[Identity](cache_seconds)

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        if credentials.scheme != "Basic":
            return None
        userid, password = credentials.userid, credentials.secret
        if not _can_be_asked(userid) or not _can_be_asked(password):
            return None
        if known := self._verified.find(userid, password):
            return known
        try:
            answer = _ask(self._url, self._timeout, {"userid": userid, "password": password})
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            log.error("%s: %s", self._url.hostname, type(error).__name__)  # whose message may have a password in it
            raise Unavailable("The accounts are out of service") from None
        match answer:
            case 200, {"userid": str(spelt), "groups": list(groups)} if all(isinstance(group, str) for group in groups):
                identity = Identity(spelt, frozenset(groups))
                self._verified.keep(identity, userid, password)
                return identity
            case 401, _:
                return Denied("wrong password")
            case 404, _:
                return None
            case status, _:
                log.error("%s: status %s, or an answer that makes no sense", self._url.hostname, status)
                raise Unavailable("The accounts are out of service")


def _can_be_asked(word: str) -> bool:
    """The service knows nobody by an empty name, or with a control character or half of a surrogate pair in it."""
    return 0 < len(word) <= LONGEST and word.isprintable()


def _ask(url: SplitResult, timeout: float, question: dict[str, str]) -> tuple[int, Any]:
    """Status, and the JSON of a 200; on a connection of its own, without proxies, and following nobody elsewhere."""
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.connect()
        # The connection's own timeout is for each piece: one who sends them slowly would never be done.
        watch = threading.Timer(timeout, socket.socket.shutdown, [connection.sock, socket.SHUT_RDWR])
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", url.path or "/", json.dumps(question), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read(ANSWER)) if response.status == 200 else None
        finally:
            watch.cancel()
    finally:
        connection.close()
