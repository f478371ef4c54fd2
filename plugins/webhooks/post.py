"""One attempt to tell a receiver: a POST on its own connection, to an address that was checked, in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version

import h11

from .addresses import Resolve, Target, is_public, look_up, read_url

CONNECT = 5.0  # seconds for one address of several
ADDRESSES = 4  # addresses of a host that are tried
MOST = 64 * 1024  # bytes that are read of an answer
FAREWELL = 1.0  # seconds in which a receiver may finish its answer, once the status is known

_AGENT = f"smsgw/{version('smsgw')}"


class Undelivered(Exception):
    """The receiver has not taken it. The message says why, and tells nothing of the network around the gateway."""


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
        """Host, port and path of that URL.

        :raises ValueError: no receiver can have that URL; the message goes on after the field's name.
        """
        return read_url(url, is_http_allowed=self._allow_private)

    def check(self, target: Target) -> None:
        """Look up its addresses: may it lead there?

        :raises ValueError: no receiver can be there; the message goes on after the field's name.
        """
        try:
            addresses = look_up(self._resolve, target).result(CONNECT)
        except (OSError, TimeoutError):
            raise ValueError("names a host that cannot be found now") from None
        if not self._are_allowed(addresses):
            raise ValueError("leads to an address that is not public")

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """:raises Undelivered: the answer has another status than 200 to 299, or did not come in time."""
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
            events = _events(reader, conversation)
            status = 0
            async for received in events:
                if isinstance(received, h11.Response):
                    status = received.status_code
                    break
            with contextlib.suppress(OSError, TimeoutError, h11.RemoteProtocolError):
                async with asyncio.timeout(FAREWELL):
                    async for _ in events:
                        pass
            return status
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to an address that was checked: the name is not resolved again.

        :raises OSError: there is none.
        :raises ValueError: an address is not allowed.
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


async def _events(reader: asyncio.StreamReader, conversation: h11.Connection) -> AsyncIterator[h11.Event]:
    """The parts of an answer as they come in, to its end.

    :raises h11.RemoteProtocolError: it is not HTTP, or has more than ``MOST`` bytes.
    """
    left = MOST
    while True:
        event = conversation.next_event()
        if isinstance(event, h11.Event):
            yield event
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
            continue
        received = await reader.read(4096)
        left -= len(received)
        if left < 0:
            raise h11.RemoteProtocolError("too long")
        conversation.receive_data(received)
