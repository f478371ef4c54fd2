"""A real OpenLDAP server on ports and with a database of its own, for tests and the benchmark.

    with Slapd(tmp_path, PEOPLE) as slapd:
        settings = {"smsgw.ldap.url": slapd.url, "smsgw.ldap.user_dn": "uid={userid},ou=people,dc=example,dc=com"}
        slapd.kill()
        slapd.start()  # on the same ports

It listens on ``url`` (``ldap://``, with StartTLS where it has a certificate) and then also on ``tls_url`` (``ldaps://``).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme

from tests.server import free_port

SUFFIX = "dc=example,dc=com"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
ROOT_DN, ROOT_PASSWORD = f"cn=admin,{SUFFIX}", "R00tSecret"
SERVICE_DN, SERVICE_PASSWORD = f"cn=smsgw,{SUFFIX}", "S3rviceSecret"
MODULES = Path("/usr/lib/ldap")
SCHEMA = Path("/etc/ldap/schema")
TIMEOUT = 120.0  # seconds for what takes less than one on a quiet machine

# Users may read themselves, the service account reads everything, nobody else anything.
CONFIGURATION = """
include {schema}/core.schema
include {schema}/cosine.schema
include {schema}/nis.schema
include {schema}/inetorgperson.schema
modulepath {modules}
moduleload back_mdb
moduleload memberof
moduleload argon2
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.656 NAME 'userPrincipalName' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.2.840.113556.1.5.9 NAME 'user' SUP inetOrgPerson STRUCTURAL
  MAY ( sAMAccountName $ userPrincipalName ) )
pidfile {folder}/slapd.pid
{tls}
database mdb
maxsize 16777216
dbnosync
suffix "{suffix}"
rootdn "{root_dn}"
rootpw {root_password}
directory {folder}/database
index objectClass,uid,member,memberUid,cn eq
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service_dn}" read by self read by * {others}
"""

EMPTY = f"""
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example
"""

BASE = f"""{EMPTY}
dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {GROUPS}
objectClass: organizationalUnit
ou: groups

dn: {SERVICE_DN}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: smsgw
userPassword: {SERVICE_PASSWORD}
"""


def person(uid: str, password: str, *more: str, dn: str | None = None, of: str = "inetOrgPerson") -> str:
    """A user's entry in LDIF; ``more`` are further lines."""
    lines = [f"dn: {dn or f'uid={uid},{PEOPLE}'}", f"objectClass: {of}", f"uid: {uid}", f"cn: {uid}", f"sn: {uid}"]
    return "\n".join([*lines, f"userPassword: {password}", *more]) + "\n"


def group(name: str, *members: str, dn: str | None = None) -> str:
    """A group's entry in LDIF, with users or distinguished names."""
    names = [member if "=" in member else f"uid={member},{PEOPLE}" for member in members]
    lines = [f"dn: {dn or f'cn={name},{GROUPS}'}", "objectClass: groupOfNames", f"cn: {name}"]
    return "\n".join([*lines, *(f"member: {member}" for member in names)]) + "\n"


@dataclass(frozen=True)
class Certificate:
    """Files of a server's certificate, its key, and of the authority that signed it."""

    chain: Path
    key: Path
    authority: Path


def certify(
    folder: Path, *names: str, authority: trustme.CA | None = None, until: datetime | None = None
) -> Certificate:
    """A certificate for those names, by an authority of its own where none is given."""
    authority = authority or trustme.CA()
    issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=until)
    folder.mkdir(parents=True, exist_ok=True)
    found = Certificate(folder / "chain.pem", folder / "key.pem", folder / "authority.pem")
    found.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(found.key)
    authority.cert_pem.write_to_path(found.authority)
    return found


