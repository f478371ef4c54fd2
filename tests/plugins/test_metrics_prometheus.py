"""A real Prometheus scrapes a gateway beside a real smsd: the dashboard's queries, the alerts, and docs/metrics.md."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import eventually, settings_in, write_passwords
from tests.server import Server, free_port
from tests.smsd.server import Smsd
from tests.tmpfs import need

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = ROOT / "monitoring" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "monitoring" / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def cells(heading: str) -> dict[str, set[str]]:
    """The first cell of each row of the table under that heading, and the words in the second."""
    part = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", part, re.M)
    return {first: set(re.findall(r"`(\w+)`", second)) for first, second in rows}


def test_the_document_has_every_alert() -> None:
    assert list(cells("Alerts")) == re.findall(r"- alert: (\w+)", ALERTS.read_text())


def test_the_alerts(tmp_path: Path) -> None:
    need("promtool")
    for path in (ALERTS, Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(path, tmp_path)
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        ran = subprocess.run(["promtool", *command], cwd=tmp_path, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


class Prometheus:
    """A Prometheus that scrapes a gateway every second, as docs/metrics.md configures it."""

    def __init__(self, folder: Path, gateway: Server) -> None:
        self._folder = folder
        self._port = free_port()
        (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.S)
        assert "127.0.0.1:5000" in text
        text = text.replace("127.0.0.1:5000", f"127.0.0.1:{gateway.port}").replace("15s", "1s")
        (folder / "prometheus.yml").write_text(text)
        shutil.copy(ALERTS, folder / "smsgw-alerts.yml")

    def __enter__(self) -> Prometheus:
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]
        options.append(f"--web.listen-address=127.0.0.1:{self._port}")
        self._log = open(self._folder / "log", "wb")
        self._process = subprocess.Popen(
            ["prometheus", *options], cwd=self._folder, stdout=self._log, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, path: str, **query: str) -> Any:
        """The answer of its API; ``None``: it is not there yet."""
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=30) as reply:
                return json.load(reply)["data"]
        except ConnectionError:
            return None
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(error.read().decode()) from None
        except urllib.error.URLError:
            return None

    def numbers(self, query: str) -> list[float]:
        """What a query gives, without what is no number."""
        found = self.ask("query", query=query)
        values = [float(each["value"][1]) for each in found["result"]] if found else []
        return [value for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway that has sent, received and failed to send."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "smsd").mkdir()
    (folder / "stats").mkdir()
    with Smsd(folder / "smsd", extra=f"stats = {folder / 'stats'}\n") as smsd:
        settings = settings_in(folder, write_passwords(folder)) | {"smsgw.smsd_conf": str(smsd.conf)}
        settings |= {"smsgw.plugins": "htpasswd allow metrics webhooks", "smsgw.metrics.by_user": "true"}
        del settings["smsgw.spool"]
        with Server(folder, settings) as server:
            server.send(["79680000000"])
            failed = smsd.spool / "failed" / "other.1"
            failed.write_text("To: 79990000000\nFail_reason: +CMS ERROR: 38\nFailed: 26-11-29 10:00:00\n\nHi")
            yield server


@pytest.fixture(scope="module")
def prometheus(gateway: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    need("prometheus")
    with Prometheus(tmp_path_factory.mktemp("prometheus"), gateway) as found:
        eventually(lambda: found.numbers('up{job="smsgw"}') == [1])
        yield found


def served(gateway: Server) -> dict[str, set[str]]:
    """Each metric, as docs/metrics.md names it, and its labels."""
    found = {}
    for family in text_string_to_metric_families(gateway.request("GET", "/metrics", user=None).body.decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert family.samples or family.type == "counter", name
        assert len(family.documentation) > 10
    return found


def test_the_document_has_every_metric_with_its_labels(gateway: Server) -> None:
    """As it is once there was something of each."""
    eventually(lambda: served(gateway)["smsgw_modem_sent_total"] and served(gateway)["smsgw_modem_failed_total"])
    eventually(lambda: served(gateway)["smsgw_failures_total"] and served(gateway)["smsgw_user_messages_total"])
    assert served(gateway) == cells("What there is")


def test_every_metric_keeps_the_conventions(gateway: Server) -> None:
    text = gateway.request("GET", "/metrics", user=None).body
    ran = subprocess.run(["promtool", "check", "metrics"], input=text, check=False, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_every_query_of_the_dashboard_has_an_answer(gateway: Server, prometheus: Prometheus) -> None:
    """While there is something to see: a message is sent, and one is refused, at each look."""
    missing = [query.replace("$instance", ".*") for query in QUERIES]
    assert len(missing) == len(set(missing)) > 25

    def all_answered() -> bool:
        gateway.send(["79680000000"])
        gateway.send(["x"])
        missing[:] = [query for query in missing if not prometheus.numbers(query)]
        return not missing

    try:
        eventually(all_answered)
    except AssertionError:
        raise AssertionError(f"without data: {missing}") from None


def test_prometheus_takes_the_alerts(prometheus: Prometheus) -> None:
    (group,) = prometheus.ask("rules")["groups"]
    assert len(group["rules"]) == len(cells("Alerts"))
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}


def test_the_dashboard_names_metrics_that_are_served(gateway: Server) -> None:
    names = {name for query in QUERIES for name in re.findall(r"smsgw_\w+", query)}
    suffixes = re.compile(r"_(bucket|count|sum)$")
    assert {suffixes.sub("", name) if "duration" in name else name for name in names} <= served(gateway).keys()
