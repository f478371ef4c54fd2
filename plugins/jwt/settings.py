"""The settings ``smsgw.jwt.*``, and the source of the keys that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import colander

from smsgw.files import unreadable
from smsgw.model import ConfigurationError
from smsgw.settings import Lines, Number, Words
from smsgw.tls import is_loopback, make_context

from .keys import ALGORITHMS
from .sources import File, Source, Url


def _text(description: str, missing: str | None = None) -> colander.SchemaNode:
    return colander.SchemaNode(colander.String(), missing=missing, description=description)


def _seconds(description: str, missing: int, least: int, most: int) -> colander.SchemaNode:
    return colander.SchemaNode(
        colander.Integer(), missing=missing, validator=colander.Range(least, most), description=description
    )


class Settings(colander.MappingSchema):
    """Of one identity provider."""

    issuer = colander.SchemaNode(colander.String(), description="the provider, as the claim iss names it")
    audience = colander.SchemaNode(Words(), description="whom tokens are for, as the claim aud names the gateway")
    algorithms = colander.SchemaNode(
        Words(), missing=("RS256", "ES256"), description="algorithms of signatures that are taken"
    )
    key_file = _text("the provider's public keys, in PEM or JWKS; or jwks_url")
    jwks_url = _text("where the provider serves its keys: https, or http on this machine; or key_file")
    ca_file = _text("certificates of the authorities that are trusted for jwks_url; without it, the system's")
    timeout = colander.SchemaNode(
        Number(), missing=5.0, validator=colander.Range(0.1, 60), description="seconds for fetching the keys"
    )
    refresh_seconds = _seconds("after what time the keys are fetched again", 300, 5, 86400)
    keep_seconds = _seconds("for how long keys are known while they cannot be fetched", 86400, 5, 31 * 86400)
    leeway = _seconds("seconds by which clocks may differ", 30, 0, 600)
    userid_claim = _text("claim that is the userid; a.b is b within a", "sub")
    groups_claim = _text("claim with the groups, a list or words between spaces; without it there are none")
    groups = colander.SchemaNode(
        Lines(),
        missing=None,
        description="lines 'group of the provider: groups of the gateway'; other groups then count for nothing",
    )


def check(settings: Mapping[str, Any]) -> None:
    """:raises ConfigurationError: the settings do not go together."""
    for algorithm in settings["algorithms"]:
        if algorithm == "none" or algorithm.startswith("HS"):
            raise ConfigurationError(
                f"smsgw.jwt.algorithms has {algorithm!r}, with which whoever knows the provider's public key, or "
                "nothing, could make tokens; take it out"
            )
        if algorithm not in ALGORITHMS:
            known = ", ".join(sorted(ALGORITHMS))
            raise ConfigurationError(f"smsgw.jwt.algorithms has {algorithm!r}, and should have some of {known}")
    for name in ("algorithms", "audience"):
        if not settings[name]:
            raise ConfigurationError(f"smsgw.jwt.{name} is empty; give it a value")
    if settings["groups"] and not settings["groups_claim"]:
        raise ConfigurationError("smsgw.jwt.groups is about the groups in smsgw.jwt.groups_claim; set that, too")
    if settings["keep_seconds"] < settings["refresh_seconds"]:
        raise ConfigurationError("smsgw.jwt.keep_seconds should not be less than smsgw.jwt.refresh_seconds")


def make_source(settings: Mapping[str, Any]) -> Source:
    """:raises ConfigurationError: the settings name no source, or two, or one that cannot work."""
    path, url = settings["key_file"], settings["jwks_url"]
    if (path is None) == (url is None):
        raise ConfigurationError("set either smsgw.jwt.key_file or smsgw.jwt.jwks_url, where the keys are")
    if path is not None and settings["ca_file"] is not None:
        raise ConfigurationError("smsgw.jwt.ca_file is for smsgw.jwt.jwks_url; leave it out")
    if path is not None:
        try:
            return File(Path(path))
        except OSError as error:
            raise ConfigurationError(f"smsgw.jwt.key_file: {unreadable(path, error)}") from error
        except ValueError as error:
            raise ConfigurationError(f"smsgw.jwt.key_file: {path} {error}") from error
    return _url(url, settings)


def _url(url: str, settings: Mapping[str, Any]) -> Url:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"smsgw.jwt.jwks_url: {url!r}: {error}") from error
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or ""))
    if not is_safe or not host or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"smsgw.jwt.jwks_url: {url!r} should be https://HOST/PATH, or http:// where the host is this machine"
        )
    if parts.scheme == "http" and settings["ca_file"] is not None:
        raise ConfigurationError("smsgw.jwt.ca_file is for an https:// URL; leave it out")
    context = make_context("smsgw.jwt.ca_file", settings["ca_file"]) if parts.scheme == "https" else None
    times = {"refresh": settings["refresh_seconds"], "keep": settings["keep_seconds"]}
    return Url(parts, context, timeout=settings["timeout"], **times)