class Slapd:
    """One server; the context manager starts and always ends it.

    :param folder: gets its configuration, database and log.
    :param entries: LDIF of what it has beside ``BASE``.
    :param others: what others than the service account may do with entries that are not their own.
    :param base: LDIF in place of ``BASE``.
    """

    def __init__(
        self,
        folder: Path,
        *entries: str,
        certificate: Certificate | None = None,
        others: str = "none",
        base: str = BASE,
    ) -> None:
        self._folder = folder / f"slapd-{os.urandom(4).hex()}"
        (self._folder / "database").mkdir(parents=True)
        self.port, tls_port = free_port(), free_port()
        self.url, self.tls_url = f"ldap://127.0.0.1:{self.port}", f"ldaps://localhost:{tls_port}"
        self._urls = self.url + (f" ldaps://127.0.0.1:{tls_port}" if certificate else "")
        tls = (
            f"TLSCACertificateFile {certificate.authority}\nTLSCertificateFile {certificate.chain}\n"
            f"TLSCertificateKeyFile {certificate.key}"
            if certificate
            else ""
        )
        self._configuration = self._folder / "slapd.conf"
        self._configuration.write_text(
            CONFIGURATION.format(
                schema=SCHEMA,
                modules=MODULES,
                folder=self._folder,
                tls=tls,
                suffix=SUFFIX,
                root_dn=ROOT_DN,
                root_password=ROOT_PASSWORD,
                service_dn=SERVICE_DN,
                others=others,
            )
        )
        self.password_file = self._folder / "service-password"
        self.password_file.write_text(SERVICE_PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self._process: subprocess.Popen[bytes] | None = None
        ldif = self._folder / "entries.ldif"
        ldif.write_text("\n".join([base, *entries]))
        _run("slapadd", "-q", "-f", self._configuration, "-l", ldif)

    @property
    def by_search(self) -> dict[str, str]:
        """The settings of a gateway that searches in it with the service account."""
        return {
            "smsgw.ldap.url": self.url,
            "smsgw.ldap.search_base": PEOPLE,
            "smsgw.ldap.service_dn": SERVICE_DN,
            "smsgw.ldap.service_password_file": str(self.password_file),
        }

    @property
    def by_template(self) -> dict[str, str]:
        """The settings of a gateway that binds as whoever asks, and needs no other account."""
        return {"smsgw.ldap.url": self.url, "smsgw.ldap.user_dn": f"uid={{userid}},{PEOPLE}"}

    @property
    def log(self) -> str:
        """A line for each connection and each operation, written before it is answered; of its result, afterwards."""
        return (self._folder / "log").read_text(errors="replace")

    def count(self, operation: str) -> int:
        """How often it was asked for that, such as ``BIND dn`` or ``SRCH base``; ``ACCEPT from``: connections."""
        return len(re.findall(rf"\b{operation}\b", self.log))

    def add(self, *entries: str) -> None:
        """More entries, to a running server."""
        self.modify("\n".join(entries), "-a")

    def modify(self, ldif: str, *options: str) -> None:
        """What ``ldapmodify`` makes of it, as the server's administrator."""
        _run("ldapmodify", *options, "-x", "-H", self.url, "-D", ROOT_DN, "-w", ROOT_PASSWORD, given=ldif)

    def __enter__(self) -> Slapd:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Slapd:
        """Start it; returns when it takes connections."""
        assert self._process is None, "it runs"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_installed("slapd"), "-d", "stats", "-h", self._urls, "-f", self._configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"slapd does not start:\n{self.log}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL; nothing happens where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM: it closes its connections."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._process = None

    def limit(self, entries: int) -> None:
        """Start it again so that it tells at most so many entries."""
        self.stop()
        limited = self._configuration.read_text().replace("database mdb", f"sizelimit {entries}\ndatabase mdb")
        self._configuration.write_text(limited)
        self.start()

    def pause(self) -> None:
        """Let it answer nothing more; the kernel goes on taking connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until all its threads have stopped

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def hashed(password: str, scheme: str) -> str:
    """That password as ``userPassword`` stores it, by a scheme such as ``{SSHA}`` or ``{ARGON2}``."""
    module = ["-o", f"module-path={MODULES}", "-o", "module-load=argon2"]
    return _run("slappasswd", *module, "-h", scheme, "-s", password).strip()


def missing() -> str | None:
    """What Debian package has to be installed first."""
    programs = {"slapd": "slapd", "slapadd": "slapd", "ldapmodify": "ldap-utils"}
    return next((package for program, package in programs.items() if _find(program) is None), None)


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _installed(program: str) -> str:
    found = _find(program)
    assert found, f"{program} is not installed"
    return found


def _run(program: str, *arguments: object, given: str = "") -> str:
    command = [_installed(program), *map(str, arguments)]
    ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{program}: {ended.stderr}"
    return ended.stdout
