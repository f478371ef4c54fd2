"""``simulator``: plays smsd where there is none, so that a gateway can be tried and tested without a modem."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import colander
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError
from smsgw.numbers import from_spool
from smsgw.settings import Number, Words
from smsgw.spool import file
from smsgw.spool.layout import Layout

PERIOD = 0.05  # seconds between two looks


class Simulator:
    """Background work: files go from ``outgoing`` through ``checked`` to ``sent``, with what smsd adds to them."""

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

    def __init__(self, delay: float, fail: tuple[str, ...]) -> None:
        self._delay = delay
        self._exact = {from_spool(word) for word in fail if not word.endswith("*")}
        self._prefixes = tuple(from_spool(word[:-1]) for word in fail if word.endswith("*"))
        self._layout: Layout

    def includeme(self, config: Configurator) -> None:
        self._layout = config.registry.layout
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
        to = from_spool(file.parse(content).headers.get("To", ""))
        now = time.strftime("%y-%m-%d %H:%M:%S")
        added = {"Modem": "SIMULATOR", "IMSI": "001010000000001"}
        if not to or not body:
            kind, added["Fail_reason"] = "failed", "no recipient, or no text"
        elif to in self._exact or (self._prefixes and to.startswith(self._prefixes)):
            kind, added["Fail_reason"] = "failed", "+CMS ERROR: 38 (Network out of order)"
        else:
            kind = "sent"
        added["Failed" if kind == "failed" else "Sent"] = now
        lines = "".join(f"{key}: {value}\n" for key, value in added.items()).encode()
        target = self._layout.folders[kind][0]
        fresh = target / f".{name}"
        fresh.write_bytes(head + b"\n" + lines + b"\n" + body)
        fresh.rename(target / name)
        source.unlink()
