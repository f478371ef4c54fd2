"""Do the tests find faults? Changes one thing at a time in a copy of a module, and runs the tests that belong to it.

    python -m tests.mutation smsgw/numbers.py --count 40 --seed 1

The same seed takes the same changes. A change that no test finds has survived, and is printed. The tree stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = ("smsgw", "plugins", "tests", "docs", "pytest.ini", "production.ini", "development.ini", "README.md")

# The tests of each module, or of all modules in a folder; the quickest first, since the first failure is enough.
TESTS = {
    "smsgw/numbers.py": ["tests/test_numbers.py", "tests/plugins/test_whitelist.py", "tests/test_v1.py"],
    "smsgw/text.py": ["tests/test_text.py", "tests/plugins/test_limit.py", "tests/plugins/test_transforms.py"],
    "smsgw/guessing.py": ["tests/test_security.py"],
    "smsgw/security.py": ["tests/test_security.py", "tests/test_users.py", "tests/test_v1.py"],
    "smsgw/gateway.py": ["tests/test_v1.py", "tests/test_v2.py", "tests/test_plugins.py"],
    "smsgw/spool": [
        *("tests/test_spool_file.py", "tests/test_layout.py", "tests/test_owner.py"),
        *("tests/test_put_file.py", "tests/test_v1.py", "tests/test_feeder.py"),
    ],
    "plugins/htpasswd.py": ["tests/plugins/test_htpasswd.py"],
    "plugins/token": ["tests/plugins/test_token.py"],
    "plugins/jwt": ["tests/plugins/test_jwt.py"],
    "plugins/ldap": ["tests/plugins/test_ldap.py", "tests/plugins/test_ldap_faults.py"],
}

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True)
class Change:
    """One change of a module: its line, what stood there and what stands there now, and the whole changed source."""

    line: int
    before: str
    after: str
    source: str


def changes(source: str) -> list[Change]:
    """All changes of a module that are known here, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for place, node in enumerate(_code(tree)):
        for number in range(len(_alternatives(node))):
            changed = copy.deepcopy(tree)
            target = list(_code(changed))[place]
            alternative = _alternatives(target)[number]
            before = ast.unparse(target)
            _replace(changed, target, alternative)
            new = ast.unparse(ast.fix_missing_locations(changed))
            found.append(Change(node.lineno, before, ast.unparse(alternative), new))  # type: ignore[attr-defined]
    return sorted(found, key=lambda change: change.line)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what runs: no annotations, docstrings or imports."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            yield child
            yield from _code(child)


