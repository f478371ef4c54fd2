"""Changes to plugins' tables from one version to the next: Alembic's scripts. Called by the store that has the tables.

The scripts lie in a folder of the plugin's package, ``v001.py``, ``v002.py`` and so on; each says what it is by
``revision`` and ``down_revision``, and has a function ``upgrade(op)``, ``op`` being Alembic's ``Operations``. Which one
a database has come to stands in a table of the plugin's own, ``alembic_version_<package>``.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from pathlib import Path

from sqlalchemy import Connection, column, select, table

from smsgw.model import ConfigurationError


def version_table(folder: Path) -> str:
    return f"alembic_version_{folder.parent.name}"


def is_current(connection: Connection, folder: Path, names: Collection[str]) -> bool:
    """Whether nothing is to be done.

    :param names: of the tables that are in the database.
    """
    name = version_table(folder)
    latest = max(path.stem for path in folder.glob("v[0-9]*.py"))
    return name in names and connection.scalar(select(column("version_num")).select_from(table(name))) == latest


def load() -> None:
    """Load Alembic, which takes a while, before a transaction in which others wait."""
    importlib.import_module("alembic.script")


def upgrade(connection: Connection, folder: Path) -> None:
    """Bring the tables to the latest version, within the connection's transaction, in which nobody else does.

    :raises ConfigurationError: they are of a version that is not known here.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(folder, version_locations=[folder])
    known = {script.revision for script in scripts.walk_revisions()}

    def steps(found: tuple[str, ...], _: MigrationContext) -> Iterable[RevisionStep]:
        if not known.issuperset(found):
            raise ConfigurationError(
                f"the tables of {folder.parent.name!r} in smsgw.store are of version {found[0]}, which is newer than "
                "what is installed here; install the newer one"
            )
        missing = list(scripts.iterate_revisions("head", found or "base", implicit_base=True))
        return [MigrationStep.upgrade_from_script(scripts.revision_map, script) for script in reversed(missing)]

    context = MigrationContext.configure(connection, opts={"version_table": version_table(folder), "fn": steps})
    context.run_migrations(op=Operations(context))  # and not through ``alembic.op``, which all threads share
