"""A file is written and moved alike in C and in Python; without a compiler the gateway works all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.spool.sending import put_file
from smsgw.spool.sending.put_file import PutFile, in_python

BOTH = [pytest.param(in_python, id="Python"), pytest.param(put_file.fastest, id="C")]


@pytest.fixture(params=BOTH)
def put(request: pytest.FixtureRequest) -> PutFile:
    found: PutFile = request.param
    if request.node.callspec.id.endswith("C") and found is in_python:
        pytest.skip("a C compiler, when smsgw was installed: there is none of it")
    return found


@pytest.fixture
def made(tmp_path: Path) -> Iterator[int]:
    """A folder to make files in."""
    (tmp_path / "made").mkdir()
    fd = os.open(tmp_path / "made", os.O_RDONLY)
    yield fd
    os.close(fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_is_whole_where_it_shall_be(put: PutFile, made: int, tmp_path: Path) -> None:
    (tmp_path / "outgöing \udcff").mkdir()
    for size in (0, 1, 70_000, 5_000_000):
        content = os.urandom(size)
        target = tmp_path / "outgöing \udcff" / str(size)
        put(made, "a", content, 0o640, True, True, str(target))
        assert target.read_bytes() == content
        assert target.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(made) == []


def test_without_a_target_it_stays(put: PutFile, made: int, tmp_path: Path) -> None:
    put(made, "a", b"x", 0o600, False, False, "")
    assert (tmp_path / "made" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("must_chmod", [False, True])
def test_its_mode(put: PutFile, made: int, tmp_path: Path, must_chmod: bool) -> None:
    before = os.umask(0o027)
    try:
        put(made, "a", b"x", 0o666, must_chmod, False, str(tmp_path / "b"))
    finally:
        os.umask(before)
    assert (tmp_path / "b").stat().st_mode & 0o777 == (0o666 if must_chmod else 0o640)


def test_it_is_not_inherited_by_children(put: PutFile, made: int, tmp_path: Path) -> None:
    before = descriptors()
    put(made, "a", b"x", 0o600, False, False, "")
    with pytest.raises(FileExistsError):
        put(made, "a", b"y", 0o600, False, False, str(tmp_path / "b"))
    with pytest.raises(FileNotFoundError):
        put(made, "b", b"y", 0o600, False, False, str(tmp_path / "none" / "b"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        put(-5, "c", b"y", 0o600, False, False, "")
    assert descriptors() == before
    assert (tmp_path / "made" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["", ".", "x" * 256, "none/a"])
def test_names_that_cannot_be(put: PutFile, made: int, name: str) -> None:
    with pytest.raises(OSError, match=r"\[Errno \d+\]"):
        put(made, name, b"x", 0o600, False, False, "")
    assert os.listdir(made) == []


@pytest.mark.parametrize(("name", "target"), [("a\0b", ""), ("a", "b\0c")])
def test_a_nul_in_a_name(put: PutFile, made: int, name: str, target: str) -> None:
    with pytest.raises(ValueError, match="null"):
        put(made, name, b"x", 0o600, False, False, target)


@given(st.binary(max_size=5000))
def test_both_write_the_same(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fd = os.open(folder, os.O_RDONLY)
        try:
            for name, put in (("python", in_python), ("fastest", put_file.fastest)):
                put(fd, f".{name}", content, 0o600, False, False, f"{folder}/{name}")
        finally:
            os.close(fd)
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == {
            "python": content,
            "fastest": content,
        }


def test_without_the_part_in_c_it_is_done_in_python() -> None:
    code = (
        "import sys; sys.modules['smsgw.spool.sending._put_file'] = None; "
        "from smsgw.spool.sending import put_file; print(put_file.fastest.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "in_python\n"
