"""Where an identity provider's keys come from: a file, or a URL from which they are fetched again and again.

Both sources have ``keys`` and ``newer``, which raise ``Unavailable`` where the keys are not known now, and ``fault``,
which tells why they are not.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import SplitResult

from smsgw.files import ParsedFile, unreadable
from smsgw.model import Unavailable

from .keys import MAX_SIZE, Keys, read

PAUSE = 3  # seconds between two fetches, however many tokens name unknown keys

log = logging.getLogger(__name__)


class File:
    """A file, read again whenever it has changed.

    :raises ValueError, OSError: it has no keys, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ParsedFile(path, read, MAX_SIZE + 1)

    def keys(self) -> Keys:
        """The same object, as long as they are the same keys."""
        try:
            return self._file.current()
        except (OSError, ValueError) as error:
            log.error("%s %s", self._path, getattr(error, "strerror", None) or error)
            raise Unavailable("The keys of the identity provider cannot be read") from error

    newer = keys

    def fault(self) -> str | None:
        try:
            self._file.current()
        except OSError as error:
            return unreadable(self._path, error)
        except ValueError as error:
            return f"{self._path} {error}"
        return None


class Url:
    """A JWKS that a provider serves, fetched when it is first needed.

    A request waits for a fetch only where its key is not known, and the last fetch did not fail. So a provider that is
    down or slow holds up nobody else.

    :param url: https, or http.
    :param timeout: seconds for all of a fetch.
    :param refresh: seconds after which keys are fetched again, so that keys that were withdrawn count no longer.
    :param keep: seconds for which keys count while fetching fails.
    """

    def __init__(
        self, url: SplitResult, context: ssl.SSLContext | None, *, timeout: float, refresh: float, keep: float
    ) -> None:
        self._url, self._context = url, context
        self._timeout, self._refresh, self._keep = timeout, refresh, keep
        self._content: bytes | None = None
        self._keys: Keys | None = None
        self._fetched = self._tried = float("-inf")  # on the monotonic clock
        self._failure: str | None = None  # why the last fetch failed
        self._fetching: threading.Thread | None = None
        self._lock = threading.Lock()

    def keys(self) -> Keys:
        if time.monotonic() - self._fetched >= self._refresh:
            self._fetch(is_needed=not self._is_known())
        return self._current()

    def newer(self) -> Keys:
        """The keys, fetched again where that is allowed: a token names one that is not known."""
        self._fetch(is_needed=True)
        return self._current()

    def fault(self) -> str | None:
        """It waits for no fetch, and begins one where that is due: so it finds out by itself when the keys are back."""
        if time.monotonic() - self._fetched >= self._refresh:
            self._fetch(is_needed=False)
        failure = self._failure
        return None if failure is None or self._is_known() else f"{self._url.geturl()} {failure}"

    def _is_known(self) -> bool:
        return time.monotonic() - self._fetched < self._keep

    def _current(self) -> Keys:
        keys = self._keys
        if keys is None or not self._is_known():
            raise Unavailable("The identity provider cannot be reached", PAUSE)
        return keys

    def _fetch(self, *, is_needed: bool) -> None:
        with self._lock:
            fetching, now = self._fetching, time.monotonic()
            if fetching is None and now - self._tried >= PAUSE:
                self._tried = now
                fetching = self._fetching = threading.Thread(target=self._try, args=[now], daemon=True)
                fetching.start()
        if fetching is not None and is_needed and self._failure is None:
            fetching.join(max(0.0, self._tried + self._timeout - time.monotonic()))

    def _try(self, begun: float) -> None:
        """Fetch the keys, in a thread of its own."""
        failure: str | None = "cannot be fetched"
        try:
            content = _get(self._url, self._context, self._timeout)
            keys = self._keys if content == self._content else read(content)
            self._keys, self._content, self._fetched, failure = keys, content, begun, None
        except ValueError as error:
            failure = str(error)
        except (OSError, http.client.HTTPException) as error:
            failure = f"cannot be reached: {error}"
        finally:
            if failure is not None and self._failure is None:
                log.error("%s %s", self._url.geturl(), failure)
            elif failure is None and self._failure is not None:
                log.info("%s is there again", self._url.geturl())
            self._failure, self._fetching = failure, None


def _get(url: SplitResult, context: ssl.SSLContext | None, timeout: float) -> bytes:
    """What that URL has, at most a byte more than keys can be. Redirects are not followed.

    :raises OSError, http.client.HTTPException, ValueError: it has nothing that could be keys. The message of a
        ``ValueError`` goes on after the URL.
    """
    host, deadline = url.hostname or "", time.monotonic() + timeout
    connection = (
        http.client.HTTPSConnection(host, url.port, timeout=timeout, context=context)
        if context
        else http.client.HTTPConnection(host, url.port, timeout=timeout)
    )
    try:
        connection.connect()
        # The timeout is for each piece: who sends them slowly would never be done.
        watch = threading.Timer(deadline - time.monotonic(), _hang_up, [connection.sock])
        watch.daemon = True
        watch.start()
        try:
            path = url.path + (f"?{url.query}" if url.query else "")
            connection.request("GET", path or "/", headers={"Accept": "application/json", "Connection": "close"})
            reply = connection.getresponse()
            if reply.status != 200:
                raise ValueError(f"answers with status {reply.status}")
            content = reply.read(MAX_SIZE + 1)
        finally:
            watch.cancel()
    finally:
        connection.close()
    if time.monotonic() >= deadline:
        raise ValueError(f"takes over {timeout:g} seconds")
    return content


def _hang_up(connected: socket.socket) -> None:
    try:
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # TLS's own would go on without TLS
    except OSError:
        return  # it is closed


Source = File | Url
