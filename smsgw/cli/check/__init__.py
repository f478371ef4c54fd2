"""``smsgw check``: what would stop the gateway, what is wrong, and what is unwise.

A check is a function that yields findings about an installation. Each module has the checks of one subject.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from smsgw.cli.check import database, settings, smsd, spool
from smsgw.cli.check.finding import Check, Finding, Findings, Level, Topic
from smsgw.cli.installation import INI, INI_PATH, Wrong, install, one_line, sentence
from smsgw.cli.output import say
from smsgw.model import ConfigurationError

WORDS = {Level.OK: "ok", Level.WARNING: "warning", Level.ERROR: "error", Level.STOPS: "stops"}
SUMMARY = {
    Level.OK: "OK",
    Level.WARNING: "WARNING",
    Level.ERROR: "ERROR",
    Level.STOPS: "ERROR: the gateway would not start",
}
# In the order in which what they find is told. All but the first can do without a gateway that would start.
CHECKS: tuple[Check, ...] = (
    settings.check_order,
    settings.check_settings,
    spool.check_folders,
    spool.check_room,
    spool.check_waiting,
    smsd.check_settings,
    smsd.check_process,
    database.check_store,
)
TOPIC = Topic("settings")


class _Misused(click.UsageError):
    exit_code = 3  # 2 would mean an error of the gateway


class _Check(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _Misused(error.message, error.ctx) from error


@click.command(cls=_Check)
@click.argument("ini", metavar="[INI]", type=INI_PATH, envvar="SMSGW_INI", default=INI)
@click.option("--verbose", "-v", is_flag=True, help="Also tell what is in order.")
@click.option("--json", "as_json", is_flag=True, help="Tell everything as JSON.")
def check(ini: Path, verbose: bool, as_json: bool) -> None:
    """Tell what is wrong with the gateway of INI, and what to do.

    Looks at its settings, plugins, spool, smsd, database and server. Nothing is sent, and nothing is changed. It is run
    as the gateway's own user. The exit status is that of Nagios plugins: 0 when all is well, 1 with warnings, 2 with
    errors, 3 when the gateway would not start.
    """
    findings = list(look(ini))
    worst = max(finding.level for finding in findings)
    if as_json:
        click.echo(json.dumps(_object(worst, findings), indent=2))
    else:
        say(_summary(worst, findings))
        say(*(_line(finding) for finding in findings if verbose or finding.level))
    raise click.exceptions.Exit(int(worst))


def look(ini: Path) -> Findings:
    """All that is found about the gateway of that ini file."""
    try:
        installation = install(ini)
        layout = installation.layout
    except (Wrong, ConfigurationError) as error:
        yield TOPIC.stops(error.message if isinstance(error, Wrong) else str(error))
        yield from settings.check_server(ini, None)
        return
    yield TOPIC.ok(f"{ini}: the core's settings are in order, and the spool is {layout.outgoing.parent}")
    yield from settings.check_start(installation)
    for of_one_matter in CHECKS:
        try:
            yield from of_one_matter(installation)
        except OSError as error:
            yield TOPIC.error(
                f"{of_one_matter.__name__} could not look: {one_line(error)}", "Run it as the gateway's user."
            )
        except Exception as error:  # with a traceback the exit status would be 1, a warning
            yield TOPIC.stops(f"{of_one_matter.__name__} failed, which is a bug of smsgw: {one_line(error)}")
    yield from settings.check_server(ini, installation)


def _summary(worst: Level, findings: Sequence[Finding]) -> str:
    errors = sum(finding.level >= Level.ERROR for finding in findings)
    warnings = sum(finding.level == Level.WARNING for finding in findings)
    return f"{SUMMARY[worst]} ({_count(errors, 'error')}, {_count(warnings, 'warning')})"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _line(finding: Finding) -> str:
    text = f"{WORDS[finding.level]:8} {finding.topic}: {sentence(finding.sentence)}"
    return f"{text} {finding.remedy}".rstrip()


def _object(worst: Level, findings: Sequence[Finding]) -> dict[str, object]:
    told = [
        {
            "level": WORDS[found.level],
            "topic": found.topic,
            "sentence": sentence(found.sentence),
            "remedy": found.remedy,
        }
        for found in findings
    ]
    return {"status": int(worst), "findings": told}
