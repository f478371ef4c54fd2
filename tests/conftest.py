"""What all tests share: a gateway on a spool of its own, spoken to through HTTP."""

from __future__ import annotations

import base64
import gc
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from smsgw import testing
from smsgw.spool.layout import KINDS
from smsgw.testing import OUTGOING, USERS, Gateway, base_settings_in, basic, make_spool, running
from tests.postgresql import Postgresql

__all__ = ["OUTGOING", "USERS", "Gateway", "at_length", "basic", "eventually", "make_spool", "sha"]


PATIENCE = 60.0  # seconds for what takes less than one on a quiet machine


def _is_full() -> bool:
    """``SMSGW_TESTS`` is ``full`` or ``sample``; where it is not set, a sample is run, and with ``CI`` everything."""
    asked = os.environ.get("SMSGW_TESTS") or ("full" if os.environ.get("CI") else "sample")
    if asked not in ("full", "sample"):
        raise pytest.UsageError(f"SMSGW_TESTS should be 'full' or 'sample', and is {asked!r}")
    return asked == "full"


FULL = _is_full()


def at_length(full: int, sample: int) -> int:
    """How often a test does what it does: the first number with ``SMSGW_TESTS=full``, else the second."""
    return full if FULL else sample


def eventually(look: Callable[[], Any], seconds: float = 0) -> Any:
    """The kit's, with patience for a busy machine, which costs nothing where it happens."""
    return testing.eventually(look, max(seconds, PATIENCE))


# Examples differ from run to run. What fails is printed with a line that reproduces it, since CI keeps no database.
settings.register_profile(
    "smsgw",
    settings.get_profile("default"),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=at_length(300, 40),
    print_blob=True,
)
settings.load_profile("smsgw")


# What is imported stays: the collector of garbage need not look at it again and again, which takes a tenth of the time.
gc.freeze()
gc.set_threshold(100_000, 50, 100)

# Programs that are started need not compile smsgw each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are processors: tests wait more than they compute."""
    return min(max(2 * len(os.sched_getaffinity(0)), 4), 8)


# The files that take longest: they come first, or one process would still be at them when the others are done.
LONG = (
    "smsd/test_container.py",
    "smsd/test_package.py",
    "smsd/test_debian.py",
    "test_backup_documentation.py",
    "plugins/test_webhooks_faults.py",
    "plugins/test_token.py",
    "test_remedies.py",
    "test_power_cut.py",
    "test_testing.py",
    "test_documentation.py",
    "test_faults.py",
    "test_life_faults.py",
    "cli/test_documented.py",
    "cli/test_journal.py",
    "test_packaging.py",
    "test_smsd.py",
    "test_life.py",
    "plugins/test_jwt.py",
    "test_journal_faults.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_report_header() -> str:
    return "smsgw: all tests" if FULL else "smsgw: a sample of the tests; all are run with SMSGW_TESTS=full"


def sha(word: str) -> str:
    """That password as ``htpasswd -s`` would write it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(word.encode()).digest()).decode()


@pytest.fixture(autouse=True, scope="session")
def patient() -> Iterator[None]:
    """However busy the machine is, a search waits until the journal has what was there when it was asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smsgw.journal.journal.PATIENCE", 10.0)
        yield


def write_passwords(folder: Path) -> Path:
    """Apache's cheapest hashes: what is not about passwords need not wait for them."""
    path = folder / "htpasswd"
    path.write_text("".join(f"{user}:{sha(word)}\n" for user, word in USERS.items()))
    return path


def settings_in(folder: Path, passwords: Path) -> dict[str, str]:
    """The kit's, with the password file that operators have; ``root`` is an administrator."""
    return base_settings_in(folder) | {"smsgw.plugins": "htpasswd allow", "smsgw.htpasswd.path": str(passwords)}


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    return write_passwords(tmp_path)


@pytest.fixture
def base_settings(tmp_path: Path, password_file: Path) -> dict[str, str]:
    return settings_in(tmp_path, password_file)


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway of ``base_settings``, for all tests of a module that leave nothing in its spool."""
    folder = tmp_path_factory.mktemp("shared")
    with running(settings_in(folder, write_passwords(folder))) as gateway:
        yield gateway


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """The gateway of ``base_settings``; one for several tests where they are marked ``shared``."""
    if request.node.get_closest_marker("shared") is None:
        yield request.getfixturevalue("make_gateway")()
        return
    gateway: Gateway = request.getfixturevalue("shared_gateway")
    yield gateway
    assert {kind: gateway.files(kind) for kind in KINDS} == {kind: {} for kind in KINDS}, "this test is not 'shared'"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """One for all tests; one that must be stopped is a test's own."""
    with Postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database of each kind, as ``smsgw.store`` names it."""
    return new_database(request, tmp_path)


def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the kind that a fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite3'}"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install an organisation's distribution: a module, and the plugins in it by name and class."""
    modules: list[str] = []

    def install(name: str, source: str, **plugins: str) -> None:
        folder = tmp_path / "site" / name
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entries = "".join(f"{plugin} = {name}:{cls}\n" for plugin, cls in plugins.items())
        (metadata / "entry_points.txt").write_text(f"[smsgw.plugins]\n{entries}")
        (folder / f"{name}.py").write_text(source)
        modules.append(name)
        monkeypatch.syspath_prepend(folder)

    yield install
    for name in modules:
        sys.modules.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where the full suite is run, nothing may be missing: a skip is a failure there.

    What the machine itself does not allow, such as containers within a container, is ``pytest.xfail``, and none.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which the full suite forbids: {report.longrepr}"
    return report
