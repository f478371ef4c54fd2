"""What docs/ldap.md says is what happens: its commands are run, its settings are set."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import colander
import pytest
import trustme

from smsgw.testing import MakeGateway
from smsgw.verified import REMEMBERED
from smsgw_plugins.ldap import Ldap
from smsgw_plugins.ldap.directory import AVOIDED
from smsgw_plugins.ldap.groups import FILTER
from tests import slapd
from tests.conftest import sha
from tests.directory import send
from tests.slapd import ROOT_DN, ROOT_PASSWORD, Slapd

DOCUMENT = (Path(__file__).parent.parent / "docs" / "ldap.md").read_text()
SECRETS = {
    ROOT_DN: ROOT_PASSWORD,
    "cn=smsgw,dc=example,dc=com": "S3rvice",
    "uid=lvv,ou=people,dc=example,dc=com": "Pass",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.S)


def settings_of(block: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="])
    parser.read_string("[app:main]\n" + block)
    return dict(parser["app:main"])


@pytest.mark.skipif(slapd.missing() is not None, reason=f"{slapd.missing()} is not installed")
def test_from_an_empty_directory_server_to_a_message(tmp_path: Path, make_gateway: MakeGateway) -> None:
    install, fill, try_out, password, login, curl = blocks("sh")
    assert install == "apt install slapd ldap-utils\ndpkg-reconfigure slapd\n"
    (tmp_path / "directory.ldif").write_text(blocks("ldif")[0])
    with Slapd(tmp_path, base=slapd.EMPTY, others="read") as server:
        said = [run(command, server, tmp_path) for command in (fill + try_out).splitlines()]
        assert "\nuid: lvv\n" in said[-2]
        assert said[-1] == "dn:uid=lvv,ou=people,dc=example,dc=com\n"
        file = tmp_path / "ldap-password"
        script = password.replace("/etc/smsgw/ldap-password", str(file)).replace("-g smsgw", f"-g {os.getgid()}")
        subprocess.run(["bash", "-euc", script], input="S3rvice\n", text=True, check=True, capture_output=True)
        assert file.stat().st_mode & 0o777 == 0o640
        places = {"smsgw.ldap.url": server.url, "smsgw.ldap.service_password_file": str(file)}
        gateway = make_gateway({"smsgw.htpasswd.path": None} | settings_of(blocks("ini")[0]) | places)
        ini = tmp_path / "production.ini"
        lines = "".join(f"{key} = {value}\n" for key, value in gateway.settings.items())
        ini.write_text(f"[app:main]\nuse = egg:smsgw\n{lines}")
        words = shlex.split(login.partition(" -- /opt/smsgw/bin/")[2].replace("/etc/smsgw/production.ini", str(ini)))
        command = [Path(sys.executable).with_name(words[0]), *words[1:]]
        told = subprocess.run(command, input="Pass\n", capture_output=True, text=True, check=False)
        assert "The user gets in, as lvv." in told.stdout
        send(gateway, "LVV", "Pass")
        send(gateway, "lvv", "wrong", status=401)
        send(gateway, "cn=smsgw", "S3rvice", status=401)
    words = shlex.split(curl)
    assert json.loads(words[words.index("-d") + 1])["text"] == "Hi, Jack!"
    assert [headers.decode().count("From: lvv\n") for headers in gateway.files().values()] == [1]


def run(command: str, server: Slapd, folder: Path) -> str:
    """A command of the document, with the passwords that it would ask for."""
    words = shlex.split(command.replace("ldap://localhost", server.url))
    who = words[words.index("-D") + 1]
    found = []
    for word in words:
        found += {"-W": ["-w", SECRETS[who]], "-S": ["-s", SECRETS[words[-1]]] if "-S" in words else []}.get(
            word, [word]
        )
    ended = subprocess.run(found, capture_output=True, text=True, cwd=folder, check=False)
    assert ended.returncode == 0, (command, ended.stderr)
    return ended.stdout


@pytest.mark.parametrize("number", range(len(blocks("ini"))))
def test_every_example_starts(number: int, tmp_path: Path, make_gateway: MakeGateway) -> None:
    (tmp_path / "ldap-password").write_text("x")
    (tmp_path / "ldap-password").chmod(0o600)
    trustme.CA().cert_pem.write_to_path(tmp_path / "ldap-ca.pem")
    (tmp_path / "htpasswd").write_text(f"root:{sha('Adm1nist')}\n")
    block = blocks("ini")[number].replace("/etc/smsgw", str(tmp_path))
    assert ".example" in block or "localhost" in block
    make_gateway({"smsgw.htpasswd.path": None} | settings_of(block))


def test_every_setting_stands_there_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `smsgw\.ldap\.(\w+)` \| (.*?) ?\| ", DOCUMENT.replace("\\|", "¦"), re.M))
    nodes = {node.name: node.missing for node in Ldap.Settings().children}
    assert rows.keys() == nodes.keys()
    for name, default in nodes.items():
        if default is not None and default is not colander.required:
            assert rows[name] == f"`{str(default).lower().removesuffix('.0')}`", name
    assert rows["group_filter"] == f"`{FILTER}`".replace("|", "¦")
    prose = " ".join(DOCUMENT.split())
    assert f"left alone for {AVOIDED:.0f} seconds" in prose
    assert f"at most {REMEMBERED:,} passwords" in prose