def _alternatives(node: ast.AST) -> list[ast.AST]:
    """What may stand in place of a node."""
    found: list[ast.AST] = []
    match node:
        case ast.Compare(left, [operator, *others], right) if type(operator) in COMPARISONS:
            found = [ast.Compare(left, [COMPARISONS[type(operator)](), *others], right)]
        case ast.BoolOp(operator, values):
            found = [ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)]
        case ast.UnaryOp(ast.Not(), operand):
            found = [operand]
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            found = [ast.BinOp(left, OPERATORS[type(operator)](), right)]
        case ast.Constant(bool(value)):
            found = [ast.Constant(not value)]
        case ast.Constant(int(value) | float(value)):
            found = [ast.Constant(value + 1)]
        case ast.Constant(str(value) | bytes(value)) if value:
            found = [ast.Constant(value[:-1])]
        case ast.If(test, body, otherwise) | ast.IfExp(test, body, otherwise):
            negated = ast.UnaryOp(ast.Not(), test)
            found = [type(node)(negated, body, otherwise)]  # type: ignore[arg-type]
        case ast.Return(ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            found = [ast.Return(ast.Constant(None))]
        case ast.Expr(ast.Call()) | ast.Raise() | ast.AugAssign():
            found = [ast.Pass()]
        case ast.Continue():
            found = [ast.Break()]
    return [ast.copy_location(alternative, node) for alternative in found]


def _replace(tree: ast.AST, target: ast.AST, alternative: ast.AST) -> None:
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if value is target:
                setattr(node, name, alternative)
            elif isinstance(value, list) and any(child is target for child in value):
                value[:] = [alternative if child is target else child for child in value]


class Copy:
    """A copy of the tree, in which one module at a time is another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        (folder / "smsgw_plugins").symlink_to("plugins")

    def fails(self, module: str, source: str, tests: Sequence[str], seconds: float) -> bool:
        """Whether a test fails, or they take longer than that, where the module has that source."""
        path = self._folder / module
        original = path.read_text()
        path.write_text(source)
        try:
            return self._run(tests, seconds) != 0
        finally:
            path.write_text(original)

    def _run(self, tests: Sequence[str], seconds: float) -> int:
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={self._folder / 'tmp'}"]
        environ = {**os.environ, "PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"}
        environ["SMSGW_TESTS"] = "sample"
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self._folder,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of them is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tests_of(module: str) -> list[str]:
    """:raises SystemExit: no tests are listed for that module."""
    for name in (module, *map(str, Path(module).parents)):
        if name in TESTS:
            return TESTS[name]
    raise SystemExit(f"{module}: tests/mutation.py lists no tests for this module")


def modules() -> list[str]:
    """All modules that tests are listed for."""
    found: list[str] = []
    for name in TESTS:
        path = ROOT / name
        paths = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [str(each.relative_to(ROOT)) for each in paths if "migrations" not in each.parts]
    return found


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.mutation", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("modules", nargs="*", help="such as smsgw/numbers.py; without any, all that have tests listed")
    parser.add_argument("--count", type=int, default=10, help="changes of each module (10)")
    parser.add_argument("--seed", type=int, default=0, help="which changes (0)")
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is begun (60)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at once (one a core)")
    return parser.parse_args(words)


def try_module(module: str, asked: argparse.Namespace, copies: queue.Queue[Copy], until: float) -> Counter[bool | None]:
    """How many changes of a module were found (``True``), survived (``False``), or were not tried in time."""
    source, tests, one = (ROOT / module).read_text(), tests_of(module), copies.get()
    begun = time.monotonic()
    if one.fails(module, source, tests, until - time.monotonic()):
        raise SystemExit(f"{module}: its tests fail, or take too long, without any change")
    seconds = 30 + 5 * (time.monotonic() - begun)
    copies.put(one)
    known = changes(source)
    chosen = random.Random(asked.seed).sample(known, min(asked.count, len(known)))

    def is_found(change: Change) -> bool | None:
        if time.monotonic() > until:
            return None
        free = copies.get()
        try:
            found = free.fails(module, change.source, tests, seconds)
        finally:
            copies.put(free)
        if not found:
            print(f"  survived: {module}:{change.line}: {change.before!r} -> {change.after!r}", flush=True)
        return found

    with ThreadPoolExecutor(asked.jobs) as threads:
        ends = Counter(threads.map(is_found, chosen))
    print(f"{module}: {ends[True]} found, {ends[False]} survived, of {len(known)} changes", flush=True)
    return ends


def main(words: Sequence[str]) -> None:
    asked = arguments(words)
    until = time.monotonic() + 60 * asked.minutes
    copies: queue.Queue[Copy] = queue.Queue()
    total: Counter[bool | None] = Counter()
    with tempfile.TemporaryDirectory(prefix="smsgw-mutation-") as folder:
        Path(folder).chmod(0o755)  # tests run programs as other users
        for number in range(asked.jobs):
            copies.put(Copy(Path(folder) / str(number)))
        for module in asked.modules or modules():
            if time.monotonic() < until:
                total += try_module(module, asked, copies, until)
    tried = total[True] + total[False]
    print(f"found {total[True]} of {tried} ({total[True] / max(1, tried):.0%}); not tried in time: {total[None]}")


if __name__ == "__main__":
    main(sys.argv[1:])
