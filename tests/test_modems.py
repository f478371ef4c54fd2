"""What is known of smsd and its modems: against a real smsd whose modems fail, and from files that it wrote."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smsgw import api
from smsgw.spool import find_layout
from smsgw.spool.daemon import handlers, running
from smsgw.spool.layout import from_folder, from_smsd_conf
from smsgw.spool.modems import SILENT, Modem, Modems, Smsd
from tests.conftest import Gateway, eventually, make_spool
from tests.smsd import server
from tests.smsd.server import Smsd as Daemon

BLOCKED = "GSM1:\t26-11-29 10:08:42,\tBlocked,\t0,\t2,\t0,\tssi: -73 dBm (Excellent), ber: < 0.2 %"
STATUS = f"""\
Status:\t26-11-29 10:12:12,\tbs--------------------------------------------------------------
{BLOCKED}
GSM2:\t26-11-29 10:12:11,\tSending,\t3,\t0,\t1,\tssi: -51 dBm (Excellent), ber: ??
GSM3:\t26-11-29 10:12:11,\tIdle,\t\t4,\t0,\t0
GSM4:\t26-11-29 10:12:11,\tIdle,\t\tssi: not known or not detectable
GSM5:\t26-11-29 10:12:11,\tIdle
"""


@pytest.fixture
def stats(tmp_path: Path) -> Path:
    folder = tmp_path / "stats"
    folder.mkdir()
    return folder


def start(folder: Path, stats: Path, **settings: object) -> Daemon:
    return Daemon(folder, extra=f"stats = {stats}\n", **settings)  # type: ignore[arg-type]


def modems_of(daemon: Daemon) -> Modems:
    return Modems(from_smsd_conf(daemon.conf), daemon.conf)


def faults(smsd: Smsd) -> dict[str, str | None]:
    return {modem.name: modem.fault for modem in smsd.modems}


def test_modems_that_work(tmp_path: Path, stats: Path) -> None:
    with start(tmp_path, stats, modems=2) as daemon:
        modems = modems_of(daemon)
        for line in daemon.modems:
            line.delay = 2.5  # smsd looks once a second what its modems do
        daemon.put("one", b"To: 79161234567\n\nHello")
        daemon.wait("sent")
        found = eventually(lambda: (look := modems.look()) and any(modem.sent for modem in look.modems) and look)
        assert found.is_running
        assert found.can_send
        assert found.fault is None
        assert [modem.name for modem in found.modems] == ["GSM1", "GSM2"]
        assert [modem.signal for modem in found.modems] == [-73, -73]
        assert sorted((modem.sent, modem.failed, modem.received) for modem in found.modems) == [(0, 0, 0), (1, 0, 0)]
        assert sorted(modem.sent_ever or 0 for modem in found.modems) == [0, 1]
        for modem in found.modems:
            assert modem.since
            assert abs(datetime.now(UTC) - modem.since).total_seconds() < 120
        assert faults(found) == {"GSM1": None, "GSM2": None}


def test_a_modem_that_is_unplugged(tmp_path: Path, stats: Path) -> None:
    with start(tmp_path, stats, modems=2) as daemon:
        modems = modems_of(daemon)
        assert modems.look().can_send
        daemon.modems[1].unplug()
        found = modems.look()
        assert found.can_send
        assert faults(found) == {"GSM1": None, "GSM2": f"its device {daemon.modems[1].device} is not there"}
        daemon.modems[0].unplug()
        assert not modems.look().can_send


@pytest.mark.parametrize("notifier", [True, False])
def test_a_modem_whose_process_has_ended(
    tmp_path: Path, stats: Path, notifier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """smsd's own statistics say nothing of it."""
    if not notifier:
        monkeypatch.setattr(server, "GLOBAL", server.GLOBAL.replace("notifier = yes\n", ""))
    daemon = start(tmp_path, stats, modems=3)
    with daemon:
        modems = modems_of(daemon)
        assert faults(modems.look()) == {"GSM1": None, "GSM2": None, "GSM3": None}
        processes = handlers(daemon.pid)
        assert processes
        os.kill(processes[-2], signal.SIGKILL)
        eventually(lambda: len(handlers(daemon.pid) or ()) < len(processes))
        sentence = "smsd's process for it has ended, and does not come back"
        assert faults(modems.look()) == {"GSM1": None, "GSM2": sentence, "GSM3": None}
        # Who comes later cannot know whose it was.
        found = modems_of(daemon).look()
        assert faults(found) == {"GSM1": None, "GSM2": None, "GSM3": None}
        assert found.fault
        assert found.fault.startswith("The process of a modem has ended")
        assert found.can_send
        for process in (processes[-3], processes[-1]):
            os.kill(process, signal.SIGKILL)
        eventually(lambda: not (found := modems_of(daemon).look()).can_send and found)
        assert not modems.look().can_send


def test_smsd_that_does_not_run(tmp_path: Path, stats: Path) -> None:
    with start(tmp_path, stats) as daemon:
        modems = modems_of(daemon)
        eventually(lambda: modems.look().modems[0].state)
        daemon.kill()
        found = modems.look()
        assert (found.is_running, found.can_send) == (False, False)
        assert found.fault == f"smsd does not run: {tmp_path / 'smsd.pid'} names no process of it"
        assert faults(found) == {"GSM1": "smsd does not run"}
        assert found.modems[0].state is None
        daemon.start()
        assert modems.look().can_send


