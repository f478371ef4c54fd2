"""What a webhook was made with, and when its maker last signed in.

Of webhooks that are there already nobody knows either. So their makers count as not having signed in since: the
webhooks tell them of their own messages alone, until they do.
"""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, Text

revision, down_revision = "v002", "v001"


def upgrade(op: Operations) -> None:
    op.add_column("webhooks", Column("credential", Text))
    op.add_column("webhooks", Column("signed_in", BigInteger, nullable=False, server_default="0"))
