"""The store, and the journal: whether they can be opened and written to, and whose their files are."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, Wrong, one_line, owner_of
from smsgw.model import Unavailable
from smsgw.spool.daemon import user_name

STORE = Topic("store")


def check_store(installation: Installation) -> Findings:
    """Open a transaction that changes nothing on the shared database, and on the journal."""
    try:
        stores = installation.application.stores
    except Wrong:
        return  # check_start tells why
    from smsgw.store import FILE  # SQLAlchemy takes a quarter of a second

    if stores.shared is not None:
        url = installation.smsgw.store or f"sqlite:///{installation.layout.state / FILE}"
        what = "the database of smsgw.store"
        if url.startswith("sqlite:"):
            yield from _check_file(installation, Path(url.partition("://")[2][1:].partition("?")[0]), what)
        else:
            yield from _check_database(url, what)
    for path in (store.path for store in stores.own if store.path):
        yield from _check_file(installation, path, f"the database {path}", is_own=True)


def folders(installation: Installation) -> list[Path]:
    """The folders of SQLite's files."""
    try:
        stores = installation.application.stores
    except Wrong:
        return []
    return [store.folder for store in stores.all if store.folder is not None]


def _check_file(installation: Installation, path: Path, what: str, *, is_own: bool = False) -> Findings:
    """
    :param is_own: whether the gateway makes the folder that it is in, too.
    """
    gateway, user = owner_of(installation.layout), os.geteuid()
    if not path.exists():
        yield STORE.ok(f"{path} is not there yet; the gateway makes it when it is first needed")
        folder = path.parent.parent if is_own and not path.parent.exists() else path.parent
        is_usable = folder.is_dir() and os.access(folder, os.W_OK, effective_ids=True)
        if folder != installation.layout.state and not is_usable:
            yield STORE.error(
                f"{folder} is not there, or cannot be written to",
                f"As root: install -d -o {user_name(user if gateway is None else gateway)} -m 700"
                f" {shlex.quote(str(folder))}",
            )
        return
    # lstat: it may be a link to a file that is root's alone.
    owners = {found: found.lstat().st_uid for found in ([path.parent, path] if is_own else [path])}
    for found, owner in owners.items():
        if gateway is not None and owner != gateway and gateway != 0:
            yield STORE.error(
                f"{found} belongs to {user_name(owner)}, and the gateway runs as {user_name(gateway)}",
                f"As root: chown {user_name(gateway)} {shlex.quote(str(found))}",
            )
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        yield STORE.error(f"{what} cannot be written to", f"As root: chmod u+rw {shlex.quote(str(path))}")
    elif set(owners.values()) == {user}:
        yield from _check_database(f"sqlite:///{path}", what, is_own=is_own)
    else:
        yield STORE.ok(f"{path} was not opened, since that would leave files of {user_name(user)} beside it")


def _check_database(url: str, what: str, *, is_own: bool = False) -> Findings:
    from smsgw.store import Store, is_broken

    store = Store(url)
    try:
        with store.begin() as connection:  # SQLite refuses it for a file that cannot be written to
            connection.exec_driver_sql("SELECT 1")
            is_open = connection.dialect.name == "sqlite" or (
                connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "off"
            )
    except Unavailable as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        if is_broken(error) and is_own:
            remedy = "Start the gateway: it puts that file aside, and makes the journal anew from the spool's files."
        elif is_broken(error):
            remedy = "Stop the gateway, put a backup in its place, and start the gateway."
        elif store.path:
            remedy = f"See which program has it open: fuser {shlex.quote(store.path.as_posix())}"
        else:
            remedy = "See whether it runs, and whether the gateway's user may use it."
        yield STORE.error(f"{what} is out of service: {one_line(cause)}", remedy)
    else:
        if is_open:
            yield STORE.ok(f"{what} can be opened and written to")
        else:
            yield STORE.error(f"{what} can be read only", "Name the one that can be written to.")
    finally:
        store.close()
