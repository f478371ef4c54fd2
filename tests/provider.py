"""An identity provider for the tests: keys, the tokens that it signs, and an HTTP server that serves the keys.

with Provider() as provider:
    settings = {"smsgw.jwt.jwks_url": provider.url, ...}
    token = provider.token(sub="ops")
    provider.rotate()
"""

from __future__ import annotations

import contextlib
import functools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ISSUER = "https://login.example.com/realms/acme"
AUDIENCE = "smsgw"
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}

Answer = Callable[[BaseHTTPRequestHandler], None]


@functools.cache
def make_key(algorithm: str = "RS256", number: int = 0) -> Any:
    """A private key; an RSA key takes a tenth of a second to find, so the same ones serve all tests."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if algorithm == "weak" else 2048)


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def jwk(key: Any, algorithm: str = "RS256", **fields: object) -> dict[str, Any]:
    """The public key as JSON (RFC 7517)."""
    public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return dict(public) | fields


def claims(**changes: object) -> dict[str, Any]:
    """Those of a token that is right, and changes over them; ``None`` takes one away."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ops", "iat": now, "exp": now + 300} | changes
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any, algorithm: str = "RS256", *, headers: Mapping[str, object] | None = None, **changes: object) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers=dict(headers or {}))


class Provider:
    """The context manager serves the keys, and always ends it."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.keys: dict[str, Any] = {"first": make_key()}
        self.answer: Answer = self.serve_keys
        self.requests = 0
        self._context = context
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://localhost:{self._port}/jwks?realm=acme"

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [jwk(key, kid=kid, use="sig", alg="RS256") for kid, key in self.keys.items()]}

    def token(self, kid: str | None = None, **changes: object) -> str:
        """Signed with the key of that name, the latest one where none is named."""
        kid = kid or list(self.keys)[-1]
        return token(self.keys[kid], headers={"kid": kid}, **changes)

    def rotate(self) -> None:
        """Another key in place of all others."""
        number = int(self.requests) + 1
        self.keys = {f"key-{number}-{time.monotonic_ns()}": make_key(number=number % 3 + 1)}

    # Its server

    def __enter__(self) -> Self:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests += 1
                with contextlib.suppress(OSError):
                    provider.answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self._port), Handler)
        if self._context:
            self._server.socket = self._context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block nobody listens; afterwards it serves on the same port."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @contextlib.contextmanager
    def answering(self, answer: Answer) -> Iterator[None]:
        self.answer = answer
        try:
            yield
        finally:
            self.answer = self.serve_keys

    # What it may answer

    def serve_keys(self, request: BaseHTTPRequestHandler) -> None:
        reply(request, json.dumps(self.jwks).encode())

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Within the block it answers nothing."""
        end = threading.Event()
        try:
            with self.answering(lambda request: bool(end.wait()) and None):
                yield
        finally:
            end.set()


def reply(request: BaseHTTPRequestHandler, content: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
