"""The ini file: plugins, settings, and ``[server:main]`` with the gateway that answers at its port."""

from __future__ import annotations

import configparser
import contextlib
import errno
import http.client
import importlib.util
import ipaddress
import json
import logging
import queue
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pluggy

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, Wrong, one_line
from smsgw.gateway import transformed
from smsgw.granian_server import read_settings, serve
from smsgw.model import ConfigurationError, Identity
from smsgw.plugins import Misbehaved, hooks_of, implementations
from smsgw.refusals import Invalid
from smsgw.settings import is_on
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.text import foreign

PLUGINS, SETTINGS, SERVER = Topic("plugins"), Topic("settings"), Topic("server")
MONITORING = "/api/v1.0/monitoring"
MANY_THREADS = 16  # more make a busy process slower
TIMEOUT = 5.0  # seconds
PRIVATE = ("htpasswd.path", "password_file", "secret_file")  # the ends of names of settings that name files of secrets
T = TypeVar("T")
WORD = "abc"  # a text that transforms can be expected to take

# Pairs of shipped plugins that should stand the other way round, and why.
WRONG_ORDER = (
    ("signature", "transliterate", "so that what signature adds is transliterated too"),
    ("limit", "transliterate", "so that texts are cut that transliterate would make short enough"),
    *(
        (other, "template", f"so that {other} changes how a client names a template, and not the text")
        for other in ("transliterate", "signature", "limit")
    ),
    *(
        (other, "token", f"so that {other} refuses a token that a client shows as its password")
        for other in ("htpasswd", "ldap")
    ),
    ("ldap", "htpasswd", "so that an account in htpasswd does not get in while the directory is out of service"),
)