def test_a_modem_that_smsd_has_blocked(tmp_path: Path, stats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GLOBAL", server.GLOBAL.replace("blockafter = 1000000", "blockafter = 1"))
    with start(tmp_path, stats) as daemon:
        daemon.modem.refuse("7")
        daemon.put("one", b"To: 79161234567\n\nHello")
        modems = modems_of(daemon)
        found = eventually(lambda: (look := modems.look()).modems[0].fault and look)
        assert found.modems[0].state == "blocked"
        assert "blocked it" in found.modems[0].fault
        assert "Fail_reason" in found.modems[0].remedy
        assert not found.can_send


def test_a_modem_that_does_not_answer(tmp_path: Path, stats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.spool.modems.SILENT", 1.0)
    with start(tmp_path, stats) as daemon:
        monkeypatch.setattr(daemon.modem, "_answer", lambda line: "")
        modems = modems_of(daemon)
        found = eventually(lambda: (look := modems.look()).modems[0].fault and look)
        assert (found.modems[0].state, found.modems[0].fault) == ("receiving", "it does not answer smsd")
    assert SILENT >= 60  # a modem with a full memory receives for long


def test_what_smsd_writes(tmp_path: Path, stats: Path) -> None:
    """Without smsd's own file there is no process to look for, and the statistics say which modems there are."""
    (stats / "status").write_text(STATUS)
    (stats / "GSM2.counter").write_text("GSM2: 4711\n")
    modems = Modems(from_folder(make_spool(tmp_path / "spool")), None, stats)
    found = modems.look()
    assert found.is_running is None
    assert found.can_send
    assert found.fault is None
    first, second, third, fourth, fifth = found.modems
    assert (first.state, first.failed) == ("blocked", 2)
    assert (second.state, second.signal, second.sent, second.received) == ("sending", -51, 3, 1)
    assert second.since == datetime(2026, 11, 29, 10, 12, 11).astimezone(UTC)
    assert second.sent_ever == 4711
    assert (third.signal, third.sent) == (None, 4)
    assert (fourth.signal, fourth.sent) == (None, None)
    assert fifth.state == "idle"
    (stats / "status").write_text(f"{BLOCKED}\n")
    assert not modems.look().can_send


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"GSM1:\tyesterday,\tIdle\n", b"GSM1\n\n:::"])
def test_statistics_that_are_none(content: bytes, tmp_path: Path, stats: Path) -> None:
    (stats / "status").write_bytes(content)
    (stats / "GSM1.counter").write_bytes(content)
    found = Modems(from_folder(make_spool(tmp_path / "spool")), None, stats).look()
    assert found.can_send
    assert all(modem.since is None for modem in found.modems)


def test_a_file_of_smsd_that_cannot_be_read(tmp_path: Path) -> None:
    found = Modems(from_folder(make_spool(tmp_path / "spool")), tmp_path / "absent.conf").look()
    assert found.fault
    assert "absent.conf cannot be read" in found.fault
    assert found.is_running is None


def test_processes_that_cannot_be_seen(tmp_path: Path, stats: Path) -> None:
    conf = tmp_path / "smsd.conf"
    conf.write_text(f"devices = GSM1\npidfile = {tmp_path / 'absent'}\n[GSM1]\ndevice = @server:4711\n")
    layout = from_folder(make_spool(tmp_path / "spool"))
    assert not Modems(layout, conf).look().can_send
    assert Modems(layout, conf, is_here=False).look() == Smsd(None, [Modem("GSM1")])


@pytest.mark.parametrize("content", ["", "x", "-5", "0", "own", "4194305", "9" * 40])
def test_a_process_file_of_something_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "smsd.pid").write_text(str(os.getpid()) if content == "own" else content)
    assert running(str(tmp_path / "smsd.pid")) is None


def test_plugins_can_ask(tmp_path: Path, make_gateway: Callable[..., Gateway], stats: Path) -> None:
    (stats / "status").write_text(STATUS)
    gateway = make_gateway({"smsgw.health.stats": str(stats), "smsgw.outgoing_depth": "1"})
    assert [modem.name for modem in api.smsd(gateway.registry).modems] == ["GSM1", "GSM2", "GSM3", "GSM4", "GSM5"]
    assert [(each.queue, each.count, each.oldest) for each in api.waiting(gateway.registry)] == [
        ("waiting", 0, None),
        ("outgoing", 0, None),
        ("checked", 0, None),
    ]
    gateway.send()
    gateway.send(mobiles=["79680000000", "79680000001"])
    gateway.put("checked", "one", "To: 79680000000\n\nHi")
    gateway.put("checked", "one.LOCK", "")
    found = {each.queue: each for each in api.waiting(gateway.registry)}
    assert {name: each.count for name, each in found.items()} == {"waiting": 2, "outgoing": 1, "checked": 1}
    for each in found.values():
        assert each.oldest
        assert abs(datetime.now(UTC) - each.oldest).total_seconds() < 120


def test_queues_by_their_names(tmp_path: Path, make_gateway: Callable[..., Gateway]) -> None:
    spool = make_spool(tmp_path / "queued")
    (spool / "D1").mkdir()
    conf = tmp_path / "smsd.conf"
    folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "sent", "failed", "incoming"))
    queues = f"[queues]\nD1 = {spool / 'D1'}\nD2 = {spool / 'D1'}\nGONE = {spool / 'GONE'}\n"
    conf.write_text(f"devices = GSM1\n{folders}{queues}")
    gateway = make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)})
    (spool / "D1" / "one").write_text("To: 79680000000\n\nHi")
    assert [(each.queue, each.count) for each in api.waiting(gateway.registry)] == [
        ("waiting", 0),
        ("outgoing", 0),
        ("D1, D2", 1),
    ]
    assert find_layout(gateway.application.settings).queue_folders["D2"] == spool / "D1"
