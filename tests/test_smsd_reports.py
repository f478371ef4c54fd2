"""With a real smsd on emulated modems: status reports reach the message that they are about, and plugins hear of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Gateway, eventually
from tests.smsd.modem import delivered
from tests.smsd.pdu import Submitted
from tests.smsd.server import Smsd

PLUGIN = """
import time
from smsgw.hookspecs import hookimpl

class Ear:
    def __init__(self):
        self.heard = []

    @hookimpl
    def notify(self, events):
        self.heard += [(time.time(), type(event).__name__, event.message.id, event) for event in events]
"""
ALL_IDS = "messageids = 3\n"

# By a number's last digit: the reports about each part, and what becomes of the message.
NETWORK: dict[str, tuple[tuple[int, ...], str | None]] = {
    "0": ((0,), "Delivered"),
    "1": ((70,), "Undelivered"),
    "2": ((), None),
    "3": ((0, 0), "Delivered"),
    "4": ((48, 48, 1), "Delivered"),
    "5": ((48,), "Delivered"),  # late
    "6": ((32, 96, 0), "Undelivered"),
}


def network(part: Submitted) -> Iterable[int]:
    return NETWORK[part.number[-1]][0]


@pytest.fixture
def listening(make_gateway: Callable[..., Gateway], distribution: Callable[..., None]) -> Callable[[Smsd], Gateway]:
    """A gateway in front of that smsd, with a plugin that hears; it can be started again."""
    distribution("acme", PLUGIN, ear="Ear")

    def start(smsd: Smsd) -> Gateway:
        gateway = make_gateway(
            {"smsgw.spool": None, "smsgw.smsd_conf": str(smsd.conf), "smsgw.plugins": "htpasswd allow ear"}
        )
        eventually(lambda: gateway.application.journal.standing().is_whole)
        return gateway

    return start


def life(heard: list[Any], id: str) -> list[str]:
    return list(dict.fromkeys(name for _, name, message, _ in heard if message == id))


@pytest.mark.parametrize("report_folder", [True, False])
def test_every_message_learns_what_became_of_it(
    tmp_path: Path, listening: Callable[[Smsd], Gateway], report_folder: bool
) -> None:
    """Two modems that count alike, and wrap; reports lost, doubled, late, of parts; the gateway starts again."""
    numbers = [f"7916000000{digit}" for digit in NETWORK]
    with Smsd(tmp_path, modems=2, report=report_folder, extra_modem=ALL_IDS) as smsd:
        for modem in smsd.modems:
            modem.reports = network
            modem.mr = 245
        gateway = listening(smsd)
        heard = gateway.plugin("ear").heard
        ids: dict[str, str] = {}
        for turn in range(6):
            text = f"{turn}" * (400 if turn % 2 else 10)
            sent = gateway.send(mobiles=numbers, text=text, report=True).json["message_id"]
            ids |= {id: number for number, id in sent.items()}
            if turn == 3:
                gateway.application.owner.stop()
                before, gateway = gateway, listening(smsd)
                heard = gateway.plugin("ear").heard
                heard[:0] = before.plugin("ear").heard
        smsd.wait("sent", len(ids), timeout=60)
        late = [(modem, part) for modem in smsd.modems for part in modem.pdus if part.number.endswith("5")]
        assert {part.mr for _, part in late} & {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}  # they wrapped
        eventually(lambda: all("Sent" in life(heard, id) for id in ids), 30)
        assert not any({"Delivered", "Undelivered"} & {*life(heard, id)} for id, to in ids.items() if to[-1] in "25")
        for modem, part in reversed(late):
            modem.report(part)

        def expected(id: str) -> list[str]:
            fate = NETWORK[ids[id][-1]][1]
            return ["Accepted", "Sent", *([fate] if fate else [])]

        try:
            eventually(lambda: all(life(heard, id) == expected(id) for id in ids), 30)
        finally:
            assert {id: life(heard, id) for id in ids} == {id: expected(id) for id in ids}
        assert not any(name == "Received" for _, name, _, _ in heard)
        for id in ids:
            found = gateway.get(f"/api/v1.0/sms/sent/{id}").json
            assert ("Delivered" in found) == (expected(id)[-1] == "Delivered")
            assert len(found.get("Delivered", found["Sent"])) == len("26-11-22 09:16:35")


@pytest.mark.parametrize("elsewhere", [["checked"], ["sent", "report"], ["outgoing", "sent"]])
def test_folders_on_another_file_system(
    tmp_path: Path, listening: Callable[[Smsd], Gateway], elsewhere: list[str]
) -> None:
    """Where smsd copies in place of renaming, and times are of another clock."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("two file systems: /dev/shm and pytest's")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for name in elsewhere:
            (Path(folder) / name).mkdir()
            (tmp_path / "spool" / name).rmdir()
            (tmp_path / "spool" / name).symlink_to(Path(folder) / name)
        with Smsd(tmp_path) as smsd:
            smsd.modem.reports = delivered
            gateway = listening(smsd)
            heard = gateway.plugin("ear").heard
            numbers = [f"7916{number:07}" for number in range(30)]
            ids = gateway.send(mobiles=numbers, report=True).json["message_id"].values()
            eventually(lambda: all(life(heard, id) == ["Accepted", "Sent", "Delivered"] for id in ids), 20)
            gateway.application.owner.stop()


def test_a_text_that_looks_like_a_report(tmp_path: Path, listening: Callable[[Smsd], Gateway]) -> None:
    with Smsd(tmp_path, report=False) as smsd:
        gateway = listening(smsd)
        (id,) = gateway.send(report=True).json["message_id"].values()
        smsd.wait("sent")
        (part,) = smsd.modem.pdus
        smsd.modem.receive(part.number, f"SMS STATUS REPORT\nMessage_id: {part.mr}\nStatus: 70,No")
        heard = gateway.plugin("ear").heard
        eventually(lambda: any(name == "Received" for _, name, _, _ in heard))
        smsd.modem.report(part)
        eventually(lambda: life(heard, id) == ["Accepted", "Sent", "Delivered"])


def test_plugins_hear_of_one_after_the_other(tmp_path: Path, listening: Callable[[Smsd], Gateway]) -> None:
    with Smsd(tmp_path) as smsd:
        smsd.modem.reports = delivered
        gateway = listening(smsd)
        heard = gateway.plugin("ear").heard
        ids = []
        for count in range(1, 21):
            ids += gateway.send(report=True).json["message_id"].values()
            eventually(lambda count=count: [name for _, name, _, _ in heard].count("Delivered") == count)
        smsd.wait("sent", len(ids))
        assert all(life(heard, id) == ["Accepted", "Sent", "Delivered"] for id in ids)
