"""Imports point one way, and every hook is documented and tested: read from the source, not from what runs."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from smsgw import hookspecs
from smsgw.plugins import hooks_of

ROOT = Path(__file__).parent.parent
PUBLIC = {"smsgw.model", "smsgw.hookspecs", "smsgw.numbers", "smsgw.text", "smsgw.settings"}
PUBLIC |= {"smsgw.spool.file", "smsgw.spool.layout", "smsgw.store", "smsgw.cli", "smsgw.resources", "smsgw.api"}
PUBLIC |= {"smsgw.verified", "smsgw.files", "smsgw.status", "smsgw.tls"}

# What each module, or all of a package, may import of ours.
MAY_IMPORT = {
    "smsgw.model": set(),
    "smsgw.hookspecs": {"smsgw.model"},
    "smsgw.numbers": {"smsgw.model"},
    "smsgw.ids": set(),
    "smsgw.files": set(),
    "smsgw.tls": {"smsgw.model"},
    "smsgw.verified": set(),
    "smsgw.origin": {"smsgw.model"},
    "smsgw.logs": {"smsgw.origin"},
    "smsgw.text": set(),
    "smsgw.settings": {"smsgw.model", "smsgw.numbers", "smsgw.text"},
    "smsgw.plugins": {"smsgw.model", "smsgw.hookspecs", "smsgw.settings"},
    "smsgw.spool": {
        *("smsgw.ids", "smsgw.logs", "smsgw.model", "smsgw.numbers", "smsgw.settings", "smsgw.text"),
        *("smsgw.spool", "smsgw.spool.following.reports", "smsgw.spool.sending"),
    },
    "smsgw.spool.sending": {
        *("smsgw.model", "smsgw.spool", "smsgw.spool.following.watch", "smsgw.spool.sending"),
    },
    "smsgw.spool.following": {
        *("smsgw.journal", "smsgw.model", "smsgw.numbers", "smsgw.spool", "smsgw.spool.following"),
        *("smsgw.ids",),
        *("smsgw.spool.sending",),
    },
    "smsgw.journal": {
        *("smsgw.journal", "smsgw.logs", "smsgw.model", "smsgw.numbers", "smsgw.settings", "smsgw.spool"),
        *("smsgw.spool.following", "smsgw.status", "smsgw.store"),
    },
    "smsgw.journal.migrations": {"smsgw.journal"},
    "smsgw.status": {"smsgw.model"},
    "smsgw.following": {
        *("smsgw.journal", "smsgw.model", "smsgw.plugins", "smsgw.spool", "smsgw.spool.following", "smsgw.status"),
        *("smsgw.spool.sending", "smsgw.store"),
    },
    "smsgw.application": {
        *("smsgw.delivery", "smsgw.following", "smsgw.gateway", "smsgw.guessing", "smsgw.health"),
        *("smsgw.journal", "smsgw.listener"),
        *("smsgw.mailbox", "smsgw.model", "smsgw.plugins", "smsgw.resources", "smsgw.security", "smsgw.settings"),
        *("smsgw.spool", "smsgw.spool.following", "smsgw.spool.sending", "smsgw.store", "smsgw.watchdog"),
    },
    "smsgw.health": {
        *("smsgw.journal", "smsgw.logs", "smsgw.model", "smsgw.plugins", "smsgw.spool", "smsgw.spool.sending"),
    },
    "smsgw.listener": set(),
    "smsgw.granian_server": {"smsgw.listener", "smsgw.model", "smsgw.settings"},
    "smsgw.watchdog": {"smsgw.journal", "smsgw.model", "smsgw.spool", "smsgw.status"},
    "smsgw.guessing": {"smsgw.spool", "smsgw.spool.sending"},
    "smsgw.security": {"smsgw.logs", "smsgw.plugins", "smsgw.guessing", "smsgw.model", "smsgw.settings"},
    "smsgw.refusals": set(),
    "smsgw.delivery": {"smsgw.logs", "smsgw.model", "smsgw.plugins", "smsgw.spool", "smsgw.spool.sending"},
    "smsgw.batch": {"smsgw.model", "smsgw.refusals"},
    "smsgw.options": {"smsgw.model", "smsgw.refusals", "smsgw.settings"},
    "smsgw.gateway": {
        *("smsgw.batch", "smsgw.delivery", "smsgw.model", "smsgw.numbers", "smsgw.options", "smsgw.text"),
        *("smsgw.ids", "smsgw.plugins", "smsgw.refusals", "smsgw.security", "smsgw.settings", "smsgw.spool"),
        *("smsgw.spool.sending",),
    },
    "smsgw.mailbox": {
        *("smsgw.journal", "smsgw.model", "smsgw.numbers", "smsgw.plugins", "smsgw.refusals", "smsgw.resources"),
        *("smsgw.security", "smsgw.spool", "smsgw.status"),
        *("smsgw.spool.sending",),
    },
    "smsgw.resources": {"smsgw.model", "smsgw.numbers", "smsgw.spool", "smsgw.status", "smsgw.text", "smsgw.ids"},
    "smsgw.api": {
        *("smsgw.application", "smsgw.batch", "smsgw.gateway", "smsgw.model", "smsgw.options", "smsgw.refusals"),
        *("smsgw.mailbox", "smsgw.origin", "smsgw.security", "smsgw.settings", "smsgw.spool", "smsgw.status"),
        *("smsgw.tracing", "smsgw.views"),
        *("smsgw.logs", "smsgw.plugins"),
    },
    "smsgw.tracing": {"smsgw.application", "smsgw.model", "smsgw.origin", "smsgw.security", "smsgw.views"},
    "smsgw.errors": {
        "smsgw.application",
        "smsgw.logs",
        "smsgw.model",
        "smsgw.plugins",
        "smsgw.gateway",
        "smsgw.refusals",
        "smsgw.views",
    },
    "smsgw.views": {
        "smsgw.application",
        "smsgw.batch",
        "smsgw.errors",
        "smsgw.gateway",
        "smsgw.health",
        "smsgw.model",
        "smsgw.numbers",
        "smsgw.origin",
        "smsgw.plugins",
        "smsgw.refusals",
        "smsgw.resources",
        "smsgw.security",
        "smsgw.settings",
        "smsgw.spool",
        "smsgw.status",
        "smsgw.text",
        "smsgw.views",
    },
    "smsgw.postgresql": {"smsgw.model"},
    "smsgw.sqlite": set(),
    "smsgw.migrations": {"smsgw.model"},
    "smsgw.store": {"smsgw.migrations", "smsgw.model", "smsgw.postgresql", "smsgw.settings", "smsgw.sqlite"},
    "smsgw.cli": {
        *(
            "smsgw",
            "smsgw.application",
            "smsgw.batch",
            "smsgw.cli",
            "smsgw.cli.check",
            "smsgw.journal",
            "smsgw.model",
            "smsgw.numbers",
            "smsgw.origin",
        ),
        "smsgw.plugins",
        *("smsgw.refusals", "smsgw.resources", "smsgw.security", "smsgw.settings", "smsgw.spool", "smsgw.store"),
        "smsgw.text",
    },
    "smsgw.cli.check": {
        *("smsgw.cli", "smsgw.cli.check", "smsgw.gateway", "smsgw.model", "smsgw.plugins", "smsgw.refusals"),
        *("smsgw.granian_server", "smsgw.settings", "smsgw.spool", "smsgw.spool.sending", "smsgw.store", "smsgw.text"),
    },
    "smsgw.testing": {
        *(
            "smsgw",
            "smsgw.application",
            "smsgw.hookspecs",
            "smsgw.model",
            "smsgw.options",
            "smsgw.plugins",
            "smsgw.settings",
        ),
        *("smsgw.spool", "smsgw.testing", "smsgw.text"),
    },
    "smsgw": {"smsgw.application", "smsgw.model", "smsgw.settings"},
    "smsgw_plugins": PUBLIC,
}


@functools.cache
def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in (("smsgw", "smsgw"), ("smsgw_plugins", "plugins")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join([package, *(part for part in parts if part != "__init__")]), path))
    return found


@functools.cache
def imports(module: str, path: Path) -> set[str]:
    """Its imports by full names; one that is relative names a module of the same package, which mypy can follow."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or (node.level == 1 and package.startswith("smsgw_plugins."))
            source = ".".join(filter(None, [package if node.level else "", node.module]))
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= (names & {name for name, _ in modules()}) or {source}
    return found


