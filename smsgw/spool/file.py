"""One spool file: bytes ↔ message. Public; smsd's manual, "File format" (fileformat.html).

``Header: value`` lines, an empty line, then the text to the end, in the alphabet that the headers name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from smsgw.model import Content
from smsgw.numbers import spool_form
from smsgw.settings import is_on
from smsgw.text import BASIC, EXTENSION

# What smsd does not know it hands on: the client's own word for a message, and the time that it is for.
REFERENCE, SEND_AT = "X-Reference", "X-Send-At"
MAX_READ = 1024 * 1024  # bytes of a file; smsd's own have some 40,000 at the most
HEAD = 4096  # bytes in which a file's headers are looked for

# TS 23.038, 6.2.1: the escape leads to the extension table; 0x1B stands for itself where nothing follows.
_GSM = BASIC[:27] + "\x1b" + BASIC[27:]
_GSM_EXTENSION = dict(zip(b"\x0a\x14\x28\x29\x2f\x3c\x3d\x3e\x40\x65", EXTENSION, strict=True))
_REFERENCE = REFERENCE.encode()
_LENGTH = re.compile("[0-9]{1,9}")
# What smsd's "ISO" has instead of control characters, for letters of the GSM alphabet that ISO 8859-15 lacks.
_GREEK = {0x81 + place: letter for place, letter in enumerate("ΔΦΓΛΩΠΨΣΘΞ")}


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file as it stands: headers (those that stand several times joined by line breaks) and the undecoded body.

    ``complete`` is false while there is no empty line, which is where the headers end.
    """

    headers: dict[str, str]
    body: bytes
    complete: bool

    @property
    def text(self) -> str:
        """The body in its alphabet; what cannot be decoded is replaced, and binary is shown as hexadecimal digits.

        With ``Hex: yes`` the body has these digits already.
        """
        alphabet = self.headers.get("Alphabet", "ISO")[:3].upper()
        if alphabet == "UCS":
            return self.body.decode("utf-16-be", "replace")
        if alphabet == "UTF":
            return self.body.decode("utf-8", "replace")
        if alphabet == "GSM":
            return _decode_gsm(self.body)
        if alphabet == "BIN":
            return _hex(self.body, is_written=is_on(self.headers.get("Hex", "")))
        return self.body.decode("iso-8859-15").translate(_GREEK)

    @property
    def whole(self) -> bool:
        """Whether all of it is there, as far as it says: smsd writes received files bit by bit, ``Length`` first."""
        length = self.headers.get("Length", "")
        if not self.complete or not _LENGTH.fullmatch(length):
            return self.complete
        return int(length) in (len(self.body), len(self.body) // 2, len(self.text))


def is_message(name: str) -> bool:
    """Whether that can be a message's file, and asked for: no lock of smsd's nor its store of parts, no path, UTF-8."""
    if name.startswith(".") or name.endswith((".LOCK", "-concatenated")) or "/" in name or "\0" in name or not name:
        return False
    try:
        return len(name.encode()) + len(".LOCK") <= 255  # a name that smsd can lock
    except UnicodeEncodeError:
        return False


def head(content: Content) -> bytes:
    """What follows the ``To`` line in the file of each recipient of that content: headers, empty line, text.

    No header value may hold a control character: smsd takes lines such as ``Include: FILE`` at their word.
    """
    options = content.options
    lines = [f"From: {content.sender}", f"Alphabet: {'UTF-8' if content.alphabet == 'GSM' else 'UCS2'}"]
    if options.queue is not None:
        lines.append(f"Queue: {options.queue}")
    if options.flash:
        lines.append("Flash: yes")
    if options.high_priority:
        lines.append("Priority: HIGH")
    if options.validity is not None:
        lines.append(f"Validity: {options.validity} min")
    if options.report is not None:
        lines.append(f"Report: {'yes' if options.report else 'no'}")
    if options.send_at is not None:
        lines.append(f"{SEND_AT}: {options.send_at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z")
    if not all(map(str.isprintable, lines)):
        raise ValueError("a control character in a header")
    encoding = "utf-8" if content.alphabet == "GSM" else "utf-16-be"
    return "\n".join([*lines, "", ""]).encode() + content.text.encode(encoding)


def render(to: str, rest: bytes, reference: str | None = None) -> bytes:
    """A whole file: the recipient's normalised number, and the client's reference, before what ``head`` made."""
    if reference is None:
        return b"To: %s\n%s" % (spool_form(to).encode("ascii"), rest)
    if not reference.isprintable():
        raise ValueError("a control character in a header")
    return b"To: %s\n%s: %s\n%s" % (spool_form(to).encode("ascii"), _REFERENCE, reference.encode(), rest)


def send_at(headers: Mapping[str, str]) -> datetime | None:
    """The time (UTC) that a message is for; ``None``: there is none, or none that can be read."""
    try:
        return datetime.fromisoformat(headers[SEND_AT]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None


def is_later(send_at: datetime | None) -> bool:
    """Whether a message for that time has to wait for it."""
    return send_at is not None and send_at > datetime.now(UTC)


def parse(content: bytes) -> SpoolFile:
    """Any bytes as a spool file; never raises."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    complete = False
    position = 0
    while not complete and position < len(content):
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        line = content[position:end].strip()
        position = end + 1
        if not line:
            complete = True
            break
        name, _, value = line.partition(b":")
        key = name.strip().decode("utf-8", "replace")
        text = value.strip().decode("utf-8", "replace")
        if key in headers:
            repeated.setdefault(key, [headers[key]]).append(text)
        else:
            headers[key] = text
    headers |= {key: "\n".join(texts) for key, texts in repeated.items()}
    return SpoolFile(headers, content[position:] if complete else b"", complete)


def read(path: str | os.PathLike[str], size: int = MAX_READ) -> tuple[bytes, os.stat_result]:
    """The beginning of a regular file; links, pipes and other things that do not belong into a spool are not followed.

    :raises FileNotFoundError: there is none, or something else is in its place.
    :raises OSError: it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path) or not os.path.isfile(path):
            raise FileNotFoundError(error.errno, "no regular file", str(path)) from error
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(0, "no regular file", str(path))
        return os.read(fd, size), found
    finally:
        os.close(fd)


def _hex(body: bytes, *, is_written: bool) -> str:
    """The digits of a binary body.

    :param is_written: whether the body should have the digits, between which smsd takes white space.
    """
    digits = b"".join(body.split())
    if is_written and re.fullmatch(rb"(?:[0-9A-Fa-f]{2})*", digits):
        return digits.decode("ascii").lower()
    return body.hex()


def _decode_gsm(body: bytes) -> str:
    characters = []
    septets = iter(body)
    for septet in septets:
        if septet == 0x1B and (following := next(septets, None)) is not None:
            characters.append(_GSM_EXTENSION.get(following, " "))
        else:
            characters.append(_GSM[septet] if septet < 128 else "\ufffd")
    return "".join(characters)
