"""Tables that change from version to version: what plugins' scripts make, of old databases and of new ones."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, Table, Text, text

from smsgw import migrations
from smsgw.journal import tables as journal
from smsgw.model import ConfigurationError, Unavailable
from smsgw.store import Store
from smsgw_plugins.quota import counters
from smsgw_plugins.token import table
from smsgw_plugins.webhooks import table as webhooks

ROOT = Path(__file__).parent.parent
SHIPPED = {
    "journal": (journal.TABLES, journal.SCRIPTS),
    "quota": (counters.TABLES, counters.SCRIPTS),
    "token": (table.TABLES, table.SCRIPTS),
    "webhooks": (webhooks.TABLES, webhooks.SCRIPTS),
}

FIRST = """
from sqlalchemy import Column, Integer

revision, down_revision = "v001", None


def upgrade(op):
    op.create_table("acme_words", Column("number", Integer, primary_key=True), if_not_exists=True)
"""
SECOND = """
from sqlalchemy import Column, Text

revision, down_revision = "v002", "v001"


def upgrade(op):
    op.add_column("acme_words", Column("word", Text, nullable=False, server_default="none"))
"""
TABLES, OLD_TABLES = MetaData(), MetaData()
Table("acme_words", OLD_TABLES, Column("number", Integer, primary_key=True))
Table("acme_words", TABLES, Column("number", Integer, primary_key=True), Column("word", Text, nullable=False))


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Those of a plugin whose tables had another version before."""
    folder = tmp_path / "acme" / "migrations"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "v001.py").write_text(FIRST)
    (folder / "v002.py").write_text(SECOND)
    return folder


@pytest.fixture
def store(store_url: str, scripts: Path) -> Iterator[Store]:
    store = Store(store_url)
    store.keep(TABLES, scripts)
    yield store
    store.close()


def words(store: Store) -> list[tuple[int, str]]:
    with store.begin(is_reading=True) as connection:
        return [tuple(row) for row in connection.execute(text("SELECT number, word FROM acme_words ORDER BY number"))]


def before(url: str, *statements: str, scripts: Path | None = None) -> None:
    """What an older version of the plugin did to the database, without scripts or with these."""
    store = Store(url)
    store.keep(OLD_TABLES, scripts)
    with store.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    store.close()


@pytest.mark.parametrize("plugin", SHIPPED)
def test_scripts_make_what_the_plugin_expects(store_url: str, plugin: str) -> None:
    tables, scripts = SHIPPED[plugin]
    store = Store(store_url)
    with store.begin() as connection:
        migrations.upgrade(connection, scripts)
        names = sqlalchemy.inspect(connection).get_table_names()
        assert migrations.is_current(connection, scripts, names)
        options = {"compare_type": True, "version_table": migrations.version_table(scripts)}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables) == []
    store.close()


def test_all_scripts_are_looked_at_here() -> None:
    folders = [*ROOT.glob("plugins/*/migrations"), *ROOT.glob("smsgw/*/migrations")]
    assert {path.parent.name for path in folders} == SHIPPED.keys()


@pytest.mark.parametrize("plugin", SHIPPED)
def test_the_latest_script_is_that_of_the_latest_name(plugin: str) -> None:
    """By the name alone it is found out whether there is something to do."""
    _, folder = SHIPPED[plugin]
    scripts = ScriptDirectory(folder, version_locations=[folder])
    files = sorted(path.stem for path in folder.glob("v*.py"))
    assert [script.revision for script in scripts.walk_revisions()] == files[::-1]


@pytest.mark.parametrize("plugin", ["quota", "token"])
def test_databases_that_are_older_than_migrations(store_url: str, plugin: str) -> None:
    tables, scripts = SHIPPED[plugin]
    for kept in (None, scripts, scripts):
        store = Store(store_url)
        store.keep(tables, kept)
        with store.begin() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            assert (f"alembic_version_{plugin}" in names) == (kept is not None)
        store.close()


