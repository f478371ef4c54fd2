"""``template``: texts of the operator. ``template:alarm host=web1 state="is down"`` asks for one, with values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import colander

from smsgw.files import unreadable
from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Identity, TextRefused, Unavailable
from smsgw.settings import Lines, Words

CALL = "template:"  # how a text begins that asks for a template
SUFFIX = ".txt"  # of files in the folder
LONGEST = 10000  # characters of a text that asks for one: parsing quotation marks takes time

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class _Template:
    """A text with ``{parameters}``; ``{{`` and ``}}`` go out as ``{`` and ``}``.

    :raises ValueError: it has another brace, or is empty.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("is empty")
        if stray := re.search("[{}].{0,20}", _FIELD.sub("", self.text)):
            raise ValueError(f"has a brace at {stray[0]!r}; a parameter is written {{host}}, a brace {{{{ or }}}}")

    @property
    def parameters(self) -> set[str]:
        return {match[1] for match in _FIELD.finditer(self.text) if match[1]}

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with these values. Braces in the values stay as they are."""
        return _FIELD.sub(lambda match: values[match[1]] if match[1] else match[0][0], self.text)


class Template:
    """A text transform. Texts that ask for no template pass unchanged, except of users in ``only``."""

    class Settings(colander.MappingSchema):
        texts = colander.SchemaNode(Lines(), missing=None, description="lines 'name: text with {parameters}'")
        folder = colander.SchemaNode(
            colander.String(), missing=None, description="folder of such texts, each a file name.txt in UTF-8"
        )
        only = colander.SchemaNode(
            Words(), missing=(), description="users and @groups (*: everybody) who may send nothing but templates"
        )

    def __init__(self, texts: dict[str, str] | None, folder: str | None, only: tuple[str, ...]) -> None:
        if texts is None and folder is None:
            raise ConfigurationError("set smsgw.template.texts or smsgw.template.folder")
        self._only = frozenset(only)
        self._texts = {}
        for name, text in (texts or {}).items():
            try:
                self._texts[_checked(name)] = _Template(text)
            except ValueError as error:
                raise ConfigurationError(f"smsgw.template.texts: {name!r} {error}") from None
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None:
            self._check_files(self._folder)

    @hookimpl
    def transform(self, text: str, identity: Identity) -> str:
        if text.startswith(CALL):
            return self._filled(text)
        if not self._only.isdisjoint(identity.names):
            raise TextRefused(f'should ask for a template: {CALL}NAME key=value key="two words"')
        return text

    def _filled(self, text: str) -> str:
        if len(text) > LONGEST:
            raise TextRefused(f"asks for a template in more than {LONGEST} characters")
        try:
            head, *words = shlex.split(text)
        except ValueError as error:
            raise TextRefused(f"asks for a template, and is not quoted as in a shell: {error}") from None
        name, values = head.removeprefix(CALL), _values(words)
        template = self._find(name)
        if template is None:
            raise TextRefused("asks for a template that does not exist")
        if lacking := sorted(template.parameters - values.keys()):
            raise TextRefused(f"lacks parameters of the template {name!r}: {', '.join(lacking)}")
        if strays := sorted(values.keys() - template.parameters):
            raise TextRefused(f"has parameters that the template {name!r} does not have: {', '.join(strays)}")
        return template.fill(values)

    def _find(self, name: str) -> _Template | None:
        if name in self._texts or self._folder is None or not _NAME.fullmatch(name):
            return self._texts.get(name)
        try:
            return _read(self._folder / f"{name}{SUFFIX}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Unavailable(f"The template {name!r} cannot be used") from error

    def _check_files(self, folder: Path) -> None:
        """Check the files that are there now. Later changes are seen when the template is asked for."""
        if not folder.is_dir():
            raise ConfigurationError(f"smsgw.template.folder: there is no folder {folder}; make it")
        for path in sorted(folder.glob(f"[!.]*{SUFFIX}")):
            try:
                _checked(path.stem)
                _read(path)
            except OSError as error:
                raise ConfigurationError(unreadable(path, error)) from None
            except ValueError as error:
                raise ConfigurationError(f"the template in {path} {error}") from None
            if path.stem in self._texts:
                raise ConfigurationError(f"there are two templates {path.stem!r}: in smsgw.template.texts, and {path}")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("should be called by letters from A to Z, digits, '-' and '_'")
    return name


def _read(path: Path) -> _Template:
    """
    :raises OSError: it cannot be read.
    :raises ValueError: it is no template.
    """
    try:
        return _Template(path.read_text("utf-8-sig").rstrip())
    except UnicodeDecodeError:
        raise ValueError("is not in UTF-8") from None


def _values(words: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise TextRefused(f"asks for a template, and {word!r} is no key=value; values with spaces are quoted")
        if key in values:
            raise TextRefused(f"gives the parameter {key!r} twice")
        values[key] = value
    return values
