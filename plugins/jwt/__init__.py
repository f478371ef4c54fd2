"""``jwt``: tokens of an identity provider (RFC 7519), shown as Bearer. PyJWT does the cryptography."""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity
from smsgw.settings import is_userid
from smsgw.verified import Verified

from .keys import Keys
from .settings import Settings, check, make_source

MAX_LENGTH = 16 * 1024  # characters of a token; longer ones are left to other plugins
END = 253402300800  # the year 10000, in seconds since 1970: RFC 3339 can write no later date

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")  # RFC 7515, 7.1
_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was right, until when it is (seconds since 1970), and by which keys."""

    identity: Identity
    expires: float
    keys: Keys


class _Wrong(Exception):
    """Why a token of the issuer is refused. The message has nothing of the token."""


class Jwt:
    """An authentication backend; it takes its settings as they are in its schema."""

    Settings = Settings
    schemes = ("Bearer",)

    def __init__(self, **settings: Any) -> None:
        check(settings)
        self._source = make_source(settings)
        self._issuer, self._audience = settings["issuer"], list(settings["audience"])
        self._algorithms, self._leeway = frozenset(settings["algorithms"]), settings["leeway"]
        self._userid_claim, self._groups_claim = settings["userid_claim"], settings["groups_claim"]
        self._called = {name: _groups(words) for name, words in (settings["groups"] or {}).items()}
        self._verified = Verified[_Verified]()

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        token = credentials.secret
        if credentials.scheme != "Bearer" or len(token) > MAX_LENGTH or not (parts := _PARTS.fullmatch(token)):
            return None
        known = self._verified.find(token)
        if known is not None and time.time() < known.expires and known.keys is self._source.keys():
            return known.identity
        claims = _read(parts[2])
        if claims is None or claims.get("iss") != self._issuer:
            return None
        try:
            verified = self._verify(token, _read(parts[1]), claims)
        except _Wrong as why:
            log.info("a token of %s is refused: %s", self._issuer, why)
            return Denied(f"the token is refused: {why}")
        self._verified.keep(verified, token)
        return verified.identity

    @hookimpl
    def fault(self) -> str | None:
        return self._source.fault()

    def _verify(self, token: str, header: Mapping[str, Any] | None, claims: Mapping[str, Any]) -> _Verified:
        """:raises _Wrong: it is not right.
        :raises Unavailable: the keys are not known now.
        """
        if header is None or not all(_is_date(claims[name]) for name in ("exp", "nbf", "iat") if name in claims):
            raise _Wrong("it is malformed")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise _Wrong("its algorithm is not one that is taken")
        if not isinstance(kid, str | None) or "crit" in header:  # RFC 7515, 4.1.11: what is not understood
            raise _Wrong("its header is not understood")
        # Nobody looks at jku, jwk, x5u and x5c: whoever made the token says which key these name.
        keys = self._source.keys()
        if not (fitting := keys.fitting(kid, algorithm)):
            keys = self._source.newer()
            fitting = keys.fitting(kid, algorithm)
        for key in fitting:
            try:
                claims = jwt.decode(
                    token,
                    key.public,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway,
                    options={"require": ["exp"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise _Wrong(_REASONS.get(type(error), "its claims are not right")) from error
            return _Verified(self._identify(claims), claims["exp"] + self._leeway, keys)
        raise _Wrong("it is signed by nobody who is known")

    def _identify(self, claims: Mapping[str, Any]) -> Identity:
        userid = _claim(claims, self._userid_claim)
        if not isinstance(userid, str) or not is_userid(userid):
            raise _Wrong(f"its claim {self._userid_claim!r} is no userid")
        found = _claim(claims, self._groups_claim) if self._groups_claim else None
        names = found.split() if isinstance(found, str) else [] if found is None else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _Wrong(f"its claim {self._groups_claim!r} has no groups")
        if self._called:
            return Identity(userid, frozenset().union(*(self._called.get(name, ()) for name in names)))
        return Identity(userid, frozenset(name for name in names if is_userid(name)))


def _read(part: str) -> dict[str, Any] | None:
    """The JSON object in a part of a token, whether or not anybody signed it."""
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _is_date(value: object) -> bool:
    """Whether that is a NumericDate (RFC 7519, 2)."""
    return type(value) in (int, float) and 0 <= value < END  # type: ignore[operator]


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by its path: ``realm_access.roles`` is ``roles`` within ``realm_access``."""
    if name in claims:
        return claims[name]
    found: object = claims
    for step in name.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _groups(words: str) -> frozenset[str]:
    groups = frozenset(filter(None, re.split(r"[\s,]+", words)))
    for group in groups:
        if not is_userid(group) or ":" in group:
            raise ConfigurationError(f"smsgw.jwt.groups has {group!r}, which cannot be a group")
    return groups
