"""What a process does to a folder: noted call by call, and failing on demand, without a change to the process.

A small library stands before the C library (LD_PRELOAD in ld.so(8)), so that calls of Python and of C are seen alike.

    watch = Watch(tmp_path, folder)
    subprocess.run(command, env=os.environ | watch.environment)
    watch.notes()  # [Note("create", "/folder/a", ""), Note("write", "/folder/a", ""), Note("sync", "/folder/a", "")]
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class Note(NamedTuple):
    """One call: ``create``, ``mkdir``, ``unlink``, ``rename`` (to ``other``), ``write``, ``sync`` or ``sync all``."""

    word: str
    path: str
    other: str


class Watch:
    """What processes with this ``environment`` do to a folder.

    :param scratch: where the notes and the faults are kept, outside of the folder.
    """

    def __init__(self, scratch: Path, folder: Path) -> None:
        self.path, self._faults = scratch / "notes", scratch / "faults"
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "WATCHED": str(folder),
            "NOTES": str(self.path),
            "FAULTS": str(self._faults),
        }

    def fail(self, *faults: str) -> None:
        """From now on, calls fail as these lines say, and no others.

        ``sync FOLDER``: to sync it fails with EIO; ``sync *``: to sync anything. ``hold FOLDER``: to sync it takes
        until this line is gone. ``read-only FOLDER``: when it is synced, and from then on, nothing can be changed or
        synced in the watched folder. ``change FOLDER``: no name can be changed in it. ``die FOLDER``: the process ends
        when it syncs it.
        """
        written = self._faults.with_suffix(".new")
        written.write_text("".join(f"{fault}\n" for fault in faults))
        written.rename(self._faults)

    def notes(self) -> list[Note]:
        return [Note(*line.split("\t")) for line in self.path.read_text().splitlines()]


@functools.cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler (cc)")
    folder = Path(tempfile.mkdtemp())
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "filesystem.so", SOURCE, "-ldl"], check=True)
    return folder / "filesystem.so"
