"""smsd's folders, and what smsgw keeps beside them: where messages are. Knows no HTTP."""

from __future__ import annotations

from pathlib import Path

from smsgw.model import ConfigurationError
from smsgw.settings import Settings
from smsgw.spool.layout import Layout, from_folder, from_smsd_conf


def find_layout(settings: Settings) -> Layout:
    """:raises ConfigurationError: the settings and smsd's file do not go together."""
    state = Path(settings.state) if settings.state else None
    if settings.smsd_conf:
        layout = from_smsd_conf(Path(settings.smsd_conf), state)
    else:
        layout = from_folder(Path(settings.spool or ""), state)
    folders = [folder for folders in layout.folders.values() for folder in folders]
    if layout.state in folders:
        raise ConfigurationError(
            f"smsgw.state is {layout.state}, which is smsd's own folder; give smsgw one of its own"
        )
    if not all(folder.is_absolute() for folder in (layout.state, *folders)):
        raise ConfigurationError("the spool's folders need absolute paths; in an ini file %(here)s is its own folder")
    if not _on_one_file_system(layout):
        raise ConfigurationError(
            f"smsgw.state, {layout.state}, is not on the file system of {layout.outgoing}; put it there"
        )
    if settings.default_queue and layout.queues is not None and settings.default_queue not in layout.queues:
        known = ", ".join(layout.queues) or "none"
        raise ConfigurationError(f"smsgw.default_queue is {settings.default_queue!r}, and smsd's queues are: {known}")
    return layout


def _on_one_file_system(layout: Layout) -> bool:
    """Whether files can be renamed from smsgw's own folder into ``outgoing``, as far as both are there."""
    state = layout.state if layout.state.exists() else layout.state.parent
    try:
        return layout.outgoing.stat().st_dev == state.stat().st_dev
    except OSError:
        return True
