"""When messages began: the place in time that they have in lists, here as in the folders."""

from __future__ import annotations

import os

from smsgw.model import Event
from smsgw.resources import Resources
from smsgw.spool.layout import Layout


class Beginnings:
    """Knows when each message of one spool began."""

    def __init__(self, layout: Layout, resources: Resources) -> None:
        self._layout = layout
        self._resources = resources

    def of(self, event: Event) -> int:
        """Milliseconds since 1970: of ours the id says so, of others' the file, while there is one."""
        message = event.message
        if (at := self._resources.accepted_at(message.id)) is not None:
            return round(at.timestamp() * 1000)
        for folder in self._layout.folders.get(message.kind, (self._layout.state / message.kind,)):
            try:
                return int(os.stat(folder / message.id, follow_symlinks=False).st_mtime * 1000)
            except OSError:
                continue
        return int(event.at.timestamp() * 1000)
