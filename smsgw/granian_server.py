"""``egg:smsgw#granian``: the HTTP server granian, for ``pserve`` (PasteDeploy's ``paste.server_runner``).

The main process starts ``workers`` processes that serve, and starts another where one dies. Each worker makes the
application of the ini file for itself. One of the workers owns the spool (``spool/owner.py``). The main process closes
the application that ``pserve`` made, and owns nothing.

SIGTERM and SIGINT end all of them, after the requests that are under way. SIGHUP replaces the workers one by one: the
new ones read the ini file anew.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NoReturn

import colander

from smsgw.listener import Wsgi
from smsgw.model import ConfigurationError
from smsgw.settings import Boolean, Mode, pip_install, read

log = logging.getLogger(__name__)

OVERLAP = 5.0  # seconds from the start of a new worker to the end of the one that it replaces


def _number(missing: int, least: int, most: int, description: str) -> colander.SchemaNode:
    range = colander.Range(least, most)
    return colander.SchemaNode(colander.Integer(), missing=missing, validator=range, description=description)


class ServerSchema(colander.MappingSchema):
    """The settings of ``[server:granian]``. What waitress has too is called as there."""

    listen = colander.SchemaNode(
        colander.String(),
        missing="127.0.0.1:5000",
        validator=colander.Regex(
            r"([^\s:]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}\Z", "should be one address, such as 127.0.0.1:5000"
        ),
        description="host and port",
    )
    unix_socket = colander.SchemaNode(colander.String(), missing=None, description="path, in place of host and port")
    unix_socket_perms = colander.SchemaNode(Mode(), missing=0o600, description="mode of that socket")
    workers = _number(2, 1, 64, "processes")
    threads = _number(8, 1, 256, "requests at once in each process")
    connection_limit = _number(100, 1, 100_000, "connections at once of each process; others wait")
    max_request_header_size = _number(65_536, 8192, 2**24, "bytes of a request's headers, about")
    header_timeout = _number(30, 1, 60, "seconds for which a connection waits for the headers of a request")
    stop_timeout = _number(30, 1, 1800, "seconds for requests that are under way when a process is to end")
    tls_certificate = colander.SchemaNode(colander.String(), missing=None, description="file; with it, clients use TLS")
    tls_key = colander.SchemaNode(colander.String(), missing=None, description="file with its key, in PKCS#8")
    access_log = colander.SchemaNode(Boolean(), missing=False, description="whether each request is logged")
    app = colander.SchemaNode(colander.String(), missing="main", description="the application's name, as in [app:main]")


def read_settings(raw: Mapping[str, str]) -> dict[str, Any]:
    """The settings of such a section, by their names in ``ServerSchema``.

    :raises ConfigurationError: one is wrong, or unknown.
    """
    found = read(ServerSchema(), raw, "")
    if (found["tls_certificate"] is None) != (found["tls_key"] is None):
        raise ConfigurationError("tls_certificate and tls_key belong together: set both, or none")
    return found


def serve(app: Any, global_conf: Mapping[str, str], **settings: str) -> None:
    """Serve until a signal ends it.

    :param app: the application, as ``pserve`` made it: so its settings are right.
    :param global_conf: ``__file__`` is the ini file; the others are its defaults.
    """
    try:
        server = _make_server(read_settings(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"smsgw does not start: the server's section: {error}.\n")
        _exit(3)
    _close(app)
    defaults = {name: value for name, value in global_conf.items() if name not in ("__file__", "here")}
    try:
        server.serve(target_loader=partial(_load, global_conf["__file__"], defaults))
    except SystemExit as ended:  # a worker dies again and again
        _exit(int(ended.code or 0))


def _exit(status: int) -> NoReturn:
    """``pserve`` makes 0 of every status, and then nobody starts the gateway again."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


def _make_server(found: Mapping[str, Any]) -> Any:
    """granian with those settings.

    :raises ConfigurationError: it is not installed, or cannot read the certificate.
    """
    try:
        from granian.constants import HTTPModes, Interfaces, SSLProtocols
        from granian.http import HTTP1Settings
        from granian.server import Server
    except ImportError:
        raise ConfigurationError(f"granian is not installed; {pip_install('granian')}") from None
    host, _, port = found["listen"].rpartition(":")
    try:
        _check_key(found["tls_key"])
        return Server(
            found["app"],
            address=host.strip("[]"),
            port=int(port),
            uds=_path(found["unix_socket"]),
            uds_permissions=found["unix_socket_perms"],
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            websockets=False,
            workers=found["workers"],
            blocking_threads=found["threads"],
            backpressure=found["connection_limit"],
            http1_settings=HTTP1Settings(
                header_read_timeout=1000 * found["header_timeout"], max_buffer_size=found["max_request_header_size"]
            ),
            # The logging is that of the ini file, and is not set up anew.
            log_dictconfig={"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}},
            log_access=found["access_log"],
            ssl_cert=_path(found["tls_certificate"]),
            ssl_key=_path(found["tls_key"]),
            ssl_protocol_min=SSLProtocols.tls12,
            respawn_failed_workers=True,
            respawn_interval=OVERLAP,
            workers_kill_timeout=found["stop_timeout"],
        )
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"tls_certificate, tls_key: {error}") from error


def _check_key(path: str | None) -> None:
    """granian's workers would end without a word on another form of key.

    :raises OSError: it cannot be read.
    """
    if path is not None and "-----BEGIN PRIVATE KEY-----" not in Path(path).read_text("ascii", "replace"):
        raise ConfigurationError(f"tls_key: {path} should be in PKCS#8: openssl pkey -in {path} -out NEW")


def _path(written: str | None) -> Path | None:
    return None if written is None else Path(written)


def _load(ini: str, defaults: dict[str, str], name: str) -> Wsgi:
    """The application of that ini file, in a worker; it is closed when the worker ends."""
    from paste.deploy import loadapp

    app: Wsgi = loadapp(f"config:{ini}", name, global_conf=defaults)
    if hasattr(app, "registry") and app.registry.application.settings.trusted_proxies:
        log.warning("let the proxy drop headers with an underscore: granian takes X_Forwarded_For for X-Forwarded-For")
    Finalize(None, _close, [app], exitpriority=0)
    return app


def _close(app: Any) -> None:
    """End an application's work. Where a filter hides it, the main process goes on, and may own the spool."""
    if hasattr(app, "registry"):
        app.registry.application.close()
