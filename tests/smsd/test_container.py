"""The image of the Containerfile beside Debian's smsd, by the commands of docs/operation.md: a message on the phone."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import FULL, eventually
from tests.test_documentation import OPERATION, ROOT, blocks
from tests.test_packaging import commit
from tests.tmpfs import need

from .test_debian import LONG, SPOOL, Machine, copied

pytestmark = pytest.mark.skipif(not FULL, reason="it takes minutes, and is run with SMSGW_TESTS=full")

INSTALL, RUN, IS_ALIVE = blocks(OPERATION.partition("## In a container\n")[2], "sh")[:3]
*PREPARE, BUILD = INSTALL.splitlines()
(RELEASE,) = re.findall(r"^ARG BASE=\S+/debian:(\w+)-slim$", (ROOT / "Containerfile").read_text(), re.M)
AUTHORITIES = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")  # of the index that pip asks

# A machine for tests may have no service manager, no groups of processes, and no rights to raise limits. Images are in
# memory.
PODMAN = """\
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
IMAGES = """\
[storage]
driver = "overlay"
graphroot = "/tmp/containers"
runroot = "/run/containers"
"""
# No registry of images is asked. "slim" is this, without the manual pages.
MAKE_BASE = (
    f"mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io {RELEASE} - | podman import - localhost/base"
)


def set_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let podman work there, and make the folder with the Containerfile a checkout with one commit."""
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    monkeypatch.setenv("DISABLE_HC_SYSTEMD", "true")  # the health is asked for by the test
    settings = {"/etc/containers/containers.conf": PODMAN, "/etc/containers/storage.conf": IMAGES}
    settings["/etc/pip.conf"] = "[global]\ncert = /etc/authorities.crt\n"
    for path, text in settings.items():
        machine.path(path).parent.mkdir(exist_ok=True)
        machine.path(path).write_text(text)
    machine.run("mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    # crun gives what it takes for standard input to the container's user.
    machine.run("mknod -m 666 /tmp/null c 1 3 && mount --bind /tmp/null /dev/null")
    shutil.copy(ROOT / ".containerignore", machine.checkout)
    commit(machine.checkout, "")


def lacks(machine: Machine) -> str | None:
    """What the machine does not allow; ``None``: containers run, and pip reaches its index."""
    index = "--index-url https://pypi.org/simple --dest /tmp/index click"
    try:
        machine.run(f"set -o pipefail; {MAKE_BASE}", net=False)
        machine.run("podman run --rm localhost/base true")
        machine.run(f"python3 -m pip download --isolated --quiet --no-deps --cert {AUTHORITIES} {index}", net=False)
    except AssertionError as error:
        return str(error)
    return None


def build(machine: Machine) -> None:
    options = f"--build-arg BASE=localhost/base --volume {AUTHORITIES}:/etc/authorities.crt:ro"
    (settings_of_pip,) = re.findall(r"`(--volume /etc/pip\.conf\S+)`", OPERATION)
    machine.run(BUILD.replace("podman build ", f"podman build {options} {settings_of_pip} "), net=False)


def test_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("podman", "crun", "mmdebstrap", "git")
    with copied(tmp_path) as machine:
        set_up(machine, monkeypatch)
        if why := lacks(machine):
            pytest.xfail(f"an image cannot be built and run here: {why}")
        for line in PREPARE:
            machine.run(line, answers="SecretPAss\nSecretPAss\n", net=False)
        build(machine)
        machine.start_smsd()
        machine.run(RUN)
        eventually(lambda: "Serving on" in machine.run("podman logs smsgw 2>&1"), LONG)
        machine.run(IS_ALIVE)
        (id, *_) = machine.send()
        machine.wait(2)
        assert [message.text for message in machine.modem.messages()] == ["Hi, Jack!"] * 2
        eventually(machine.path(f"{SPOOL}/sent/{id}").exists, LONG)
        assert machine.run("podman exec smsgw smsgw --version").partition("+g")[1]
        assert machine.run("podman exec smsgw id -u") == machine.run("id -u smsgw")
        assert machine.run("podman run --rm --entrypoint id localhost/smsgw -un") == "smsgw\n"

        machine.run("podman stop --time 60 smsgw")  # SIGTERM
        assert machine.run("podman inspect --format '{{.State.ExitCode}}' smsgw") == "0\n"
