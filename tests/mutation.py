"""Do the tests find faults? Changes one thing at a time in a copy of a module, and runs the tests that belong to it.

    python -m tests.mutation smsgw/numbers.py --count 40 --seed 1

The same seed takes the same changes. A change that no test finds has survived, and is printed. The tree stays as it is.

What is written for people is left alone: what a log or an error says, and the descriptions of settings. So are the
constants of a module that are so many seconds or bytes, where a little more or less is as good.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parent.parent
NEEDED = ("smsgw", "plugins", "tests", "docs", "pytest.ini", "production.ini", "development.ini", "README.md")
CHOSEN, TIMES, FAILED = "chosen", "times", "failed"  # files in a copy: the tests to run; what came of them

# The tests of each module, or of all modules in a folder; the quickest first, since the first failure is enough.
TESTS = {
    "smsgw/numbers.py": ["tests/test_numbers.py", "tests/plugins/test_whitelist.py", "tests/test_v1.py"],
    "smsgw/text.py": ["tests/test_text.py", "tests/plugins/test_limit.py", "tests/plugins/test_transforms.py"],
    "smsgw/guessing.py": ["tests/test_security.py::TestGuessing"],
    "smsgw/security.py": ["tests/test_security.py", "tests/test_credentials.py", "tests/test_plugins.py::TestPolicies"],
    "smsgw/gateway.py": [
        *("tests/test_gateway.py", "tests/test_idempotency.py", "tests/test_plugins.py::TestTransforms"),
        *("tests/test_plugins.py::TestPolicies", "tests/test_v2.py::TestSend", "tests/test_v2.py::TestOnce"),
        *("tests/test_v2.py::TestMe", "tests/test_v2.py::TestPreview", "tests/test_delivery.py"),
    ],
    "smsgw/spool": [
        *("tests/test_spool_file.py", "tests/test_layout.py", "tests/test_owner.py", "tests/test_put_file.py"),
        *("tests/test_idempotency.py", "tests/test_v2.py::TestSend", "tests/test_v2.py::TestRead"),
        *("tests/test_v2.py::TestCancel", "tests/test_v2.py::TestSearch", "tests/test_feeder.py"),
        *("tests/test_forks.py", "tests/test_faults.py", "tests/test_sync_faults.py", "tests/test_power_cut.py"),
    ],
    "smsgw/spool/following": [
        *("tests/test_reports.py", "tests/test_follower.py", "tests/test_journal.py", "tests/test_journal_faults.py"),
    ],
    "smsgw/journal": [
        *("tests/test_journal.py", "tests/test_reports.py", "tests/test_retention.py", "tests/test_v2.py::TestSearch"),
        *("tests/test_v2.py::TestInbox", "tests/test_journal_faults.py"),
    ],
    "plugins/htpasswd.py": ["tests/plugins/test_htpasswd.py"],
    "plugins/token": ["tests/plugins/test_token.py"],
    "plugins/jwt": ["tests/plugins/test_jwt.py"],
    "plugins/ldap": ["tests/plugins/test_ldap.py", "tests/plugins/test_ldap_faults.py"],
}
# Of processes that are killed, disks that fill up, servers that fail: minutes for each change.
SLOW = {
    f"tests/{name}" for name in ("test_faults.py", "test_sync_faults.py", "test_power_cut.py", "test_journal_faults.py")
}

_AMOUNT = re.compile(r"_?[A-Z_]+ = [0-9][0-9. _*]*# .*(seconds|bytes)")

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
    """One change of a module: which node of its tree is another, by its number, and which of the alternatives it is."""

    module: str
    node: int
    alternative: int

    def make(self, source: str) -> tuple[str, int, str]:
        """The whole changed source; the line, and what stood there and what stands there now."""
        tree = ast.parse(source)
        target = list(_code(tree, _amounts(source)))[self.node]
        alternative = _alternatives(target)[self.alternative]
        line: int = target.lineno  # type: ignore[attr-defined]
        text = f"{ast.unparse(target)!r} -> {ast.unparse(alternative)!r}"
        _replace(tree, target, alternative)
        return ast.unparse(ast.fix_missing_locations(tree)), line, text


def changes(module: str, source: str) -> list[Change]:
    """All changes of a module that are known here, in the order of its lines."""
    nodes = list(_code(ast.parse(source), _amounts(source)))
    found = [
        Change(module, place, number) for place, node in enumerate(nodes) for number in range(len(_alternatives(node)))
    ]
    return sorted(found, key=lambda change: nodes[change.node].lineno)  # type: ignore[attr-defined]


def _amounts(source: str) -> set[int]:
    """The lines of constants that are so many seconds or bytes, by their comments."""
    lines = source.splitlines()
    return {number for number, line in enumerate(lines, 1) if _AMOUNT.match(line)}


def _code(tree: ast.AST, amounts: set[int]) -> Iterator[ast.AST]:
    """The nodes of what runs: no annotations, docstrings or imports, nothing for people, and no amounts."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                continue
            if _is_for_people(tree, child) or (isinstance(child, ast.Assign) and child.lineno in amounts):
                continue
            yield child
            yield from _code(child, amounts)


