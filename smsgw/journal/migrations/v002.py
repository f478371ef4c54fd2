"""What is wrong with modems and queues."""

from __future__ import annotations

from alembic.operations import Operations

from smsgw.journal.tables import ALARMS

revision, down_revision = "v002", "v001"


def upgrade(op: Operations) -> None:
    ALARMS.create(op.get_bind())
