"""``smsgw plugins``: names, hooks and settings out of the plugins themselves."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import pytest

from smsgw.settings import Settings, schema_of
from tests.cli.conftest import smsgw
from tests.test_documentation import SHIPPED, known_settings

Install = Callable[..., None]

ACME = '''
"""``shout``: texts in capitals."""

import colander
from smsgw.hookspecs import hookimpl
from smsgw.settings import Boolean, Lines, Mode, Networks, Words


class Shout:
    class Settings(colander.MappingSchema):
        loud = colander.SchemaNode(Boolean(), missing=False, description="how \\x1b[31mloud")
        words = colander.SchemaNode(Words(), missing=("a", "b"))
        lines = colander.SchemaNode(Lines(), missing=None)
        networks = colander.SchemaNode(Networks())
        mode = colander.SchemaNode(Mode(), missing=0o640)
        ratio = colander.SchemaNode(colander.Float(), missing=0.5, validator=colander.Range(max=1))
        word = colander.SchemaNode(colander.String(), missing="x", validator=colander.OneOf(["x", "y"]))

    def __init__(self, **settings):
        pass

    def includeme(self, config):
        pass

    @hookimpl
    def transform(self, text):
        return text.upper()

    @hookimpl(wrapper=True, specname="deliver")
    def carry(self):
        return (yield)
'''


def rows(out: str) -> dict[str, str]:
    """Each line but empty ones, by its first word."""
    return {line.split()[0]: line for line in out.splitlines() if line}


def test_the_shipped_ones() -> None:
    told = smsgw("plugins")
    assert told.status == 0
    found = rows(told.out)
    assert set(found) - {"plugin"} == set(entry_points(group="smsgw.plugins").names)
    for name in SHIPPED:
        assert "cannot be loaded" not in found[name]
        assert " smsgw 1" in found[name]
        assert "`" not in found[name]
    assert "  authenticate holds fault  " in found["htpasswd"]
    assert "  permits " in found["whitelist"]


def test_every_setting_is_described() -> None:
    """Also those of the core, and each as the ini file spells it."""
    told = set()
    for name in ["core", *SHIPPED]:
        out = smsgw("plugins", name).out
        _, _, table = out.partition("\nsetting ")
        for line in table.splitlines()[1:]:
            cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
            assert len(cells) == 4, line
            told.add(cells[0])
    assert told == known_settings()


def test_defaults_of_the_core() -> None:
    found = rows(smsgw("plugins", "core").out)
    assert {f"smsgw.{node.name}" for node in schema_of(Settings).children} <= set(found)
    assert "  file mode  " in found["smsgw.file_mode"]
    assert "  0660  " in found["smsgw.file_mode"]
    assert "whole number, from 1 to 255" in found["smsgw.max_parts"]
    assert "  true  " in found["smsgw.fsync"]
    assert "(none)" in found["smsgw.region"]


def test_one_of_an_organisation(distribution: Install) -> None:
    distribution("acme", ACME, shout="Shout")
    told = smsgw("plugins", "shout").out
    assert told.startswith("shout: texts in capitals.\n\ndistribution  acme 1.0\nclass         acme:Shout\n")
    assert "\nhooks         transform deliver includeme\n" in told
    found = {name: " ".join(line.split()) for name, line in rows(told).items()}
    assert found["smsgw.shout.loud"] == r"smsgw.shout.loud true or false false how \x1b[31mloud"
    assert found["smsgw.shout.words"] == "smsgw.shout.words words a b"
    assert found["smsgw.shout.lines"] == "smsgw.shout.lines lines (none)"
    assert found["smsgw.shout.networks"] == "smsgw.shout.networks addresses (needed)"
    assert found["smsgw.shout.mode"] == "smsgw.shout.mode file mode 0640"
    assert found["smsgw.shout.ratio"] == "smsgw.shout.ratio number, to 1 0.5"
    assert found["smsgw.shout.word"] == "smsgw.shout.word x or y x"


def test_one_without_settings(distribution: Install) -> None:
    distribution("acme", "class Idle: pass", idle="Idle")
    told = smsgw("plugins", "idle").out
    assert "hooks         none" in told
    assert told.endswith("It has no settings.\n")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module\n", "needs the module 'no_such_module'"),
        ("raise RuntimeError('\\x1b[2J')\n", r"RuntimeError: \x1b[2J"),
        ("def Broken(): pass\n", "should be a class"),
    ],
)
def test_one_that_cannot_be_loaded(distribution: Install, source: str, said: str) -> None:
    distribution("acme", source, broken="Broken")
    told = smsgw("plugins")
    assert told.status == 0
    assert said in rows(told.out)["broken"]
    assert "acme 1.0" in rows(told.out)["broken"]
    told = smsgw("plugins", "broken")
    assert told.status == 1
    assert said in told.err
    assert "acme 1.0" in told.err


def test_one_that_is_offered_twice(distribution: Install) -> None:
    distribution("acme", "class Idle: pass", idle="Idle")
    distribution("acme2", "class Idle: pass", idle="Idle")
    assert "is offered by acme and acme2" in rows(smsgw("plugins").out)["idle"]


def test_one_that_there_is_not() -> None:
    told = smsgw("plugins", "htpaswd")
    assert (told.status, told.err) == (
        1,
        "Error: no installed distribution has a plugin 'htpaswd'; did you mean 'htpasswd'?\n",
    )
