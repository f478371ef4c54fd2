"""smsd's modems: what each does, and why one sends nothing. Public through ``smsgw.api``.

Three sources, none of which is enough alone:

- smsd's statistics (``stats = DIR``): ``DIR/status`` has a line for each modem, ``DIR/NAME.counter`` what it ever sent.
  smsd writes ``status`` when a modem's state changes, so its age says nothing. See smsd's manual, "Status monitor".
- smsd's file, which names the modems and their devices.
- The processes: smsd has one for each modem. One that has ended does not come back, and ``status`` does not tell.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from smsgw.model import ConfigurationError
from smsgw.settings import is_on
from smsgw.spool.daemon import handlers, running, started_with
from smsgw.spool.layout import DATETIME_FORMAT, Layout, devices, read_smsd_conf

STATUS = "status"
SILENT = 60.0  # seconds of "Receiving", which takes a modem that answers one or two, and with a full memory some more

START = "Start it, and see its log: systemctl start smstools"
RESTART = "Restart smsd, and see its log: systemctl restart smstools"

_LINE = re.compile(
    r"(?P<name>[^\t]+):\t(?P<since>[^\t]*),\t(?P<state>\w+)"
    r"(?:,\t+(?P<sent>\d+),\t(?P<failed>\d+),\t(?P<received>\d+))?(?:,\t+ssi: (?P<signal>.*))?"
)


@dataclass(frozen=True, slots=True)
class Modem:
    """A modem of smsd, as far as smsd tells; ``None``: it does not.

    ``state`` is ``idle``, ``sending``, ``receiving``, ``blocked`` or ``unknown``, ``since`` the time (UTC) that smsd
    gives for it. ``unknown`` is no fault: it is so after each ``stats_interval``, an hour, until there is something to
    do. ``signal`` is in dBm. ``sent``, ``failed`` and ``received`` count messages since that interval began,
    ``sent_ever`` since the statistics were begun. ``fault`` says in a sentence why the modem sends nothing, ``remedy``
    what to do; ``fault`` is ``None`` where no reason is known.
    """

    name: str
    state: str | None = None
    since: datetime | None = None
    signal: int | None = None
    sent: int | None = None
    failed: int | None = None
    received: int | None = None
    sent_ever: int | None = None
    fault: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Smsd:
    """smsd at a moment.

    ``is_running`` is ``None`` where nobody can tell. ``fault`` says in a sentence what is wrong with smsd as a whole,
    ``remedy`` what to do; each modem says its own.
    """

    is_running: bool | None
    modems: Sequence[Modem]
    fault: str | None = None
    remedy: str | None = None

    @property
    def can_send(self) -> bool:
        """Whether a modem can send, as far as is known."""
        has_modem = not self.modems or any(modem.fault is None for modem in self.modems)
        return self.is_running is not False and has_modem


class Modems:
    """Looks at smsd; shared by all threads.

    :param conf: smsd's own file; ``None``: nobody knows it.
    :param stats: the folder of its statistics; ``None``: the one that its file names.
    :param is_here: whether smsd's processes can be seen from here.
    """

    def __init__(self, layout: Layout, conf: Path | None, stats: Path | None = None, *, is_here: bool = True) -> None:
        self._layout = layout
        self._conf = conf
        self._stats = stats
        self._is_here = is_here
        self._lock = threading.Lock()
        self._handlers: dict[int, str] = {}  # the modems of processes, as when all of these were there
        self._of = 0  # and the main process that they are of

    def look(self) -> Smsd:
        """smsd and its modems as they stand now."""
        try:
            sections = read_smsd_conf(self._conf) if self._conf else {"": {}}
        except ConfigurationError as error:
            return Smsd(None, (), str(error), "Let the gateway's user read that file.")
        folder = self._stats or (Path(sections[""]["stats"]) if sections[""].get("stats") else None)
        lines = _read_status(folder, self._layout) if folder else {}
        names = devices(sections[""].get("devices", "")) or tuple(lines)
        found = [replace(lines.get(name, Modem(name)), sent_ever=_read_counter(folder, name)) for name in names]
        if self._conf is None or not self._is_here:
            return Smsd(None, [_judged(modem) for modem in found])
        pidfile = started_with(self._conf)["pidfile"]
        if (pid := running(pidfile)) is None:
            # What its statistics say is of the time before it ended.
            gone = [Modem(name, fault="smsd does not run", remedy=START) for name in names]
            return Smsd(False, gone, f"smsd does not run: {pidfile} names no process of it", START)
        if folder and _is_older(folder / STATUS, Path(pidfile)):
            found = [Modem(modem.name, sent_ever=modem.sent_ever) for modem in found]
        ended, lost = self._ended(pid, names, is_on(sections[""].get("notifier", "no")))
        found = [_judged(modem, _device(sections, modem.name), modem.name in ended) for modem in found]
        return Smsd(True, found, *_lost(lost - sum(modem.fault is not None for modem in found)))

    def _ended(self, pid: int, names: Sequence[str], has_notifier: bool) -> tuple[set[str], int]:
        """The modems whose processes have ended, and how many have of which nobody knows whose they were.

        smsd starts one for each modem, in their order. Whose one was is known where all of them were seen.
        """
        living = handlers(pid)
        if living is None:
            return set(), 0
        living = living[has_notifier:]
        with self._lock:
            if len(living) == len(names):
                self._of, self._handlers = pid, dict(zip(living, names, strict=True))
            if self._of == pid:
                return {name for process, name in self._handlers.items() if process not in living}, 0
        return (set(), len(names) - len(living)) if living else (set(names), 0)


def _judged(modem: Modem, device: str = "", has_ended: bool = False) -> Modem:
    """The modem, and why it sends nothing."""
    fault = remedy = None
    if device.startswith("/") and not Path(device).exists():
        fault, remedy = f"its device {device} is not there", f"Plug it in. {RESTART}"
    elif has_ended:
        fault, remedy = "smsd's process for it has ended, and does not come back", RESTART
    elif modem.state == "blocked":
        fault = "smsd has blocked it, since it failed again and again"
        remedy = f"See Fail_reason in the folder failed: no credit, no network, a wrong PIN. {RESTART}"
    elif modem.state == "receiving" and modem.since and time.time() - modem.since.timestamp() > SILENT:
        fault, remedy = "it does not answer smsd", f"Switch the modem off and on. {RESTART}"
    return replace(modem, fault=fault, remedy=remedy)


def _lost(count: int) -> tuple[str | None, str | None]:
    """What is wrong where so many processes of modems have ended, and nobody knows whose they were."""
    if count <= 0:
        return None, None
    what = "The process of a modem has" if count == 1 else f"The processes of {count} modems have"
    return f"{what} ended; smsd's log says which ('Modem handler ... terminated')", RESTART


def _device(sections: Mapping[str, Mapping[str, str]], name: str) -> str:
    return {key.lower(): value for key, value in sections.get(name, {}).items()}.get("device", "")


def _read_status(folder: Path, layout: Layout) -> dict[str, Modem]:
    """The modems of smsd's ``status``, by their names; none where it cannot be read."""
    try:
        lines = (folder / STATUS).read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    found = {}
    for match in filter(None, map(_LINE.fullmatch, lines)):
        name, since, state, *counters, signal = match.groups()
        power = re.match(r"(-?\d+) dBm", signal or "")
        sent, failed, received = (None if counter is None else int(counter) for counter in counters)
        found[name] = Modem(
            name,
            state=state.lower(),
            since=layout.moment(since) or replace(layout, datetime_format=DATETIME_FORMAT).moment(since),
            signal=int(power[1]) if power else None,
            sent=sent,
            failed=failed,
            received=received,
        )
    return found


def _is_older(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime < other.stat().st_mtime
    return False


def _read_counter(folder: Path | None, name: str) -> int | None:
    """How much that modem ever sent: ``NAME: NUMBER``."""
    if folder is not None:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / f"{name}.counter").read_text().rpartition(":")[2])
    return None
