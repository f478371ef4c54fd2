"""All tables of the journal, as `smsgw.journal.tables` has them.

The script of the next version has to leave the tables of this one here, written out.
"""

from __future__ import annotations

from alembic.operations import Operations

from smsgw.journal.tables import TABLES

revision, down_revision = "v001", None


def upgrade(op: Operations) -> None:
    TABLES.create_all(op.get_bind())
