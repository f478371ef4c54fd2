"""Debian's smsd as it is shipped, and a gateway by pip, as docs/operation.md has it: what is posted is on the phone.

The commands run as root on a copy of this machine: namespaces in which its file systems are written to in memory. There
smsd is installed anew, with its own init script, default file and configuration; only its modem is emulated.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import eventually
from tests.test_documentation import OPERATION, README, ROOT, blocks
from tests.tmpfs import need

from .modem import Modem

LONG = 90.0  # seconds for what takes smsd up to 20, which looks every 10
GATEWAY = "runuser -u smsgw -- /opt/smsgw/bin"
INI = "/etc/smsgw/production.ini"
SPOOL = "/var/spool/sms"
SEND, READ = [command for command in blocks(README, "sh") if command.startswith("curl")][:2]
INSTALL, SERVE = blocks(OPERATION.partition("## By pip\n")[2], "sh")[:2]

# What is written to these folders stays in memory. The first process takes in the children of dead ones, as init does.
COPY = """\
mount -t tmpfs tmpfs "$1"
for folder in etc opt root usr var; do
    mkdir -p "$1/$folder/upper" "$1/$folder/work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" overlay "/$folder"
done
mount --bind "$2" /mnt
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
ip link set lo up
echo copied
read -r _
"""
# smsd is not started, as its modem is not there yet.
REINSTALL = f"""\
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
dpkg-statoverride --list | grep -oE '[^ ]*/(smstools|sms)(/.*)?$' | xargs -r -n1 dpkg-statoverride --remove
rm -rf {SPOOL} /var/log/smstools /etc/smsd.conf /opt/smsgw /etc/smsgw
dpkg --listfiles smstools | grep ^/var/ | xargs mkdir -p
dpkg-reconfigure smstools
"""


class Machine:
    """A copy of this machine, on which Debian's smsd has just been installed; the context manager ends all of it."""

    def __init__(self, folder: Path, modem: Modem) -> None:
        self.modem = modem
        self._memory, self.checkout = folder / "memory", folder / "checkout"
        self._memory.mkdir()
        left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.so", "__pycache__")
        shutil.copytree(ROOT, self.checkout, ignore=left_out)
        self._gateway: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        options = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "--mount-proc"]
        command = ["unshare", *options, "bash", "-e", "-c", COPY, "bash", self._memory, self.checkout]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if not self._holder.stdout.readline():
            reason = self._holder.stderr.read().strip()
            self.__exit__()
            pytest.skip(f"a copy of this machine in namespaces ({reason})")
        pid = self._holder.pid
        self._first = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        try:
            self.run(REINSTALL, net=False)
            self._plug_in()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()  # the first process ends, and with it all others
        if self._gateway is not None:
            self._gateway.communicate()

    def _enter(self, net: bool, command: str) -> list[str]:
        """A command line that runs there, in the checkout; with a network of its own, where all ports are free."""
        spaces = ["--mount", "--pid", *(["--net"] if net else [])]
        return ["nsenter", f"--target={self._first}", *spaces, "--wdns=/mnt", "bash", "-e", "-c", command]

    def run(self, command: str, *, answers: str = "", net: bool = True) -> str:
        """What a command printed."""
        ended = subprocess.run(
            self._enter(net, command),
            input=answers,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
            start_new_session=True,  # without a terminal, so that htpasswd reads the password here
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}"
        return ended.stdout

    def path(self, path: str) -> Path:
        """A file of that machine."""
        return Path(f"/proc/{self._first}/root{path}")

    def change(self, path: str, old: str, new: str) -> None:
        file = self.path(path)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def _plug_in(self) -> None:
        """The modem in place of the serial device, which has the same owner, group and mode."""
        device = "/dev/ttyS0"
        os.chown(self.modem.device, 0, grp.getgrnam("dialout").gr_gid)
        os.chmod(self.modem.device, 0o660)
        self.change("/etc/smsd.conf", f"device = {device}\n", f"device = {self.modem.device}\n")

    # The gateway and smsd

    def start_smsd(self) -> None:
        self.run("/etc/init.d/smstools start")

    def stop_smsd(self) -> None:
        self.run("/etc/init.d/smstools stop")

    def serve(self) -> None:
        """Start the gateway, or start it again."""
        self.stop()
        self._gateway = subprocess.Popen(
            self._enter(True, SERVE),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._gateway.stderr is not None
        assert any("Serving on" in line for line in self._gateway.stderr)

    def stop(self) -> None:
        if self._gateway is not None:
            os.killpg(self._gateway.pid, signal.SIGKILL)
            self._gateway.communicate()
            self._gateway = None

    def curl(self, command: str) -> tuple[int, Any]:
        """Status and JSON of a command that has ``-i`` in it."""
        head, _, body = self.run(command.replace("curl ", "curl -s ", 1)).partition("\n\n")
        return int(head.split()[1]), json.loads(body)

    def send(self) -> list[str]:
        """The README's message to two numbers: the ids."""
        status, sent = self.curl(SEND)
        assert status == 201
        return list(sent["message_id"].values())

    def wait(self, count: int) -> None:
        """Return when the phones have so many messages."""
        try:
            self.modem.wait(count, LONG)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log()[-3000:]}\n{self.run(f'ls -laR {SPOOL}')}") from None

    def wait_log(self, *words: str) -> None:
        """Return when smsd has written a line with all of these words."""
        eventually(lambda: any(all(word in line for word in words) for line in self._log().splitlines()), LONG)

    def _log(self) -> str:
        return self.path("/var/log/smstools/smsd.log").read_text()

    def check(self, level: str, topics: Sequence[str] = ("smsd", "spool")) -> list[str]:
        """What ``smsgw check`` tells of smsd and the spool at that level, as the gateway's user."""
        told = json.loads(self.run(f"{GATEWAY}/smsgw check {INI} --json || true"))["findings"]
        return [
            f"{found['sentence']} {found['remedy']}".rstrip()
            for found in told
            if found["level"] == level and found["topic"] in topics
        ]