def _is_for_people(parent: ast.AST, child: ast.AST) -> bool:
    """Whether that is a docstring, an argument of a log line, words such as an error says, or a description."""
    match parent, child:
        case ast.Expr(), ast.Constant():
            return True
        case ast.Call(ast.Attribute(ast.Name("log"))), _:
            return True
        case ast.Call(ast.Name()), ast.Constant(str(text)):
            return bool(re.search(r"\w \w", text))
        case ast.keyword("description"), _:
            return True
    return False


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

    def fails(self, module: str, source: str, tests: Sequence[str], chosen: Sequence[str], seconds: float) -> bool:
        """Whether one of those chosen fails, or they take longer than that, where the module has that source."""
        path = self._folder / module
        original = path.read_text()
        path.write_text(source)
        (self._folder / CHOSEN).write_text("\n".join(chosen))
        (self._folder / FAILED).unlink(missing_ok=True)
        try:
            return self._run(["-x", "-p", "tests.mutation", *tests], seconds) not in (
                0,
                pytest.ExitCode.NO_TESTS_COLLECTED,
            )
        finally:
            path.write_text(original)

    def finders(self) -> list[str]:
        """The tests that failed, unless the run ended before."""
        failed = self._folder / FAILED
        return failed.read_text().splitlines() if failed.exists() else []

    def reached(self, tests: Sequence[str], seconds: float) -> Reached:
        """What those tests run without any change.

        :raises SystemExit: one fails.
        """
        (self._folder / CHOSEN).write_text("")
        options = ["-p", "tests.mutation", "--cov=smsgw", "--cov=smsgw_plugins", "--cov-context=test", "--cov-report="]
        if self._run([*options, "-W", "ignore::coverage.exceptions.CoverageWarning", *tests], seconds):
            end = "\n".join((self._folder / "out").read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"{end}\nthey fail, or take too long, without any change: {' '.join(tests)}")
        lines = coverage.CoverageData(str(self._folder / ".coverage"))
        lines.read()
        times: dict[str, float] = json.loads((self._folder / TIMES).read_text())
        return Reached(self._folder.resolve(), lines, times, Counter())

    def _run(self, options: Sequence[str], seconds: float) -> int:
        always = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={self._folder / 'tmp'}"]
        environ = {**os.environ, "PYTHONPATH": str(self._folder), "SMSGW_TESTS": "sample"}
        if "-x" in options:  # what is not changed was compiled without any change
            environ["PYTHONDONTWRITEBYTECODE"] = "1"
        with open(self._folder / "out", "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *always, *options],
                cwd=self._folder,
                env=environ,
                stdout=output,
                stderr=output,
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


@dataclass(frozen=True)
class Reached:
    """Which tests run which lines of a tree, and how long each test takes."""

    folder: Path
    lines: coverage.CoverageData
    times: dict[str, float]
    finders: Counter[str]

    def tests(self, module: str, line: int) -> list[str]:
        """Those that run that line; all, where it is run outside of them or in another process.

        Those that found a change before come first, then file after file, and the quickest of each.
        """
        contexts = self.lines.contexts_by_lineno(str(self.folder / module)).get(line, [])
        names = {context.rpartition("|")[0] for context in contexts}
        chosen = names if all(names) and names else self.times
        files = list(dict.fromkeys(name.partition("::")[0] for name in self.times))
        return sorted(
            chosen,
            key=lambda name: (-self.finders[name], files.index(name.partition("::")[0]), self.times.get(name, 0)),
        )


_times: dict[str, float] = defaultdict(float)
_failed: set[str] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As a plugin of pytest: run the tests that were chosen, in their order."""
    if chosen := Path(CHOSEN).read_text().split("\n") if Path(CHOSEN).stat().st_size else []:
        order = {name: number for number, name in enumerate(chosen)}
        items[:] = [item for item in items if item.nodeid in order]
        items.sort(key=lambda item: order[item.nodeid])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _times[report.nodeid] += report.duration
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    Path(TIMES).write_text(json.dumps(_times))
    Path(FAILED).write_text("\n".join(_failed))


def tests_of(module: str, is_quick: bool) -> tuple[str, ...]:
    """:raises SystemExit: no tests are listed for that module."""
    for name in (module, *map(str, Path(module).parents)):
        if name in TESTS:
            return tuple(test for test in TESTS[name] if not (is_quick and test in SLOW))
    raise SystemExit(f"{module}: tests/mutation.py lists no tests for this module")


def modules(target: str) -> list[str]:
    """That module, or all modules in that folder."""
    path = ROOT / target
    paths = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [str(each.relative_to(ROOT)) for each in paths if "migrations" not in each.parts]


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="modules or folders; without any, all that have tests listed")
    parser.add_argument("--count", type=int, default=10, help="changes of each module or folder (10)")
    parser.add_argument("--seed", type=int, default=0, help="which changes (0)")
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is begun (60)")
    parser.add_argument("--quick", action="store_true", help="without the tests that take minutes")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at once (one a core)")
    return parser.parse_args(words)


def try_target(target: str, asked: argparse.Namespace, copies: queue.Queue[Copy], until: float) -> Counter[bool | None]:
    """How many changes of a module or folder were found (``True``), survived (``False``), or were not tried in time."""
    sources = {module: (ROOT / module).read_text() for module in modules(target)}
    known = [change for module, source in sources.items() for change in changes(module, source)]
    chosen = random.Random(asked.seed).sample(known, min(asked.count, len(known)))
    reached = {}
    for tests in dict.fromkeys(tests_of(change.module, asked.quick) for change in chosen):
        one = copies.get()
        reached[tests] = one.reached(tests, until - time.monotonic())
        copies.put(one)

    def is_found(change: Change) -> bool | None:
        if time.monotonic() > until:
            return None
        tests = tests_of(change.module, asked.quick)
        source, line, text = change.make(sources[change.module])
        those = reached[tests].tests(change.module, line)
        seconds = 30 + 3 * sum(reached[tests].times.get(name, 0) for name in those)
        free = copies.get()
        try:
            found = free.fails(change.module, source, tests, those, seconds)
            reached[tests].finders.update(free.finders())
        finally:
            copies.put(free)
        if not found:
            print(f"  survived: {change.module}:{line}: {text}   ({len(those)} tests)", flush=True)
        return found

    with ThreadPoolExecutor(asked.jobs) as threads:
        ends = Counter(threads.map(is_found, chosen))
    print(f"{target}: {ends[True]} found, {ends[False]} survived, of {len(known)} changes", flush=True)
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
        for target in asked.targets or TESTS:
            if time.monotonic() < until:
                total += try_target(target, asked, copies, until)
    tried = total[True] + total[False]
    print(f"found {total[True]} of {tried} ({total[True] / max(1, tried):.0%}); not tried in time: {total[None]}")


if __name__ == "__main__":
    main(sys.argv[1:])
