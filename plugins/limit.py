"""``limit``: a text that is too long is cut between two words, and ends with an ellipsis."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

import colander
import regex

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Identity
from smsgw.settings import Lines
from smsgw.text import MAX_PARTS, measure

LONGEST = 160  # characters of a part, at the most

_WORD = re.compile(r"\S+")
_CHARACTER = regex.compile(r"\X")  # as people see one: an extended grapheme cluster (Unicode, annex 29)


class Limit:
    """A text transform. A user's own line counts, else the largest of their groups', else ``parts``."""

    class Settings(colander.MappingSchema):
        parts = colander.SchemaNode(
            colander.Integer(),
            missing=None,
            validator=colander.Range(1, MAX_PARTS),
            description="how many parts everybody's texts may have",
        )
        lines = colander.SchemaNode(Lines(), missing=None, description="lines 'user: 2' and '@group: 5'")

    def __init__(self, parts: int | None, lines: dict[str, str] | None) -> None:
        if parts is None and lines is None:
            raise ConfigurationError("set smsgw.limit.parts or smsgw.limit.lines")
        if lines is not None and "*" in lines:
            raise ConfigurationError("smsgw.limit.lines has a line for '*'; set smsgw.limit.parts for everybody")
        self._lines = {name: _parts(name, word) for name, word in (lines or {}).items()}
        if parts is not None:
            self._lines["*"] = parts

    @hookimpl
    def transform(self, text: str, identity: Identity) -> str:
        parts = max(identity.nearest(self._lines), default=None)
        return text if parts is None else cut(text, parts)


def _parts(name: str, word: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", word) or not 1 <= int(word) <= MAX_PARTS:
        raise ConfigurationError(f"smsgw.limit.lines has {word!r} for {name!r}, which should be 1 to {MAX_PARTS} parts")
    return int(word)


def cut(text: str, parts: int) -> str:
    """The text, if it has at most so many parts; else as many of its words as fit, and an ellipsis.

    A word that is too long by itself is cut between two characters as people see them. Such a character may be several
    code points.
    """
    if measure(text).parts <= parts:
        return text
    most = parts * LONGEST + 1  # characters to look at: one more than can go out
    end = _last(text, 0, [word.end() for word in _WORD.finditer(text[:most])], parts)
    following = _WORD.search(text, end)
    if following and not _fits(following[0][:most], parts):
        begin = following.start()
        characters = _CHARACTER.finditer(following[0][:most])
        end = _last(text, end, [begin + character.end() for character in characters], parts)
    return _ending(text[:end])


def _last(text: str, none: int, ends: Sequence[int], parts: int) -> int:
    """The last of these places at which the cut text fits, else ``none``. A longer text never has fewer parts."""
    fitting = bisect_left(ends, True, key=lambda end: not _fits(text[:end], parts))
    return ends[fitting - 1] if fitting else none


def _fits(beginning: str, parts: int) -> bool:
    return measure(_ending(beginning)).parts <= parts


def _ending(beginning: str) -> str:
    """With an ellipsis: three points if all is in the GSM alphabet, which has no ellipsis, else the character."""
    plain = beginning + "..."
    return plain if measure(plain).alphabet == "GSM" else beginning + "…"
