"""A real smsd on emulated modems, for the tests of everything that must agree with it.

    with Smsd(tmp_path) as smsd:
        smsd.put("name", b"To: 79161234567\\n\\nHello")
        [message] = smsd.modem.wait(1)
        [path] = smsd.wait("sent")

`smsd.conf` is its configuration file, `smsd.spool` the folder that holds `outgoing`, `sent` and the others.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from inotify_simple import INotify, flags

from .modem import DEFAULT_TIMEOUT, Modem

FOLDERS = ("outgoing", "checked", "sent", "failed", "incoming", "report")
WRITTEN_IN_THE_OPEN = ("incoming", "report")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

# Everything that smsd would wait for is set to nothing (the two `detect_...` alone cost 0.1 s a command); what it does
# with a message is left as it is by default.
GLOBAL = """\
logfile = 1
loglevel = 7
notifier = yes
delaytime = 1
delaytime_mainprocess = 1
errorsleeptime = 0
blockafter = 1000000
"""
EACH_MODEM = """\
init = AT+CNMI=0,0,0,0,0
memory_start = 1
incoming = yes
trust_spool = yes
keep_open = yes
pre_init = no
check_network = 0
startsleeptime = 0
sentsleeptime = 0
detect_unexpected_input = no
detect_message_routing = no
poll_faster = 100
"""


class Smsd:
    """smsd with `modems` modems named GSM1, GSM2 ... in `folder`; the context manager starts and always ends it.

    `queues` are names and number prefixes of [queues] and [providers]; each modem serves all of them. Without `report`
    status reports land in `incoming`. `extra` are more global lines of smsd.conf, `extra_modem` of each modem's
    section.
    """

    def __init__(
        self,
        folder: Path,
        *,
        modems: int = 1,
        queues: Mapping[str, Sequence[str]] | None = None,
        trust_outgoing: bool = True,
        report: bool = True,
        incoming_utf8: bool = False,
        extra: str = "",
        extra_modem: str = "",
    ) -> None:
        program = shutil.which("smsd", path=SEARCH)
        if program is None:
            pytest.skip("smsd (Debian package smstools)")
        self._program = program
        self.conf = folder / "smsd.conf"
        self.spool = folder / "spool"
        self.queues = {name: self.spool / name for name in queues or {}}
        for name in (*FOLDERS, *self.queues):
            (self.spool / name).mkdir(parents=True, exist_ok=True)
        self.modems = [Modem(f"GSM{number}", ring=self._wake) for number in range(1, modems + 1)]
        folders = [name for name in FOLDERS if report or name != "report"]
        lines = [
            f"devices = {', '.join(modem.name for modem in self.modems)}",
            *(f"{name} = {self.spool / name}" for name in folders),
            f"infofile = {folder / 'smsd.working'}",
            f"pidfile = {folder / 'smsd.pid'}",
            f"trust_outgoing = {yes_no(trust_outgoing)}",
            f"incoming_utf8 = {yes_no(incoming_utf8)}",
            GLOBAL + extra,
        ]
        if queues:
            lines += ["[queues]", *(f"{name} = {path}" for name, path in self.queues.items())]
            lines += ["[providers]", *(f"{name} = {', '.join(prefixes)}" for name, prefixes in queues.items())]
        for modem in self.modems:
            lines += [f"[{modem.name}]", f"device = {modem.device}", EACH_MODEM + extra_modem]
            if queues:
                lines.append(f"queues = {', '.join(queues)}")
        self.conf.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[str] = []
        self._logged = threading.Condition()
        self._ended = True

    @property
    def modem(self) -> Modem:
        """The first modem."""
        return self.modems[0]

    @property
    def log(self) -> str:
        """What smsd wrote to its log, of all its runs."""
        with self._logged:
            return "".join(self._log)

    @property
    def log_tail(self) -> str:
        """The end of the log, for the text of a failure."""
        return "\n".join(self.log.splitlines()[-60:])

    @property
    def pid(self) -> int:
        """Of smsd's main process."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    # Life and death

    def __enter__(self) -> Smsd:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
        finally:
            for modem in self.modems:
                modem.unplug()

    def start(self, timeout: float = DEFAULT_TIMEOUT) -> Smsd:
        """Start smsd; returns when it watches `outgoing` and every modem is initialised.

        AssertionError, with the end of its log: it does not start, or not within `timeout` seconds.
        """
        if self._process is not None:
            raise RuntimeError("smsd is running")
        with self._logged:
            begin = len(self._log)
            self._ended = False
        for modem in self.modems:
            modem.hang_up()
        self._process = subprocess.Popen(
            [self._program, "-c", str(self.conf), "-t"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children die with it, whatever happens
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read_log, args=[self._process.stdout], daemon=True)
        self._reader.start()
        awaited = ["smsd: Outgoing file checker has started"]
        awaited += [f"{modem.name}: Checking memory size" for modem in self.modems]

        def missing() -> list[str]:
            log = "".join(self._log[begin:])
            return [line for line in awaited if line not in log]

        with self._logged:
            self._logged.wait_for(lambda: self._ended or not missing(), timeout)
            lacking = missing()
        if lacking:
            self.kill()
            raise AssertionError(
                f"smsd ended or is not ready after {timeout} s, its log lacks {lacking}:\n{self.log_tail}"
            )
        return self

    def stop(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """SIGTERM, on which smsd finishes the message it is at; SIGKILL after `timeout` seconds.

        Nothing happens if it does not run.
        """
        if self._process is None:
            return
        self._process.terminate()
        self._reader.join(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all its processes at once, as if the power failed; returns when they are dead."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._reader.join()  # the last process closed the log
        Path(f"/tmp/mm_smsd_{process.pid}.sem").unlink(missing_ok=True)  # libmm's, which only a gentle end removes
        self._process = None

    def _wake(self) -> None:
        """End smsd's sleep, so that it fetches at once what a modem received (SIGCONT: smsd's manual, "suspend")."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it is just being killed
                os.killpg(self._process.pid, signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("smsd is not running")
        return self._process

    # Its folders

    def put(self, name: str, content: bytes) -> Path:
        """Drop a file into `outgoing` as smsd wants it, written under another name, then renamed; returns its path."""
        path = self.spool / "outgoing" / name
        locked = path.with_name(f"{name}.LOCK")
        locked.write_bytes(content)
        return locked.rename(path)

    def files(self, folder: str) -> list[Path]:
        """The complete files in a folder of the spool, oldest first."""
        found = []
        for path in (self.spool / folder).iterdir():
            # A .LOCK is made before its file and removed after it is complete: so it is looked for after the file.
            if path.suffix == ".LOCK" or path.with_name(f"{path.name}.LOCK").exists():
                continue
            with suppress(FileNotFoundError):  # moved on; also, smsd makes its file in `incoming` twice
                if folder not in WRITTEN_IN_THE_OPEN or whole(path):
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def wait(self, folder: str, count: int = 1, timeout: float = DEFAULT_TIMEOUT) -> list[Path]:
        """The complete files in a folder of the spool once there are `count`; AssertionError after `timeout` s."""
        deadline = time.monotonic() + timeout
        with INotify() as watch:
            watch.add_watch(self.spool / folder, flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE)
            while len(found := self.files(folder)) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    names = [path.name for path in found]
                    raise AssertionError(
                        f"{count} files expected in {folder} within {timeout} s, found {names}:\n{self.log_tail}"
                    )
                watch.read(timeout=int(left * 1000) + 1)
        return found

    def wait_log(self, text: str, count: int = 1, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Return once `text` stands at least `count` times in smsd's log."""
        with self._logged:
            if self._logged.wait_for(lambda: "".join(self._log).count(text) >= count, timeout):
                return
        raise AssertionError(f"{text!r} is not {count} times in smsd's log after {timeout} s:\n{self.log_tail}")

    def _read_log(self, log: IO[bytes]) -> None:
        with log:
            for line in log:
                with self._logged:
                    self._log.append(line.decode("utf-8", "replace"))
                    self._logged.notify_all()
        with self._logged:
            self._ended = True
            self._logged.notify_all()


def whole(path: Path) -> bool:
    """Whether smsd has finished a file in `incoming` or `report`, which it writes without a `.LOCK`.

    `Length` counts the characters of the text, those of UCS2 as UTF-16 units (smsd's manual, "Received messages").
    `MODEM-concatenated`, which is no message but smsd's store of parts, has none.
    """
    head, _, body = path.read_bytes().partition(b"\n\n")
    headers = dict(line.split(b": ", 1) for line in head.splitlines() if b": " in line)
    match headers.get(b"Alphabet"):
        case b"UCS2":
            length = len(body) // 2
        case b"UTF-8":
            length = len(body.decode("utf-8", "ignore"))
        case _:
            length = len(body)
    return headers.get(b"Length") == str(length).encode()


def yes_no(value: bool) -> str:
    """As smsd.conf spells it."""
    return "yes" if value else "no"
