"""``simulator``: does what smsd does, so that a gateway can be tried and tested without smsd and a modem."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from pathlib import Path

import colander
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated

from smsgw.api import application
from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError
from smsgw.numbers import NumberSet, from_spool
from smsgw.resources import is_yes
from smsgw.settings import Number, Words
from smsgw.spool import file
from smsgw.spool.layout import Layout

PERIOD = 0.05  # seconds between two looks
MODEM = "SIMULATOR"


class Simulator:
    """Moves files from ``outgoing`` through ``checked`` to ``sent``, and adds the headers that smsd adds.

    A message that asks for a status report gets one, in ``report`` or else in ``incoming``.
    """

    class Settings(colander.MappingSchema):
        delay = colander.SchemaNode(
            Number(),
            missing=0.0,
            validator=colander.Range(0, 3600),
            description="seconds that a message spends in checked",
        )
        fail = colander.SchemaNode(
            Words(), missing=(), description="numbers, or their beginnings with a *, that the network refuses"
        )
        undelivered = colander.SchemaNode(
            Words(), missing=(), description="the same, of phones that do not get what the network took"
        )

    def __init__(self, delay: float, fail: tuple[str, ...], undelivered: tuple[str, ...]) -> None:
        self._delay = delay
        self._refused = _numbers("fail", fail)
        self._unreachable = _numbers("undelivered", undelivered)
        self._last = 0  # the last Message_id: a modem counts to 255
        self._layout: Layout

    def includeme(self, config: Configurator) -> None:
        self._layout = application(config).layout
        config.add_subscriber(self._make_folders, ApplicationCreated)

    @hookimpl
    def background(self, stop: threading.Event) -> None:
        due: dict[str, float] = {name: time.monotonic() for name in os.listdir(self._checked)}
        while not stop.wait(PERIOD):
            for name in sorted(os.listdir(self._layout.outgoing)):
                if not self._is_waiting(name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._layout.outgoing / name, self._checked / name)
                    due[name] = time.monotonic() + self._delay
            for name in [name for name, when in due.items() if when <= time.monotonic()]:
                del due[name]
                with contextlib.suppress(FileNotFoundError):
                    self._send(name)

    def _make_folders(self, event: ApplicationCreated) -> None:
        try:
            for folders in self._layout.folders.values():
                for folder in folders:
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the plugin 'simulator' makes smsd's folders, and cannot: {error}") from error

    @property
    def _checked(self) -> Path:
        return self._layout.folders["checked"][0]

    def _is_waiting(self, name: str) -> bool:
        if name.startswith(".") or name.endswith(".LOCK"):
            return False
        return not (self._layout.outgoing / f"{name}.LOCK").exists() and (self._layout.outgoing / name).is_file()

    def _send(self, name: str) -> None:
        source = self._checked / name
        content, _ = file.read(source)
        head, _, body = content.partition(b"\n\n")
        headers = file.parse(content).headers
        to = from_spool(headers.get("To", ""))
        now = time.strftime(self._layout.datetime_format)
        added = {"Modem": MODEM, "IMSI": "001010000000001"}
        if not to or not body:
            kind, added["Fail_reason"] = "failed", "no recipient, or no text"
        elif to in self._refused:
            kind, added["Fail_reason"] = "failed", "+CMS ERROR: 38 (Network out of order)"
        else:
            kind = "sent"
        is_reported = kind == "sent" and is_yes(headers.get("Report"))
        if is_reported:
            self._last = self._last % 255 + 1
            added["Message_id"] = str(self._last)
        added["Failed" if kind == "failed" else "Sent"] = now
        lines = "".join(f"{key}: {value}\n" for key, value in added.items()).encode()
        self._put(kind, name, head + b"\n" + lines + b"\n" + body)
        source.unlink()
        if is_reported:
            self._report(to, now)

    def _report(self, to: str, now: str) -> None:
        """Write the status report of the message that was sent last."""
        status = "70,Permanent error, SM validity period expired"
        if to not in self._unreachable:
            status = "0,Ok,short message received by the SME"
        text = f"SMS STATUS REPORT\nMessage_id: {self._last}\nDischarge_timestamp: {now}\nStatus: {status}\n"
        headers = {"From": to, "Sent": now, "Received": now, "Subject": MODEM, "Modem": MODEM, "Report": "no"}
        headers |= {"Alphabet": "ISO", "UDH": "no", "Length": str(len(text))}
        lines = "".join(f"{key}: {value}\n" for key, value in headers.items())
        kind = "report" if self._layout.folders["report"] else "incoming"
        self._put(kind, f"{MODEM}.{secrets.token_hex(4)}", f"{lines}\n{text}".encode())

    def _put(self, kind: str, name: str, content: bytes) -> None:
        """Write a file so that nobody sees a part of it."""
        target = self._layout.folders[kind][0]
        fresh = target / f".{name}"
        fresh.write_bytes(content)
        fresh.rename(target / name)


def _numbers(name: str, words: tuple[str, ...]) -> NumberSet:
    try:
        return NumberSet.parse(words)
    except ValueError as error:
        raise ConfigurationError(f"smsgw.simulator.{name} has a wrong word: {error}") from None