def test_the_examples_of_the_documents(store_url: str, tmp_path: Path) -> None:
    recipe = (ROOT / "docs" / "recipes.md").read_text().partition("## Exactly once\n")[2]
    reference = (ROOT / "docs" / "plugin-reference.md").read_text().partition("## The store\n")[2]
    examples = [re.findall(r"```python\n(.*?)```", text, re.S)[0] for text in (recipe, reference)]
    namespace: dict[str, MetaData] = {}
    exec(examples[0], namespace)
    folder = tmp_path / "smsgw_tally" / "migrations"
    folder.mkdir(parents=True)
    (folder / "v001.py").write_text(examples[1])
    for scripts in (None, folder):
        store = Store(store_url)
        store.keep(namespace["TABLES"], scripts)
        with store.begin() as connection:
            options = {"version_table": migrations.version_table(folder)}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), namespace["TABLES"]) == []
        store.close()


def test_a_new_database(store: Store) -> None:
    assert words(store) == []
    with store.begin() as connection:
        connection.execute(text("INSERT INTO acme_words VALUES (1, 'one')"))
    assert words(store) == [(1, "one")]


@pytest.mark.parametrize("has_scripts", [False, True])
def test_an_old_database(store: Store, store_url: str, scripts: Path, has_scripts: bool) -> None:
    latest = (scripts / "v002.py").rename(scripts / "later")
    before(store_url, "INSERT INTO acme_words VALUES (1)", scripts=scripts if has_scripts else None)
    latest.rename(scripts / "v002.py")
    assert words(store) == [(1, "none")]


def test_a_database_of_a_newer_version(store: Store, store_url: str, scripts: Path) -> None:
    assert words(store) == []
    (scripts / "v002.py").unlink()
    older = Store(store_url)
    older.keep(OLD_TABLES, scripts)
    for is_reading in (False, True):
        with pytest.raises(Unavailable) as error, older.begin(is_reading=is_reading):
            pass
        assert isinstance(error.value.__cause__, ConfigurationError)
        assert "'acme' in smsgw.store are of version v002, which is newer" in str(error.value.__cause__)
    (scripts / "v002.py").write_text(SECOND)
    with older.begin():
        pass
    older.close()


def test_a_script_that_fails_changes_nothing(store: Store, store_url: str, scripts: Path) -> None:
    (scripts / "v002.py").write_text(SECOND + "    op.execute('INSERT INTO nothing VALUES (1)')\n")
    with pytest.raises(Unavailable):
        words(store)
    other = Store(store_url)
    with other.begin(is_reading=True) as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
    other.close()
    (scripts / "v002.py").write_text(SECOND)
    assert words(store) == []


def test_threads_and_stores_of_one_process(store_url: str, scripts: Path) -> None:
    stores = [Store(store_url) for _ in range(4)]
    barrier = Barrier(8)

    def ask(number: int) -> list[tuple[int, str]]:
        barrier.wait()
        return words(stores[number % 4])

    for each in stores:
        each.keep(TABLES, scripts)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [[]] * 8
    for each in stores:
        each.close()


SCRIPT = """
import sys
from pathlib import Path
from sqlalchemy import MetaData, text
from smsgw.store import Store

store = Store(sys.argv[1])
store.keep(MetaData(), Path(sys.argv[2]))
sys.stdin.read()
with store.begin() as connection:
    connection.execute(text("INSERT INTO acme_words VALUES (:number, 'word')"), {"number": int(sys.argv[3])})
store.close()
print("alembic" in sys.modules)
"""


def test_several_processes(store: Store, store_url: str, scripts: Path) -> None:
    """One of them at least has to apply the scripts; where they were, nobody even loads Alembic."""
    command, pipe = [sys.executable, "-W", "ignore", "-c", SCRIPT, store_url, str(scripts)], subprocess.PIPE
    processes = [
        subprocess.Popen([*command, str(n)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) for n in (1, 2, 3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    replies = [process.communicate() for process in processes]
    assert ("True\n", "") in replies
    assert {errors for _, errors in replies} == {""}
    late = subprocess.run([*command, "4"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert late.stdout == "False\n"
    assert words(store) == [(number, "word") for number in (1, 2, 3, 4)]


def test_the_log_stays_as_it_was_set_up(store: Store) -> None:
    root, ours = logging.getLogger(), logging.getLogger("smsgw.store")
    before = root.level, list(root.handlers), root.disabled, ours.disabled
    assert words(store) == []
    assert (root.level, list(root.handlers), root.disabled, ours.disabled) == before