@contextmanager
def copied(folder: Path) -> Iterator[Machine]:
    """A copy of this machine, with the modem that its smsd has."""
    if os.geteuid():
        pytest.skip("root, who can have a copy of this machine")
    need("unshare", "nsenter", "ip", "curl", "dpkg", "apt", "adduser", "runuser", "htpasswd")
    if not Path("/etc/init.d/smstools").exists():
        pytest.skip("smsd (Debian package smstools)")
    said = subprocess.run(["dpkg", "--verify", "smstools"], capture_output=True, text=True, check=False).stdout
    if changed := re.findall(r"^\S+ +c? *(/etc/\S+)$", said, re.M):
        pytest.skip(f"the package smstools as it is shipped, but {', '.join(changed)} was changed here")
    with Modem() as modem, Machine(folder, modem) as machine:
        yield machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with copied(tmp_path_factory.mktemp("debian")) as machine:
        for line in INSTALL.splitlines():
            machine.run(line, answers="SecretPAss\nSecretPAss\n", net=False)
        machine.serve()
        yield machine


def test_a_message_reaches_the_phone(machine: Machine) -> None:
    """From the document's first command to the status that clients read, with nothing done that it does not say."""
    machine.start_smsd()
    before = len(machine.modem.messages())
    ids = machine.send()
    machine.wait(before + 2)
    assert [message.text for message in machine.modem.messages()[before:]] == ["Hi, Jack!"] * 2
    for id in ids:
        eventually(machine.path(f"{SPOOL}/sent/{id}").exists, LONG)
        read = READ.replace("smsgw.http.01JD…", id)
        eventually(lambda read=read: machine.curl(read)[0] == 200, LONG)  # type: ignore[misc]
        assert machine.curl(read)[1]["Modem"] == "GSM1"
        read = re.sub(r"/api/\S+", f"/api/v2/messages/{id}", read)
        assert machine.curl(read)[1]["status"] == "sent"
    assert machine.run(f"ls {SPOOL}/outgoing") == ""


def test_the_gateway_can_read_what_came_in(machine: Machine) -> None:
    machine.start_smsd()
    machine.modem.receive("79161234567", "Hello")
    incoming = machine.path(f"{SPOOL}/incoming")
    eventually(lambda: any(path.read_text().endswith("\n\nHello") for path in incoming.glob("GSM1.??????")), LONG)
    assert "Hello" in machine.run(f"runuser -u smsgw -- sh -c 'cat {SPOOL}/incoming/GSM1.*'")


def test_who_smsd_is(machine: Machine) -> None:
    """It has not the groups that its user is in, and the gateway's user need not be in the one that it has."""
    machine.stop_smsd()
    (error,) = machine.check("error")
    assert error == (
        "smsd does not run: /var/run/smstools/smsd.pid names no process of it; it would run as smsd with the group"
        " dialout. Start it, and see its log: systemctl start smstools"
    )
    machine.start_smsd()
    assert machine.check("error") == []
    (runs,) = (said for said in machine.check("ok") if said.startswith("smsd runs as smsd with the group dialout, p"))
    status = machine.path(f"/proc/{runs.rstrip('.').split()[-1]}/status").read_text()
    assert re.findall(r"^Groups:\t(.*?) *$", status, re.M) == [str(grp.getgrnam("dialout").gr_gid)]
    assert "dialout" not in machine.run("id smsgw")


