"""The gateway of an ini file, for commands. Public through ``smsgw.cli``."""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smsgw import assemble
from smsgw.cli.output import Failed, visible
from smsgw.model import ConfigurationError, Unavailable
from smsgw.settings import Settings, plugin_settings, read, read_core, refuse_defaults
from smsgw.spool import find_layout
from smsgw.spool.daemon import user_name
from smsgw.spool.layout import Layout

if TYPE_CHECKING:
    from smsgw.application import Application
    from smsgw.store import Stores

INI = "production.ini"
INI_PATH = click.Path(path_type=Path, readable=False)  # read_ini says why one cannot be read


class Wrong(click.ClickException):
    """The gateway would not start, and so the command stops: one sentence on stderr, exit status 3."""

    exit_code = 3

    def format_message(self) -> str:
        return visible(sentence(self.message))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message(), file=file, err=True)


@dataclass
class Installation:
    """The gateway of an ini file, not served.

    ``raw`` are its settings as written, ``defaults`` those of ``[DEFAULT]``, ``smsgw`` the core's.
    """

    ini: Path
    raw: Mapping[str, str] = field(repr=False)
    smsgw: Settings
    defaults: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def layout(self) -> Layout:
        return find_layout(self.smsgw)

    @cached_property
    def stores(self) -> Stores:
        from smsgw.store import Stores  # SQLAlchemy takes a quarter of a second

        return Stores(self.smsgw.store, self.layout.state)

    @cached_property
    def application(self) -> Application:
        """The whole application, which is not started: no file is made, and no thread runs.

        :raises Wrong: the gateway would not start.
        """
        try:
            with told():
                found: Application = assemble(self.defaults, self.raw).registry.application
                return found
        except (Wrong, KeyboardInterrupt):
            raise
        except Exception as error:  # Pyramid's own, such as those of pyramid.includes
            raise Wrong(f"the application cannot be made: {one_line(error)}") from error

    def settings_of(self, name: str, schema: Any) -> dict[str, Any]:
        """The settings of that plugin, by its schema.

        :raises ConfigurationError: one is wrong.
        """
        return read(schema, plugin_settings(self.raw).get(name, {}), f"smsgw.{name}.")


def install(path: Path) -> Installation:
    """The gateway of that ini file.

    :raises Wrong: it cannot be read, or has not what it should.
    """
    raw, defaults = read_ini(path)
    with told():
        refuse_defaults(defaults)
        return Installation(path, raw, read_core(raw), defaults=defaults)


def read_ini(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The settings in ``[app:main]`` of an ini file, and those in ``[DEFAULT]``.

    :raises Wrong: it cannot be read, or has no application.
    """
    readable(path)
    from pyramid.paster import get_appsettings

    try:
        found = get_appsettings(str(path))
    except LookupError as error:
        raise Wrong(f"{path}: {one_line(error)}; the gateway stands in [app:main], with use = egg:smsgw") from error
    except configparser.InterpolationError as error:
        raise Wrong(f"{path}: {error.option} has a % in it that is not doubled; write %%") from None
    except configparser.ParsingError as error:
        numbers = [number for number, _ in getattr(error, "errors", ())] or [getattr(error, "lineno", "?")]
        lines = ", ".join(map(str, numbers))
        raise Wrong(f"{path}: line {lines} is neither [section] nor 'name = value'") from None
    except Exception as error:  # PasteDeploy's and configparser's own
        raise Wrong(f"{path}: {one_line(error)}") from error
    return dict(found), dict(found.global_conf)


def readable(path: Path) -> None:
    """:raises Wrong: it is not a text file, or cannot be read."""
    try:
        if path.is_dir():
            raise Wrong(f"{path} is a folder; name the gateway's ini file")
        path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise Wrong(f"there is no file {str(path)!r}; name the gateway's ini file") from None
    except UnicodeDecodeError as error:
        raise Wrong(f"{path} is not UTF-8, at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise Wrong(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL
        raise Wrong(f"{str(path)!r} is no path: {error}") from None


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A block whose ``ConfigurationError`` becomes a ``Wrong``."""
    try:
        yield
    except ConfigurationError as error:
        raise Wrong(str(error)) from error


def sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def one_line(error: BaseException) -> str:
    """Another library's error on one line, with its type where the text alone says little."""
    text = " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Let root do in the block what the folder's owner could do, and no more.

    Somebody who can write there may have put links to root's files there.

    :raises Wrong: the system does not let root be somebody else.
    """
    try:
        found = os.lstat(folder)
    except OSError:
        found = None
    if os.geteuid() != 0 or found is None or found.st_uid == 0:
        yield
        return
    try:
        account = pwd.getpwuid(found.st_uid)
        group, groups = account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)
    except KeyError:
        group, groups = found.st_gid, [found.st_gid]
    before = os.getegid(), os.getgroups()
    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(found.st_uid)
    except OSError as error:
        raise Wrong(f"root cannot be {user_name(found.st_uid)} here ({error.strerror}); be that user") from error
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


@contextlib.contextmanager
def using(database: Any, folder: Path) -> Iterator[None]:
    """A block that uses a database, as the owner of that folder. The database is closed at the end.

    :param database: a ``smsgw.store.Store``.
    :raises Failed: it is out of service. The message names it, without a password.
    """
    try:
        with as_owner(folder):
            yield
    except Unavailable as error:
        cause = " ".join(str(error.__cause__).split())
        raise Failed(f"{error.detail} ({database.name}): {cause}") from error
    finally:
        database.close()


def make_state(layout: Layout) -> None:
    """Make smsgw's own folder, if there is none. It must belong to the gateway's user.

    :raises Wrong: it cannot be made, or would be root's.
    """
    folder = layout.state
    if folder.exists():
        return
    try:
        if os.geteuid() == 0 and os.stat(folder.parent).st_uid != 0:
            raise Wrong(f"there is no folder {folder} yet; start the gateway once, which makes it, or be its user")
        os.mkdir(folder, 0o700)
    except OSError as error:
        raise Wrong(f"{folder} cannot be made: {error.strerror}") from error


def owner_of(layout: Layout) -> int | None:
    """The gateway's user, who owns smsgw's own folder; ``None``: it has not run on that spool yet."""
    try:
        return os.stat(layout.state).st_uid
    except OSError:
        return None
