"""``[server:main]``: waitress's settings beside ours, its port, and the gateway that answers there."""

from __future__ import annotations

import configparser
import errno
import http.client
import ipaddress
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, one_line

SERVER = Topic("server")
MONITORING = "/api/v1.0/monitoring"
MANY_THREADS = 16  # more make a busy process slower
TIMEOUT = 5.0  # seconds


def check_server(ini: Path, installation: Installation | None) -> Findings:
    """What pserve would serve, of which gunicorn reads the logging alone."""
    yield from _check_logging(ini)
    from paste.deploy.loadwsgi import SERVER as KIND
    from paste.deploy.loadwsgi import loadcontext

    try:
        context = loadcontext(KIND, f"config:{ini.absolute()}")
    except LookupError:
        yield SERVER.ok("there is no [server:main]; pserve would need one, gunicorn does not")
        return
    except (configparser.Error, OSError, ValueError):
        return  # which the settings tell
    except Exception as error:
        yield SERVER.stops(f"[server:main]: {one_line(error)}", "Write 'use = egg:waitress#main'.")
        return
    found: Mapping[str, str] = context.local_conf
    if not context.object.__module__.startswith("waitress"):
        yield SERVER.ok("[server:main] is not waitress, and nothing is known of it")
        return
    from waitress.adjustments import Adjustments

    try:
        adjustments = Adjustments(**found)
    except (ValueError, OSError) as error:
        yield SERVER.stops(f"[server:main]: {one_line(error)}", "See waitress's own documentation for its settings.")
        return
    if installation is not None:
        yield from _check_beside(installation, found, adjustments)
    if adjustments.unix_socket:
        return
    for family, _, _, address in adjustments.listen:
        yield from _check_port(family, address)


def _check_logging(ini: Path) -> Findings:
    """Whether all that ``[loggers]`` and its like name is there (logging.config, "Configuration file format")."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(ini.read_text("utf-8"))
    except (configparser.Error, OSError, ValueError):
        return  # which the settings tell
    if not parser.has_section("loggers"):
        return
    for kind in ("logger", "handler", "formatter"):
        keys = parser.get(f"{kind}s", "keys", fallback="")
        for key in filter(None, map(str.strip, keys.split(","))):
            if not parser.has_section(f"{kind}_{key}"):
                yield SERVER.stops(f"[{kind}s] names {key!r}, and there is no section [{kind}_{key}]", "Add it.")
    if not parser.has_section("logger_root") or not parser.has_section("handlers"):
        yield SERVER.stops("[loggers] needs [logger_root] and [handlers]", "Copy those sections from production.ini.")


def _check_beside(installation: Installation, found: Mapping[str, str], adjustments: Any) -> Findings:
    """waitress's settings beside ours."""
    settings = installation.smsgw
    if adjustments.threads > MANY_THREADS:
        yield SERVER.warning(
            f"threads = {adjustments.threads} makes a busy process slower", "Set 4, and run gunicorn for more."
        )
    if adjustments.threads == 1:
        yield SERVER.ok("threads = 1: nobody is served while a message is cancelled, which takes a second")
    if adjustments.max_request_body_size < settings.max_body:
        yield SERVER.warning(
            f"waitress refuses bodies of over {adjustments.max_request_body_size} bytes before smsgw.max_body,"
            f" {settings.max_body}, can count",
            "Set max_request_body_size to more than smsgw.max_body.",
        )
    elif "max_request_body_size" not in found:
        yield SERVER.warning(
            f"waitress takes in bodies of up to {adjustments.max_request_body_size} bytes before the gateway is asked",
            "Set max_request_body_size to about twice smsgw.max_body.",
        )
    if adjustments.trusted_proxy and settings.trusted_proxies:
        yield SERVER.warning(
            "both trusted_proxy of waitress and smsgw.trusted_proxies read X-Forwarded-For", "Leave trusted_proxy out."
        )
    elif settings.trusted_proxies and adjustments.clear_untrusted_proxy_headers:
        yield SERVER.error(
            "waitress hides X-Forwarded-For, and all clients of smsgw.trusted_proxies count as one",
            "Set clear_untrusted_proxy_headers = false.",
        )


def _check_port(family: int, address: tuple[Any, ...]) -> Findings:
    host, port = str(address[0]), int(address[1])
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        yield SERVER.warning(
            f"the gateway listens on {where}, and passwords cross the network as they are",
            "Listen on 127.0.0.1, behind a web server with TLS.",
        )
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            yield SERVER.error(f"only root may listen on {where}", "Take a port from 1024 on, behind a web server.")
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield from _check_gateway(host, port, where)
            else:
                yield SERVER.error(
                    f"nobody can listen on {where}: {error.strerror}", "Name an address of this machine."
                )
            return
    yield SERVER.ok(f"nothing listens on {where}: the gateway does not run, or is served by another server")


def _check_gateway(host: str, port: int, where: str) -> Findings:
    """Ask whoever listens there how it is."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = http.client.HTTPConnection(target, port, timeout=TIMEOUT)
    try:
        connection.request("GET", MONITORING)
        reply = connection.getresponse()
        told = json.loads(reply.read(65536))
        is_ours = isinstance(told, dict) and ("monitoring" in told or "error" in told)
    except (OSError, http.client.HTTPException, ValueError):
        is_ours = False
    finally:
        connection.close()
    if not is_ours:
        yield SERVER.error(f"something else than a gateway listens on {where}", "End it, or take another port.")
    elif reply.status == http.client.OK:
        yield SERVER.ok(f"the gateway answers on {where}, and could take a message")
    else:
        yield SERVER.error(
            f"the gateway on {where} answers {reply.status}: {told.get('error', '')}", "See its log for the reason."
        )
