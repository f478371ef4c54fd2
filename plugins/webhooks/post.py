"""One attempt to tell a receiver: a POST over a connection of its own, to an address that was judged, within a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Mapping
from importlib.metadata import version

import h11

from .addresses import Resolve, Target, is_public, look_up, read_url

CONNECT = 5.0  # seconds for one address of several
ADDRESSES = 4  # addresses of a host that are tried
MOST = 64 * 1024  # bytes of an answer that are read
FAREWELL = 1.0  # seconds in which a receiver may finish its answer, once the status is known

_AGENT = f"smsgw/{version('smsgw')}"


class Undelivered(Exception):
    """The receiver has not taken it; the message says why, and nothing of what a network within looks like."""


class Post:
    """Makes attempts.

    :param allow_private: whether receivers may have private addresses, and do without TLS.
    :param tls: whom to trust.
    :param timeout: seconds for an attempt, from the name's resolution to the answer.
    :param resolve: finds the addresses of a host.
    """

    def __init__(self, allow_private: bool, tls: ssl.SSLContext, timeout: float, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._tls = tls
        self._timeout = timeout
        self._resolve = resolve

    def target(self, url: str) -> Target:
        """Where that URL leads, as far as it says so itself.

        :raises ValueError: no receiver can have that URL; the message goes on after the field's name.
        """
        return read_url(url, is_http_allowed=self._allow_private)

    def check(self, target: Target) -> None:
        """Look up whether it may lead there.

        :raises ValueError: no receiver can be there; the message goes on after the field's name.
        """
        try:
            addresses = look_up(self._resolve, target).result(CONNECT)
        except (OSError, TimeoutError):
            raise ValueError("names a host that cannot be found now") from None
        if not self._are_allowed(addresses):
            raise ValueError("leads to an address that is not public")

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """:raises Undelivered: anything else than a status of 200 to 299 came, or nothing in time."""
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._ask(self.target(url), headers, body)
        except TimeoutError:
            raise Undelivered(f"no answer within {self._timeout:g} seconds") from None
        except ssl.SSLCertVerificationError as error:
            raise Undelivered(f"its certificate is not good: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise Undelivered(f"TLS failed: {error.reason or 'the connection ended'}") from None
        except h11.RemoteProtocolError:
            raise Undelivered("its answer is not HTTP, or too long, or ended too early") from None
        except ValueError as error:
            raise Undelivered(f"its URL {error}") from None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error.strerror  # asyncio's own names the address
            raise Undelivered(f"it cannot be reached: {reason or 'the connection ended'}") from None
        if not 200 <= status <= 299:
            raise Undelivered(f"it answered {status}")

    def _are_allowed(self, addresses: list[str]) -> bool:
        return self._allow_private or all(map(is_public, addresses))

    async def _ask(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer."""
        reader, writer = await self._connect(target)
        try:
            conversation = h11.Connection(h11.CLIENT)
            fields = {"Host": target.authority, "Content-Type": "application/json", "User-Agent": _AGENT, **headers}
            fields |= {"Content-Length": str(len(body)), "Connection": "close"}
            request = h11.Request(method="POST", target=target.path, headers=list(fields.items()))
            for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(conversation.send(event) or b"")
            await writer.drain()
            answer = _Answer(reader, conversation)
            status = await answer.status()
            with contextlib.suppress(OSError, TimeoutError, h11.RemoteProtocolError):
                async with asyncio.timeout(FAREWELL):
                    await answer.rest()
            return status
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to an address that was judged: the name is not resolved again.

        :raises OSError: there is none.
        :raises ValueError: one must not be made.
        """
        try:
            addresses = await asyncio.wrap_future(look_up(self._resolve, target))
        except OSError:
            raise OSError(0, "its host cannot be found") from None
        if not self._are_allowed(addresses):
            raise ValueError("leads to an address that is not public")
        tls, name = (self._tls, target.host) if target.is_tls else (None, None)
        failure: OSError = OSError(0, "its host has no address")
        for address in addresses[:ADDRESSES]:
            try:
                async with asyncio.timeout(CONNECT):
                    return await asyncio.open_connection(address, target.port, ssl=tls, server_hostname=name)
            except ssl.SSLError:
                raise
            except TimeoutError:
                failure = OSError(0, f"no connection within {CONNECT:g} seconds")
            except OSError as error:
                failure = error
        raise failure


class _Answer:
    """An answer as it comes in, no more of it than ``MOST`` bytes."""

    def __init__(self, reader: asyncio.StreamReader, conversation: h11.Connection) -> None:
        self._reader = reader
        self._conversation = conversation
        self._left = MOST

    async def status(self) -> int:
        while not isinstance(event := await self._next(), h11.Response):
            pass
        return event.status_code

    async def rest(self) -> None:
        while not isinstance(await self._next(), h11.EndOfMessage | h11.ConnectionClosed):
            pass

    async def _next(self) -> object:
        """:raises h11.RemoteProtocolError: that is no HTTP, or too much."""
        while (event := self._conversation.next_event()) is h11.NEED_DATA:
            received = await self._reader.read(4096)
            self._left -= len(received)
            if self._left < 0:
                raise h11.RemoteProtocolError("too long")
            self._conversation.receive_data(received)
        return event
