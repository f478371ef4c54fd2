"""The Debian package in a clean Debian with its own systemd, beside Debian's smsd: only the modem is emulated."""

from __future__ import annotations

import grp
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import FULL, eventually
from tests.test_documentation import OPERATION, README, ROOT, block, blocks
from tests.tmpfs import Small, Tmpfs, need

from .modem import Modem

pytestmark = pytest.mark.skipif(not FULL, reason="it takes minutes, and is run with SMSGW_TESTS=full")

LONG = 120.0  # seconds for what takes smsd up to 20, which looks every 10
SEND = next(command for command in blocks(README, "sh") if command.startswith("curl"))
FIRST, CHECK, SET_SMSD = blocks(README.partition("## With a real smsd\n")[2], "sh")[:3]
BUILD, INSTALL, ADD_USER = FIRST.splitlines()
COMPARE = block(OPERATION, "sh", "diff ")
OTHER_SPOOL = block(OPERATION, "sh", "ReadWritePaths")
BY_PIP, SERVICE = (blocks(OPERATION.partition("## By pip\n")[2], "sh")[place] for place in (0, 2))
SPOOL = "/var/spool/sms"

# The first process becomes systemd. Of devices it has those that have no hardware.
BOOT = """\
mount --make-rprivate /
mount --bind "$1" "$1" && cd "$1"
mount -t tmpfs -o mode=755 tmpfs dev && mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do touch dev/$device && mount --bind /dev/$device dev/$device; done
ln -s pts/ptmx dev/ptmx
mount --bind /dev/pts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 sys/fs/cgroup
ip link set lo up
mkdir -p old && pivot_root . old && umount -l /old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
"""


class Debian:
    """A Debian in the folder "debian" of that file system; the context manager boots and ends it."""

    def __init__(self, memory: Small) -> None:
        self._memory = memory
        self.root = memory.outside / "debian"

    def __enter__(self) -> Self:
        spaces = ["--mount", "--net", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            [*self._memory.enter, "unshare", *spaces, "bash", "-e", "-c", BOOT, "bash", self._memory.path / "debian"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        pid = self._holder.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        eventually(lambda: self._holder.poll() is not None or children.read_text())
        self._first = int(children.read_text())
        try:
            eventually(lambda: self._holder.poll() is not None or self._is_up(), LONG)
            assert self._holder.poll() is None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()  # and with it systemd, and all others
        self._holder.communicate()

    def _is_up(self) -> bool:
        command = self._enter("systemctl is-active --quiet multi-user.target", net=True)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _enter(self, command: str, net: bool) -> list[str]:
        """A command line that runs there; without a network of its own, with that of this machine."""
        spaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", *(["--net"] if net else [])]
        root = f"/proc/{self._first}/root"
        spaces += [f"--root={root}", f"--wd={root}/root"]
        variables = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        program = ["env", "-i", *variables, "bash", "-e", "-c", command]
        return ["nsenter", f"--target={self._first}", *spaces, *program]

    def run(self, command: str, *, answers: str = "", net: bool = True, fails: bool = False) -> str:
        """What a command printed."""
        ended = subprocess.run(
            self._enter(command, net),
            input=answers,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,  # without a terminal, so that htpasswd reads the password here
        )
        assert (ended.returncode != 0) is fails, f"{command}\n{ended.stdout}"
        return ended.stdout

    def path(self, path: str) -> Path:
        return self.root / path.removeprefix("/")


@contextmanager
def building(folder: Path, memory: Small) -> Iterator[subprocess.Popen[str]]:
    """A process that builds the package in a checkout in that folder, with its other files in memory."""
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=left_out)
    shutil.copytree(ROOT / "packaging", folder / "packaging", dirs_exist_ok=True)  # of which one is called "build"
    command = [*memory.enter, "env", f"TMPDIR={memory.path}", folder / BUILD]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, text=True, **output) as process:
        yield process
        process.kill()


def make_root(memory: Small) -> None:
    """A clean Debian with smsd as it is shipped."""
    options = ["--variant=apt", "--include=smstools,curl,systemd-sysv", "--skip=cleanup/apt"]
    options += ['--aptopt=APT::Get::Assume-Yes "true"', "--dpkgopt=force-unsafe-io"]
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["env", f"TMPDIR={memory.path}", "mmdebstrap", *options, release, memory.path / "debian"]
    made = subprocess.run([*memory.enter, *command], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def make_newer(package: Path, folder: Path) -> None:
    """The next version, in which another setting is explained: "newer.deb" in that folder."""
    tree = folder / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("Version: ", "Version: 9"))
    ini = tree / "usr" / "share" / "smsgw" / "production.ini"
    ini.write_text(f"{ini.read_text()}# newer\n")
    subprocess.run(["dpkg-deb", "-Zzstd", "-z1", "--build", tree, folder / "newer.deb"], check=True)


def started(debian: Debian, count: int) -> None:
    """Return when the gateway has been started so often."""
    eventually(lambda: debian.run("journalctl -u smsgw").count("Serving on") == count, LONG)


def send(debian: Debian) -> Any:
    reply = debian.run(SEND.replace("curl ", "curl -s ", 1))
    assert reply.startswith("HTTP/1.1 201 "), reply
    return json.loads(reply.partition("\n\n")[2])