def package_of(module: str) -> str:
    """The entry of ``MAY_IMPORT`` that rules a module."""
    return next(name for name in (module, module.rpartition(".")[0], module.partition(".")[0]) if name in MAY_IMPORT)


@pytest.mark.parametrize(("module", "path"), modules())
def test_imports_point_one_way(module: str, path: Path) -> None:
    ours = {name for name, _ in modules()} & imports(module, path)
    if module.startswith("smsgw_plugins."):
        own = ".".join(module.split(".")[:2])  # where a plugin is a package, its modules know each other
        ours = {name for name in ours if name != own and not name.startswith(f"{own}.")}
    allowed = MAY_IMPORT[package_of(module)]
    strays = {name for name in ours - {module} if name not in allowed and package_of(name) not in allowed - {"smsgw"}}
    assert not strays


@pytest.mark.parametrize("module", sorted(PUBLIC | {"smsgw.testing"}))
def test_what_is_public_says_so(module: str) -> None:
    path = dict(modules())[module]
    documented = (ROOT / "docs" / "plugin-reference.md").read_text().partition("## What is public\n")[2]
    assert "Public" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    assert f"`{module}`" in documented


def test_what_the_reference_calls_public_is_all() -> None:
    documented = (ROOT / "docs" / "plugin-reference.md").read_text().partition("## What is public\n")[2]
    assert set(re.findall(r"`(smsgw\.[a-z.]+)`", documented)) == PUBLIC | {"smsgw.testing"}