class _Heard(logging.Handler):
    """Collects what plugins warn of when they are made."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "smsgw.plugins":  # its warnings are findings of their own
            self.sentences.append(record.getMessage().splitlines()[0])


def check_start(installation: Installation) -> Findings:
    """Whether the gateway would start: makes every plugin with its settings, and all routes and views."""
    heard, log = _Heard(), logging.getLogger()
    log.addHandler(heard)
    try:
        found = installation.application
    except Wrong as error:
        yield PLUGINS.stops(error.message)
        return
    finally:
        log.removeHandler(heard)
    yield PLUGINS.ok(f"the gateway starts with {', '.join(installation.smsgw.plugins) or 'no plugins'}")
    for sentence in heard.sentences:
        yield PLUGINS.warning(f"a plugin warns: {sentence}", "See to it, or to the plugin's settings.")
    hook = found.plugins.hook
    if not implementations(hook.authenticate):
        yield PLUGINS.error("no plugin knows users, so nobody gets in", "Name one in smsgw.plugins, such as htpasswd.")
    if not implementations(hook.permits):
        yield PLUGINS.error("no plugin permits anything", "Name one in smsgw.plugins, such as allow.")
    for name in installation.smsgw.plugins:
        plugin_class = type(found.plugins.get_plugin(name))
        if not hooks_of(plugin_class) and not hasattr(plugin_class, "includeme"):
            yield PLUGINS.warning(
                f"{name} has no hook, and does nothing", "Mark its methods @hookimpl, or take it out."
            )
    yield from _check_text(implementations(hook.transform))


def _check_text(transforms: Sequence[pluggy.HookImpl]) -> Findings:
    text = WORD
    for implementation in transforms:
        try:
            # A plugin that waits for something must not hold up what else is to be told.
            text = in_time(lambda: transformed(implementation, text, Identity("smsgw-check")), TIMEOUT)  # noqa: B023
        except Invalid:
            return
        except Exception as error:
            name, why = implementation.plugin_name, error.sentence if isinstance(error, Misbehaved) else one_line(error)
            yield PLUGINS.error(f"{name} fails to transform {WORD!r}: {why}", "Nothing can be sent; correct it.")
            return
    if characters := foreign(text):
        yield PLUGINS.warning(
            f"every text goes out as UCS2, in twice the parts and more, for the {characters!r} that plugins add",
            "Use characters of the GSM alphabet there; 'smsgw preview' tells which are.",
        )


def check_order(installation: Installation) -> Findings:
    names = installation.smsgw.plugins
    for first, second, why in WRONG_ORDER:
        if first in names and second in names and names.index(first) < names.index(second):
            yield PLUGINS.warning(f"{second} stands after {first}, {why}", f"Write {second} before {first}.")
    if "simulator" in names:
        yield PLUGINS.warning(
            "the simulator plays smsd, and no message reaches a phone",
            "Take simulator out of smsgw.plugins where messages are meant.",
        )


def check_settings(installation: Installation) -> Findings:
    """Settings that are possible and unwise."""
    settings, raw = installation.smsgw, installation.raw
    for name in ("guesses_per_user", "guesses_per_address"):
        if getattr(settings, name) == 0:
            yield SETTINGS.warning(
                f"smsgw.{name} is 0, and passwords can be guessed as fast as they are sent", "Set a limit."
            )
    if not settings.fsync:
        yield SETTINGS.warning("smsgw.fsync is off, and a power failure loses acknowledged messages", "Set it to true.")
    if settings.get_send:
        yield SETTINGS.ok("messages can be sent by GET, and their texts stand in the logs of proxies")
    for network in settings.trusted_proxies:
        if getattr(network, "prefixlen", 1) == 0:
            yield SETTINGS.error(
                f"smsgw.trusted_proxies has {network}, and any client can claim any address", "Name the proxy's own."
            )
    for key, value in raw.items():
        if ".insecure_" in key and is_on(value):
            yield SETTINGS.warning(f"{key} is on, and what it says is given up", "Take it out.")
    if "pyramid_debugtoolbar" in raw.get("pyramid.includes", ""):
        yield SETTINGS.error(
            "pyramid.includes has pyramid_debugtoolbar, which runs code for whoever asks", "Take it out."
        )
    yield from _check_files(installation)


def _check_files(installation: Installation) -> Findings:
    """Who can read and change the ini file, and the files of secrets that it names."""
    raw, ini = installation.raw, installation.ini
    mode = ini.stat().st_mode
    if mode & stat.S_IWOTH:
        yield SETTINGS.error(f"everybody can change {ini}", f"chmod o-w {ini}")
    if mode & stat.S_IROTH and any(_is_secret(key, value) for key, value in raw.items()):
        yield SETTINGS.warning(f"everybody can read {ini}, and a password stands in it", f"chmod o-r {ini}")
    for path in [Path(value) for key, value in raw.items() if key.endswith(PRIVATE)]:
        with contextlib.suppress(OSError, ValueError):  # the plugin itself says so
            mode = path.stat().st_mode
            if mode & stat.S_IWOTH:
                yield SETTINGS.error(f"everybody can change {path}", f"chmod o-w {path}")
            if mode & stat.S_IROTH:
                yield SETTINGS.warning(f"everybody can read {path}", f"chmod o-r {path}")


def _is_secret(key: str, value: str) -> bool:
    return bool(re.search(r"://[^/\s:@]*:[^/\s@]+@", value) or re.search(r"(secret|password|token)$", key))


def check_server(ini: Path, installation: Installation | None) -> Findings:
    """``[server:main]``, for pserve, and the logging, for gunicorn too; ``[server:granian]`` where it is there."""
    yield from _check_logging(ini)
    yield from _check_granian(ini)
    from paste.deploy.loadwsgi import SERVER as KIND
    from paste.deploy.loadwsgi import loadcontext

    try:
        context = loadcontext(KIND, f"config:{ini.absolute()}")
    except LookupError:
        yield SERVER.ok("there is no [server:main]; pserve would need one, gunicorn does not")
        return
    except (configparser.Error, OSError, ValueError):
        return  # the check of the settings says so
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
        yield from _check_port(family, address, installation)


def _check_granian(ini: Path) -> Findings:
    """The settings of ``[server:granian]``, which pserve takes only when it is told to."""
    from paste.deploy.loadwsgi import SERVER as KIND
    from paste.deploy.loadwsgi import loadcontext

    try:
        context = loadcontext(KIND, f"config:{ini.absolute()}", name="granian")
        settings = read_settings(context.local_conf) if context.object is serve else None
    except (LookupError, OSError, ValueError, configparser.Error):
        return  # there is none; or the file is wrong, and the check of the settings says so
    except ConfigurationError as error:
        yield SERVER.error(f"[server:granian]: {error}", "See production.ini for its settings.")
        return
    except Exception as error:
        yield SERVER.error(f"[server:granian]: {one_line(error)}", "Write 'use = egg:smsgw#granian'.")
        return
    if settings is None:
        return
    if importlib.util.find_spec("granian") is None:
        yield SERVER.ok("[server:granian] cannot be used: granian is not installed")
    elif settings["threads"] > MANY_THREADS:
        yield SERVER.warning(
            f"[server:granian]: threads = {settings['threads']} makes a busy process slower", "Set 8, and more workers."
        )


def _check_logging(ini: Path) -> Findings:
    """Whether each logger, handler and formatter has its section (logging.config, "Configuration file format")."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(ini.read_text("utf-8"))
    except (configparser.Error, OSError, ValueError):
        return  # the check of the settings says so
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


