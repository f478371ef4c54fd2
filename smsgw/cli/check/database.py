"""The store: whether its database can be opened and written to, and whose its file is."""

from __future__ import annotations

import os
from pathlib import Path

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, Wrong, one_line, owner_of, user_name
from smsgw.model import Unavailable

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
        owner = path.stat().st_uid
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
    store = Store(url)
    try:
        with store.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
    except Unavailable as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        yield STORE.error(
            f"the database of smsgw.store is out of service: {one_line(cause)}",
            "See whether it runs, and whether the gateway's user may use it.",
        )
    else:
        yield STORE.ok("the database of smsgw.store can be opened and written to")
    finally:
        store.close()
