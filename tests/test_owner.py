"""The owner's second looks: one thing that is wrong holds up nothing else, and nothing grows."""

from __future__ import annotations

import os
from pathlib import Path

from smsgw.spool.layout import Layout, from_folder
from smsgw.spool.locks import Locks
from smsgw.spool.owner import Owner
from smsgw.spool.sending.cancel import Cancel
from smsgw.spool.sending.queue import Queue
from tests.conftest import Gateway, make_spool

MESSAGE = "To: 911\nFrom: lvv\n\nHi"
REPORT = "From: 79680000007\nModem: GSM1\n\nSMS STATUS REPORT\nMessage_id: 21\nStatus: 0,Ok,received\n"


def owner_of(layout: Layout) -> Owner:
    locks = Locks(layout.state)
    locks.make()
    queue = Queue(layout, depth=500, fsync=False)
    return Owner(layout, locks, queue, Cancel(layout, locks, queue))


def commit(layout: Layout) -> None:
    """A submission that a process left when it died."""
    folder = layout.state / "ready" / "z" / "0000000000000.normal.lvv+1"
    folder.mkdir(parents=True)
    (folder / "m1").write_text(MESSAGE)


def test_strays_hold_up_nothing(tmp_path: Path) -> None:
    layout = from_folder(make_spool(tmp_path / "spool"))
    owner = owner_of(layout)
    for folder in ("ready", "cancelling", "writers", "cancelled"):
        (layout.state / folder / "a stray").mkdir(parents=True)
        (layout.state / folder / "a stray" / "folder").mkdir()
        (layout.state / folder / "another").touch()
    commit(layout)
    owner.look_after()
    assert (layout.outgoing / "m1").read_text() == MESSAGE


def test_a_spool_that_is_gone_costs_no_open_files(tmp_path: Path) -> None:
    layout = from_folder(make_spool(tmp_path / "spool"), tmp_path / "state")
    owner = owner_of(layout)
    commit(layout)
    layout.outgoing.rename(tmp_path / "away")
    owner.look_after()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        owner.look_after()
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "away").rename(layout.outgoing)
    owner.look_after()
    assert (layout.outgoing / "m1").exists()


def test_whose_a_report_is(gateway: Gateway) -> None:
    """Its message says so, also when the message's file is gone: the journal remembers."""
    sent = gateway.put("sent", "m1", "To: 79680000007\nFrom: lvv\nModem: GSM1\nMessage_id: 21\n\nHi")
    gateway.put("report", "GSM1.r", REPORT)
    gateway.get("/api/v1.0/sms/report/GSM1.r")
    sent.unlink()
    gateway.get("/api/v1.0/sms/report/GSM1.r")
    gateway.get("/api/v1.0/sms/report/GSM1.r", user="ops", status=404)
