"""The settings ``smsgw.ldap.*``, and what is made of them at the start."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import colander

from smsgw.model import ConfigurationError
from smsgw.settings import Boolean, Lines, Number, Words
from smsgw.tls import is_loopback, make_context

from .directory import Account, Directory, Server
from .lookup import BySearch, ByTemplate, Lookup
from .names import parse
from .wire import Address

PORTS = {"ldap": 389, "ldaps": 636}

log = logging.getLogger(__name__)


def _text(description: str, missing: str | None = None) -> colander.SchemaNode:
    return colander.SchemaNode(colander.String(), missing=missing, description=description)


class Settings(colander.MappingSchema):
    url = colander.SchemaNode(Words(), description="ldap:// and ldaps:// URLs of its servers, the preferred one first")
    user_dn = _text("name of a user's entry, with {userid} in it; or search_base")
    search_base = _text("name of the entry under which users are searched for; or user_dn")
    search_filter = _text("filter that finds a user's entry, with {userid} in it", "(uid={userid})")
    userid_attribute = _text("attribute that spells the userid; without it, the one of user_dn or search_filter")
    service_dn = _text("name of the entry that searches; without it nobody's, or with user_dn the user's own")
    service_password_file = _text("file with its password, not readable by everybody")
    decoy_dn = _text("name of an entry on which passwords of unknown users are tried, so that they take as long")
    starttls = colander.SchemaNode(
        Boolean(), missing=False, description="whether connections to ldap:// are encrypted by StartTLS"
    )
    ca_file = _text("certificates of the authorities that are trusted; without it, the system's")
    insecure_accept_any_certificate = colander.SchemaNode(
        Boolean(), missing=False, description="whether anybody on the way may pose as the directory, and read passwords"
    )
    timeout = colander.SchemaNode(
        Number(),
        missing=5.0,
        validator=colander.Range(0.1, 60),
        description="seconds for all that a request asks one server",
    )
    cache_seconds = colander.SchemaNode(
        colander.Integer(),
        missing=300,
        validator=colander.Range(0, 86400),
        description="for how long a verified password is not asked for again",
    )
    group_base = _text("name of the entry under which groups are")
    group_filter = _text("filter that finds a user's groups, with {dn} or {userid} in it")
    group_attribute = _text("attribute of a user's entry that names the groups, such as memberOf, in place of a search")
    required_group = _text("group that users must be in, by what it is called or by its name")
    groups = colander.SchemaNode(
        Lines("'group of the directory: groups of the gateway'"),
        missing=None,
        description="lines 'group of the directory: groups of the gateway'; other groups then count for nothing",
    )


def make_directory(settings: Mapping[str, Any]) -> Directory:
    """:raises ConfigurationError: a URL, the file of certificates or the service account is wrong."""
    context = _context(settings["ca_file"], settings["insecure_accept_any_certificate"])
    addresses = [_address(url, context, settings["starttls"]) for url in settings["url"]]
    if not addresses:
        raise ConfigurationError("smsgw.ldap.url is empty; name a server, such as ldaps://ldap.example.com")
    account = _account(settings["service_dn"], settings["service_password_file"])
    return Directory([Server(address, account, settings["timeout"]) for address in addresses])


def make_lookup(settings: Mapping[str, Any]) -> Lookup:
    """:raises ConfigurationError: the settings name no way to find users, or two, or one that cannot work."""
    template, base = settings["user_dn"], settings["search_base"]
    if (template is None) == (base is None):
        raise ConfigurationError("set either smsgw.ldap.user_dn or smsgw.ldap.search_base, by which users are found")
    if template is not None:
        return ByTemplate(template, reads_as_user=settings["service_dn"] is None)
    return BySearch(base, settings["search_filter"], settings["decoy_dn"])


def _address(url: str, context: ssl.SSLContext, starttls: bool) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"smsgw.ldap.url: {url!r}: {error}") from error
    scheme, host = parts.scheme, parts.hostname
    if scheme not in PORTS or not host or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"smsgw.ldap.url: {url!r} should be ldap://HOST[:PORT] or ldaps://HOST[:PORT]")
    has_starttls = starttls and scheme == "ldap"
    if scheme == "ldap" and not has_starttls and not is_loopback(host):
        log.warning("passwords go over %s as they are typed; take ldaps://, or set smsgw.ldap.starttls", url)
    encrypts = has_starttls or scheme == "ldaps"
    return Address(url, host, port or PORTS[scheme], context if encrypts else None, has_starttls)


def _context(ca_file: str | None, accepts_any: bool) -> ssl.SSLContext:
    context = make_context("smsgw.ldap.ca_file", ca_file)
    if accepts_any:
        log.warning("no certificate of the directory is checked: whoever gets in between may read passwords")
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _account(dn: str | None, password_file: str | None) -> Account | None:
    if (dn is None) != (password_file is None):
        raise ConfigurationError("smsgw.ldap.service_dn and smsgw.ldap.service_password_file go together; set both")
    if dn is None or password_file is None:
        return None
    try:
        parse(dn)
    except ValueError as error:
        if "@" not in dn and "\\" not in dn:  # as Active Directory also calls users
            raise ConfigurationError(f"smsgw.ldap.service_dn: {error}") from error
    account = Account(dn, Path(password_file))
    account.password()
    return account
