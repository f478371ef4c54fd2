"""Who is asking, and whether they may: Pyramid's security policy over the hooks. Fails closed."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pluggy
from pyramid.httpexceptions import HTTPTooManyRequests
from pyramid.request import Request
from pyramid.security import Allowed, Denied

from smsgw.guessing import Guesses
from smsgw.logs import indented
from smsgw.model import Credentials, Identity, Unavailable
from smsgw.plugins import Misbehaved, ask, implementations, kind
from smsgw.settings import UNIX, Address, is_userid

AUTHENTICATED = "authenticated"  # the permission of a view for every user who is known

IDENTITY = "smsgw.identity"  # the key under which a request's environ keeps its identity
BASIC = ("Basic",)  # the schemes of a plugin that names none
REALM = 'realm="smsgw"'
NOBODY = Denied("nobody allows it")
HOPS = 16  # proxies in a row
LONGEST_HOP = 64  # characters of an address with brackets and a port
LOGGED = 100  # characters of a wrong userid that are logged; a right one is not longer

log = logging.getLogger(__name__)


class SecurityPolicy:
    """Pyramid's ``ISecurityPolicy``. ``challenge`` is the ``WWW-Authenticate`` of a 401.

    :param proxies: whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, hook: pluggy.HookRelay, guesses: Guesses, proxies: tuple[Address, ...]) -> None:
        self._finders = implementations(hook.find_credentials)
        self._backends = implementations(hook.authenticate)
        self._sign_ins = implementations(hook.signed_in)
        self._policies = implementations(hook.permits)
        self._guesses = guesses
        self._proxies = proxies
        self.challenge = _challenge(self._backends)

    def identity(self, request: Request) -> Identity | None:
        """Who is asking. The plugins are asked once for each request.

        :raises HTTPTooManyRequests: too many wrong passwords came from there; none was checked.
        :raises Unavailable, HTTPServiceUnavailable: a backend is out of service.
        """
        if IDENTITY not in request.environ:
            request.environ[IDENTITY] = self._authenticate(request)
        identity: Identity | None = request.environ[IDENTITY]
        return identity

    def authenticated_userid(self, request: Request) -> str | None:
        identity = self.identity(request)
        return identity.userid if identity else None

    def permits(self, request: Request, context: Any, permission: str) -> Allowed | Denied:
        identity = self.identity(request)
        if identity is None:
            return Denied("not authenticated")
        if permission == AUTHENTICATED:
            return Allowed("authenticated")
        return decide(self._policies, identity, permission, context)

    def remember(self, request: Request, userid: str, **kw: Any) -> list[tuple[str, str]]:
        return []

    def forget(self, request: Request, **kw: Any) -> list[tuple[str, str]]:
        return []

    def _authenticate(self, request: Request) -> Identity | None:
        address = client_address(request, self._proxies)
        try:
            credentials = self._find(request) or _from_header(request, address)
        except Misbehaved as error:
            log.error("%s", error)
            return None
        if credentials is None:
            return None
        attempt = self._guesses.attempt(credentials.userid, address)
        if attempt.wait:
            retry_after = [("Retry-After", str(attempt.wait))]
            raise HTTPTooManyRequests("Too many wrong passwords; try again later", headers=retry_after)
        identity = self._ask(credentials)
        if identity is None:
            # Some clients show a token as userid, beside an empty password.
            whose = credentials.userid[:LOGGED] if credentials.secret else ""
            log.warning("wrong credentials of %r from %s", whose, address)
            attempt.wrong()
            self._tell_of_lockout(credentials.userid, whose, address)
        else:
            attempt.right()
            for observer in self._sign_ins:
                ask(observer, {"identity": identity})
        return identity

    def _tell_of_lockout(self, userid: str, whose: str, address: str) -> None:
        """Log it when that wrong password was one too many: after it none is looked at, and so this is said once.

        :param whose: the userid as the log may have it.
        """
        if wait := self._guesses.attempt("", address).wait:
            log.warning("everybody at %s is locked out for %d seconds: too many wrong passwords", address, wait)
        elif wait := self._guesses.attempt(userid, address).wait:
            log.warning("%r at %s is locked out for %d seconds: too many wrong passwords", whose, address, wait)

    def _find(self, request: Request) -> Credentials | None:
        """What the first plugin that finds credentials found.

        :raises Misbehaved: it gave another answer, and nobody gets in.
        """
        for finder in self._finders:
            answer = ask(finder, {"request": request})
            if answer is None:
                continue
            if not isinstance(answer, Credentials):
                raise Misbehaved(finder, f"should find Credentials or None, and found {kind(answer)}")
            for field in ("scheme", "userid", "secret", "address"):
                if not isinstance(getattr(answer, field), str):
                    raise Misbehaved(finder, f"should find Credentials of str, and their {field} is none")
            return answer
        return None

    def _ask(self, credentials: Credentials) -> Identity | None:
        """Ask the backends in turn; the first that answers decides."""
        for number, backend in enumerate(self._backends):
            answer = self._answer(backend, credentials)
            if isinstance(answer, Identity) and (again := respelt(credentials, answer)):
                earlier = (self._answer(other, again) for other in self._backends[:number])
                answer = next((other for other in earlier if other is not None), answer)
            if answer is not None:
                return answer if isinstance(answer, Identity) else None
        return None

    def _answer(self, backend: pluggy.HookImpl, credentials: Credentials) -> Identity | Denied | None:
        try:
            return proper(backend, ask(backend, {"credentials": credentials}))
        except Misbehaved as error:
            log.error("%s", error)
            return Denied("no proper answer")