def test_the_remedy_for_a_file_that_smsd_cannot_read(machine: Machine) -> None:
    machine.start_smsd()
    before = len(machine.modem.messages())
    name = f"{SPOOL}/outgoing/of another's program"
    file = f"umask 007 && printf 'To: 79161234567\\n\\nHello' >/tmp/file && mv /tmp/file {shlex.quote(name)}"
    machine.run(f"adduser --quiet --system other && runuser -u other -g smsd -- sh -c {shlex.quote(file)}")
    machine.wait_log("Cannot handle", name)
    (error,) = machine.check("error")
    assert error.startswith(f"smsd runs as smsd with the group dialout, who cannot read {name}: it is not sent, and")
    machine.run(error.partition("As root: ")[2])
    machine.wait(before + 1)


def test_the_remedy_after_an_upgrade_of_smsd(machine: Machine) -> None:
    """Debian's package makes each folder that it finds in the spool smsd's."""
    machine.start_smsd()
    before = len(machine.modem.messages())
    machine.send()
    machine.wait(before + 2)
    machine.run("dpkg-reconfigure smstools", net=False)
    (error,) = machine.check("error")
    assert error.startswith(f"{SPOOL}/outgoing/.smsgw belongs to smsd: an upgrade of smsd's package takes all folders")
    machine.stop()
    remedy = error.partition("As root: ")[2]
    assert f"\n{remedy}\n" in OPERATION
    machine.run(remedy)
    machine.serve()
    assert machine.check("error") == []
    machine.send()
    machine.wait(before + 4)


def test_the_remedy_for_a_file_system_without_access_lists(machine: Machine) -> None:
    """The gateway's user comes into the group that smsd has; what was written before is let through one by one."""
    machine.start_smsd()
    before = len(machine.modem.messages())
    folders = " ".join(f"{SPOOL}/{name}" for name in ("", "outgoing", "checked", "sent", "failed", "incoming"))
    machine.run(f"mount -t ramfs ramfs {SPOOL} && install -d -o smsd -g smsd -m 3775 {folders}")
    try:
        machine.serve()
        (id, *_) = machine.send()
        machine.wait_log("Cannot handle", id)
        error, *_ = (said for said in machine.check("error") if "cannot read files" in said)
        found = re.fullmatch(
            r"smsd runs as smsd with the group dialout, who cannot read files of the mode 0660, the user smsgw and the"
            r" group smsd\. As root: (adduser smsgw dialout), set (smsgw.file_group = dialout), and restart the"
            r" gateway\.",
            error,
        )
        assert found, error
        assert f"\n{found[1]}\n" in OPERATION
        assert found[2] in OPERATION
        machine.run(found[1])
        machine.change(INI, "#smsgw.file_group = smsd", found[2])
        machine.serve()
        machine.send()
        machine.wait(before + 2)
        while stuck := [said for said in machine.check("error") if "cannot read" in said]:
            assert len(stuck) == 1
            machine.run(stuck[0].partition("As root: ")[2])
        machine.wait(before + 4)
    finally:
        machine.stop()
        machine.run(f"umount --lazy {SPOOL} && deluser smsgw dialout")
        machine.change(INI, "smsgw.file_group = dialout", "#smsgw.file_group = smsd")
        machine.serve()


@pytest.mark.parametrize(
    ("fault", "level", "said"),
    [
        (f"deluser --quiet smsgw smsd && chmod 755 {SPOOL}/outgoing", "error", "smsgw cannot make a file in"),
        (f"chown -R root {SPOOL}/outgoing/.smsgw", "error", ".smsgw belongs to root, as whom somebody has started the"),
        ("chgrp root /etc/smsgw/htpasswd", "stops", "/etc/smsgw/htpasswd cannot be read: Permission denied; as root: "),
    ],
    ids=["not in smsd's group", "started by root", "a password file of root's"],
)
def test_the_remedies_for_what_the_gateway_s_user_may_not(machine: Machine, fault: str, level: str, said: str) -> None:
    machine.start_smsd()
    before = len(machine.modem.messages())
    machine.serve()
    machine.stop()
    machine.run(fault)
    (line,) = (line for line in machine.check(level, ("spool", "plugins")) if said in line)
    found = re.search(r"[Aa]s root: (.*?)(; then restart the gateway)?\.?$", line)
    assert found
    machine.run(found[1])
    assert machine.check(level, ("spool", "plugins")) == []
    machine.serve()
    machine.send()
    machine.wait(before + 2)
