"""Encrypted connections to servers that a setting names. Public."""

from __future__ import annotations

import ipaddress
import ssl

from smsgw.model import ConfigurationError


def make_context(setting: str, ca_file: str | None) -> ssl.SSLContext:
    """Checks a server's certificate, and its name.

    :param setting: how the setting is called that names ``ca_file``.
    :param ca_file: certificates of the authorities that are trusted; ``None``: the system's.
    :raises ConfigurationError: the file cannot be read, or has none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "has no certificates"
        raise ConfigurationError(f"{setting}: {ca_file}: {reason}") from error


def is_loopback(host: str) -> bool:
    """Whether that host is this machine, so that nobody is in between."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