def test_the_package(tmp_path: Path) -> None:
    """From a clean Debian to a message on the phone by the README's commands; an upgrade, and the removal of all."""
    if os.geteuid():
        pytest.skip("root, who can boot a Debian")
    need("mmdebstrap", "unshare", "nsenter", "ip", "dpkg-deb")
    checkout = tmp_path / "checkout"
    with Tmpfs(tmp_path / "memory", "6g") as memory:
        with building(checkout, memory) as process:
            make_root(memory)
            output, _ = process.communicate()
            assert process.returncode == 0, output
        (built,) = (checkout / "dist").glob("smsgw_*.deb")
        with Modem() as modem, Debian(memory) as debian:
            plug_in(debian, modem)
            install(debian, modem, built)
            upgrade(debian, modem, built)
            debian.run("mkdir by-pip && cp -a /opt/smsgw by-pip/")
            remove(debian)
            run_by_pip(debian, modem)


def plug_in(debian: Debian, modem: Modem) -> None:
    os.chown(modem.device, 0, grp.getgrnam("dialout").gr_gid)
    os.chmod(modem.device, 0o660)
    conf = debian.path("/etc/smsd.conf")
    conf.write_text(conf.read_text().replace("device = /dev/ttyS0\n", f"device = {modem.device}\n"))
    debian.run("systemctl restart smstools")


def install(debian: Debian, modem: Modem, built: Path) -> None:
    debian.path("/root/dist").mkdir()
    shutil.copy(built, debian.path("/root/dist"))
    debian.run("mkdir /opt/smsgw")
    assert "installation by pip" in debian.run(INSTALL, net=False, fails=True)
    debian.run("rmdir /opt/smsgw")
    debian.run(INSTALL, net=False)
    debian.run(ADD_USER, answers="SecretPAss\nSecretPAss\n")
    assert debian.run("stat -c '%U:%G %a' /etc/smsgw/*") == "root:smsgw 640\n" * 2
    started(debian, 1)
    send(debian)
    modem.wait(2, LONG)
    assert [message.text for message in modem.messages()] == ["Hi, Jack!"] * 2
    found = debian.run(CHECK, fails=True)
    assert found.startswith("WARNING (0 errors, 3 warnings)")
    assert all(f"'{words}" in found for words in ("trust_outgoing = yes", "notifier = yes", "report ="))
    debian.run(SET_SMSD)
    started(debian, 2)
    assert debian.run(CHECK).startswith("OK")
    status = debian.run("cat /proc/$(systemctl show --property=MainPID --value smsgw)/status")
    assert re.findall(r"^(CapBnd|NoNewPrivs|Seccomp):\t(\w+)$", status, re.M) == [
        *(("CapBnd", "0" * 16), ("NoNewPrivs", "1"), ("Seccomp", "2"))
    ]


def upgrade(debian: Debian, modem: Modem, built: Path) -> None:
    ini = debian.path("/etc/smsgw/production.ini")
    ini.write_text(f"{ini.read_text()}# mine\n")
    make_newer(built, debian.path("/root"))
    debian.run("apt-get install ./newer.deb", net=False)
    started(debian, 3)
    assert debian.run(COMPARE, fails=True).endswith("\n< # mine\n---\n> # newer\n")
    debian.run(f"mkdir -p /srv/sms\n{OTHER_SPOOL}")
    started(debian, 4)
    assert "/srv/sms" in debian.run("systemctl show --property=ReadWritePaths smsgw")

    debian.run("apt-get install --reinstall smstools", net=False)  # gives smsgw's own folder to smsd
    started(debian, 5)
    send(debian)
    modem.wait(4, LONG)
    assert debian.run(CHECK).startswith("OK")


def remove(debian: Debian) -> None:
    debian.run("apt-get remove smsgw")
    assert not debian.path("/opt/smsgw").exists()
    assert debian.path("/etc/smsgw/production.ini").exists()
    assert debian.run("systemctl show --property=ActiveState --property=Result smsgw") == (
        "Result=success\nActiveState=inactive\n"
    )
    debian.run("apt-get purge smsgw")
    ours = ("/root/*", "/etc/systemd/system/smsgw.service.d*", f"{SPOOL}/sent/*")
    elsewhere = " ".join(f"-not -path '{path}'" for path in ours)
    assert debian.run(f"find / -xdev -name '*smsgw*' {elsewhere}") == ""
    assert debian.run("systemctl is-active smstools") == "active\n"


def run_by_pip(debian: Debian, modem: Modem) -> None:
    """The service of an installation by pip. What pip installs is what the package had; test_debian.py runs pip."""
    debian.run("mkdir -p /opt && mv by-pip/smsgw /opt/")  # the package takes away a folder that it leaves empty
    debian.path("/root/packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "smsgw.service", debian.path("/root/packaging"))
    shutil.copy(ROOT / "production.ini", debian.path("/root"))
    for line in BY_PIP.splitlines():
        if not re.search(r"\b(apt|pip) install", line):
            debian.run(line, answers="SecretPAss\nSecretPAss\n")
    debian.run(SERVICE)
    started(debian, 6)
    send(debian)
    modem.wait(6, LONG)
    assert debian.run("systemctl is-enabled smsgw") == "enabled\n"
    assert debian.run(CHECK.replace(" smsgw check", " /opt/smsgw/bin/smsgw check")).startswith("OK")
