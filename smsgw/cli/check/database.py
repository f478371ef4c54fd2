"""The store: whether its database can be opened and written to, and whose its file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, Wrong, one_line, owner_of, user_name
from smsgw.model import Unavailable

if TYPE_CHECKING:
    from smsgw.store import Store

STORE = Topic("store")


def check_store(installation: Installation) -> Findings:
    """Opens a transaction that changes nothing, as the gateway would."""
    try:
        used = getattr(installation.registry, "store", None)
    except Wrong:
        return  # which check_start tells
    if used is None:
        if installation.smsgw.store:
            yield STORE.ok("smsgw.store is set, and no plugin uses it")
        return
    from smsgw.store import FILE, Store  # SQLAlchemy takes a quarter of a second

    url = installation.smsgw.store or f"sqlite:///{installation.layout.state / FILE}"
    if url.startswith("sqlite:"):
        path = Path(url.partition("://")[2][1:].partition("?")[0])
        if not path.exists():
            yield STORE.ok(f"{path} is not there yet; the gateway makes it when it is first needed")
            if path.parent != installation.layout.state and not os.access(path.parent, os.W_OK, effective_ids=True):
                yield STORE.error(
                    f"{path.parent} is not there, or cannot be written to", "Make it, for the gateway's user."
                )
            return
        owner = path.lstat().st_uid  # of what stands there, which may be a link to what is root's alone
        gateway = owner_of(installation.layout)
        if gateway is not None and owner != gateway and gateway != 0:
            yield STORE.error(
                f"{path} belongs to {user_name(owner)}, and the gateway runs as {user_name(gateway)}",
                f"chown {user_name(gateway)} {path}",
            )
        if owner != os.geteuid():
            yield STORE.ok(
                f"{path} was not opened, since that would leave files of {user_name(os.geteuid())} beside it"
            )
            return
    yield from _check_database(Store(url))


def _check_database(store: Store) -> Findings:
    try:
        with store.begin() as connection:  # which SQLite refuses for a file that cannot be written to
            connection.exec_driver_sql("SELECT 1")
            is_open = connection.dialect.name == "sqlite" or (
                connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "off"
            )
    except Unavailable as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        yield STORE.error(
            f"the database of smsgw.store is out of service: {one_line(cause)}",
            "See whether it runs, and whether the gateway's user may use it.",
        )
    else:
        if is_open:
            yield STORE.ok("the database of smsgw.store can be opened and written to")
        else:
            yield STORE.error("the database of smsgw.store can be read only", "Name the one that can be written to.")
    finally:
        store.close()