def respelt(credentials: Credentials, identity: Identity) -> Credentials | None:
    """The credentials with the backend's own spelling of the userid; ``None``: it is the client's.

    The backends before it are asked again about that spelling. A password file does not know ``ROOT``; the directory
    after it calls that user ``root``, whom the file may know.
    """
    if not credentials.userid or identity.userid == credentials.userid:
        return None
    return replace(credentials, userid=identity.userid)


def proper(backend: pluggy.HookImpl, answer: object) -> Identity | Denied | None:
    """A backend's answer, checked.

    :raises Misbehaved: it is not an answer of ``authenticate``. Nobody gets in.
    """
    if isinstance(answer, Identity) and not is_userid(answer.userid):
        raise Misbehaved(backend, f"answered with a userid that cannot be one, {answer.userid!r}")
    if not (answer is None or isinstance(answer, Identity | Denied)):
        raise Misbehaved(backend, f"should answer Identity, Denied or None, and answered {kind(answer)}")
    return answer


def decide(
    policies: Sequence[pluggy.HookImpl], identity: Identity, permission: str, context: object
) -> Allowed | Denied:
    """What the policies say: any ``Denied`` wins, no ``Allowed`` means denied, and one that fails refuses."""
    arguments = {"identity": identity, "permission": permission, "context": context}
    allowed = NOBODY
    for policy in policies:
        try:
            # As ask() does: this is called for each of thousands of recipients.
            answer = policy.function(*[arguments[name] for name in policy.argnames])
        except Exception as error:
            name = policy.plugin_name
            log.error("the plugin %r failed to judge, which refuses %r%s", name, permission, indented(error))
            return Denied("a permission policy failed")
        if isinstance(answer, Allowed):
            allowed = answer
        elif isinstance(answer, Denied):
            return answer
        elif answer is not None:
            log.error("%s", Misbehaved(policy, f"should answer Allowed, Denied or None, and answered {kind(answer)}"))
            return Denied("a permission policy gave no proper answer")
    return allowed


def holds(hook: pluggy.HookRelay, credential: str) -> bool:
    """Whether that ``Identity.credential`` still lets its user in.

    :raises Unavailable: a plugin cannot tell now, or failed.
    """
    try:
        return hook.holds(credential=credential) is True
    except Unavailable:
        raise
    except Exception as error:
        raise Unavailable("It cannot be told now whether a credential still holds") from error


def client_address(request: Request, proxies: tuple[Address, ...]) -> str:
    """The client's address. Behind trusted proxies it is the last of ``X-Forwarded-For`` that is no trusted proxy.

    At most ``HOPS`` addresses are read, from the end, where proxies add theirs.
    """
    address = str(request.environ.get("REMOTE_ADDR", ""))
    if not proxies:
        return address
    hops = request.headers.get("X-Forwarded-For", "").rsplit(",", HOPS)[-HOPS:]
    while hops and _is_among(address, proxies):
        found = _read_hop(hops.pop().strip())
        if found is None:
            break
        address = found
    return address


def is_from_proxy(request: Request, proxies: tuple[Address, ...]) -> bool:
    """Whether a trusted proxy handed that request on."""
    return bool(proxies) and _is_among(str(request.environ.get("REMOTE_ADDR", "")), proxies)


def _read_hop(written: str) -> str | None:
    """The IP address of one hop, which can have brackets and a port (RFC 7239, 6); ``None``: it is none."""
    if len(written) > LONGEST_HOP:
        return None
    host, port = written, ""
    if written.startswith("["):
        host, _, port = written[1:].partition("]:")
        host = host.removesuffix("]")
    elif written.count(":") == 1:
        host, _, port = written.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return None
    # A zone (RFC 4007, "fe80::1%eth0") can be any text.
    return None if "%" in host or _parse(host) is None else host


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _is_among(address: str, proxies: tuple[Address, ...]) -> bool:
    """Whether that is a trusted proxy; who comes over a unix socket has no address."""
    parsed = _parse(address)
    if parsed is None:
        return UNIX in proxies and not address
    return any(parsed in network for network in proxies if network != UNIX)


def _from_header(request: Request, address: str) -> Credentials | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    value = value.strip(" \t")  # no other white space: Latin-1 has some, too
    if scheme.lower() == "bearer" and value:
        return Credentials("Bearer", "", value, address)
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        pair = decoded.decode("utf-8")
    except UnicodeDecodeError:
        pair = decoded.decode("iso-8859-1")  # of clients from before RFC 7617
    userid, colon, secret = pair.partition(":")
    if not colon or not userid or not userid.isprintable():
        return None
    return Credentials("Basic", userid, secret, address)


def _challenge(backends: Sequence[pluggy.HookImpl]) -> str:
    """What a 401 asks for (RFC 9110, 11.6.1): the schemes of the plugins that know users, in their order."""
    schemes = dict.fromkeys(scheme for backend in backends for scheme in getattr(backend.plugin, "schemes", BASIC))
    return ", ".join(f"{scheme} {REALM}" for scheme in schemes or BASIC)
