"""The gateway as operators run it: as a user of its own, who has no right of root's."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import as_user
from tests.conftest import OUTGOING, USERS, sha
from tests.server import Server, wait_until


@pytest.mark.parametrize("mode", ["0660", "0644", "0600"])
def test_all_that_users_do(tmp_path: Path, mode: str) -> None:
    nobody = as_user("nobody")
    spool, users = tmp_path / "spool", tmp_path / "htpasswd"
    for folder in (spool, spool / "outgoing", spool / "checked", spool / "sent"):
        folder.mkdir()
        shutil.chown(folder, "nobody", "nogroup")
        folder.chmod(0o2775)
    users.write_text(f"lvv:{sha(USERS['lvv'])}\n")
    settings = {
        "smsgw.spool": str(spool),
        "smsgw.plugins": "htpasswd allow",
        "smsgw.htpasswd.path": str(users),
        "smsgw.file_mode": mode,
    }
    with Server(tmp_path, settings, enter=["sh", "-c", 'umask 077; exec "$@"', "sh", *nobody]) as server:
        assert server.monitor().status == 200
        replies = [
            server.send(["79680000000"]),
            server.send(["79680000000"], key="one-number"),
            server.send(["79680000000", "79160000000"], key="two-numbers"),
            server.send(["79680000000", "79160000000"]),
            server.send([f"7968{number:07}" for number in range(100)]),
        ]
        assert [reply.status for reply in replies] == [201] * len(replies), server.stderr
        assert server.send(["79680000000", "79160000000"], key="two-numbers").json == replies[2].json
        ids = {id for reply in replies for id in reply.json["message_id"].values()}
        outgoing = spool / "outgoing"
        wait_until(lambda: {name for name in os.listdir(outgoing) if name[0] != "."} == ids, outgoing)
        assert {stat.S_IMODE((outgoing / id).stat().st_mode) for id in ids} == {int(mode, 8)}
        assert server.request("GET", f"{OUTGOING}/?limit=1000").json["total_count"] == len(ids) == 106
        cancelled = min(ids)
        assert server.request("DELETE", f"{OUTGOING}/{cancelled}").json == {"deleted": f"outgoing/{cancelled}"}
        (outgoing / max(ids)).rename(spool / "sent" / max(ids))
        assert json.loads(server.request("GET", f"/api/v1.0/sms/sent/{max(ids)}").body)["From"] == "lvv"
    state = outgoing / ".smsgw"
    assert list((state / "ready").iterdir()) == []
    assert {stat.S_IMODE(path.stat().st_mode) & 0o77 for path in (state, *state.iterdir()) if path.is_dir()} == {0}


def test_root_in_place_of_the_gateway_s_user(base_settings: dict[str, str], refusal: Callable[..., str]) -> None:
    """What it made would belong to root, and the gateway's own user could not change it."""
    as_user("nobody")
    state = Path(base_settings["smsgw.spool"]) / "outgoing" / ".smsgw"
    state.mkdir(mode=0o700)
    shutil.chown(state, "nobody")
    assert refusal({}) == (
        f"smsgw does not start: this is root, and {state} belongs to nobody; run it as that user: runuser -u nobody.\n"
    )
    assert list(state.iterdir()) == []
    shutil.chown(state, "root")