def test_the_spool_knows_no_http() -> None:
    for module, path in modules():
        if module.startswith("smsgw.spool."):
            foreign = {name for name in imports(module, path) if name.startswith(("pyramid", "webob", "cornice"))}
            assert foreign <= {"pyramid.config", "pyramid.events"}


def hooks() -> list[str]:
    return [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "smsgw_spec")]


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented_with_its_signature(hook: str) -> None:
    function = getattr(hookspecs, hook)
    signature = f"{hook}{inspect.signature(function)}".replace("'", "")
    assert inspect.getdoc(function)
    assert f"`{signature}`" in (ROOT / "docs" / "plugin-reference.md").read_text()


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_tested(hook: str) -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    assert any(f"def {hook}(self" in source for source in sources)


CONFORMANCE = {
    "authenticate": ("AuthenticationConformance", "OutageConformance", "DelayConformance"),
    "permits": ("PolicyConformance",),
    "route": ("RouteConformance",),
    "transform": ("TransformConformance",),
}


def test_every_shipped_plugin_stands_the_kit_s_checks() -> None:
    tested = set()
    for path in (ROOT / "tests" / "plugins").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names = re.findall(r"^    plugin = [\"'](\w+)[\"']$", ast.unparse(node), re.M)
                tested |= {(name, base.id) for name in names for base in node.bases if isinstance(base, ast.Name)}
    for offer in (offer for offer in entry_points(group="smsgw.plugins") if offer.module.startswith("smsgw_plugins.")):
        for hook in set(hooks_of(offer.load())) & CONFORMANCE.keys():
            assert {(offer.name, base) for base in CONFORMANCE[hook]} & tested, (offer.name, hook)


def test_plugins_fit_on_a_screen() -> None:
    for module, path in modules():
        if module.startswith("smsgw_plugins."):
            assert len(path.read_text().splitlines()) <= 180, module