def _check_port(family: int, address: tuple[Any, ...], installation: Installation | None) -> Findings:
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
                yield from _check_gateway(host, port, where, installation)
            else:
                yield SERVER.error(
                    f"nobody can listen on {where}: {error.strerror}", "Name an address of this machine."
                )
            return
    yield SERVER.ok(f"nothing listens on {where}: the gateway does not run, or is served by another server")


def _check_gateway(host: str, port: int, where: str, installation: Installation | None) -> Findings:
    """Ask the server that listens there for its monitoring."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        status, told = in_time(lambda: _ask(target, port), TIMEOUT)
    except TimeoutError:
        yield SERVER.error(
            f"what listens on {where} does not answer within {TIMEOUT:.0f} seconds",
            "If it is the gateway, all its threads are busy: see its log, and which plugin waits for what.",
        )
        return
    except (OSError, http.client.HTTPException, ValueError):
        status, told = 0, None
    if not (isinstance(told, dict) and ("monitoring" in told or "error" in told)):
        yield SERVER.error(f"something else than a gateway listens on {where}", "End it, or take another port.")
    elif status == http.client.OK and installation and not _is_looked_after(installation.layout):
        yield SERVER.error(
            f"the gateway on {where} is another one: none looks after {installation.layout.outgoing}",
            "Take another port, and start the gateway of this ini file.",
        )
    elif status == http.client.OK:
        yield SERVER.ok(f"the gateway answers on {where}, and could take a message")
    else:
        yield SERVER.error(
            f"the gateway on {where} answers {status}: {told.get('error', '')}", "See its log for the reason."
        )


def _is_looked_after(layout: Layout) -> bool:
    """Whether a gateway has that spool, as far as this user can see. One that starts takes a second."""
    try:
        if not (layout.state / "locks").exists():
            return False
        for _ in range(3):
            lock = Locks(layout.state).try_take("owner")
            if lock is None:
                return True
            lock.release()
            time.sleep(1)
    except OSError:
        return True  # another user's; the checks of the spool say so
    return False


def _ask(host: str, port: int) -> tuple[int, Any]:
    """The status of the monitoring, and its body.

    :raises OSError, http.client.HTTPException, ValueError: there is none.
    """
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", MONITORING)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read(65536))
    finally:
        connection.close()


def in_time(work: Callable[[], T], seconds: float) -> T:
    """What that returns, or raises.

    :raises TimeoutError: it takes longer; it goes on in a thread that holds up nobody's end.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"it takes more than {seconds:.0f} seconds") from None
    if error is not None:
        raise error
    return cast("T", found)
