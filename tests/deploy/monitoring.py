"""Dashboard and alert rules: promtool judges and plays the rules, and every metric and label that they name
is one of the manual, which the tidy test holds against the code. The catalog's page is also asked for."""

import json
import os
import re
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import yaml

from common import CHART, ROOT, TOOLS, Problems, run

RULES = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
# Added by whoever scrapes, or by the recording of a histogram.
SCRAPED = {"instance", "job", "le", "alertname", "alertstate"}
ROW = re.compile(r"^\| `(terrace_\w+)` \| (\w+)[^|]*\| ([^|]*)\|", re.MULTILINE)
METRIC = re.compile(r"\b(terrace_\w+|up)\b")
SELECTOR = re.compile(r"\b(terrace_\w+)\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|without|on)\s*\(([^)]*)\)")


def manual() -> dict[str, set[str]]:
    """Metrics of the manual with their labels; a histogram's series too."""
    known = {}
    for name, kind, labels in ROW.findall((ROOT / "docs" / "OPERATIONS.md").read_text()):
        words = {word.strip() for word in labels.split(",") if word.strip()}
        known[name] = words
        if kind == "histogram":
            known |= {f"{name}_{part}": words for part in ("bucket", "sum", "count")}
    return known


def names(where: str, expression: str, known: dict, problems: Problems) -> set[str]:
    """Holds one expression against the manual; the metrics in it."""
    found = {name for name in METRIC.findall(expression) if name != "up"}
    for name in found:
        problems.check(name in known, f"{where}: the manual does not list {name}")
    for name, inside in SELECTOR.findall(expression):
        used = {part.strip() for part in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)}
        over = used - SCRAPED - known.get(name, set())
        problems.check(not over, f"{where}: {name} has no label {', '.join(sorted(over))}")
    labels = set().union(SCRAPED, *(known.get(name, set()) for name in found))
    for group in GROUPING.findall(expression):
        over = {word.strip() for word in group.split(",") if word.strip()} - labels
        problems.check(not over, f"{where}: grouped by {', '.join(sorted(over))}, which no metric in it has")
    return found


def rules(known: dict, problems: Problems) -> set[str]:
    used = set()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            used |= names(rule["alert"], rule["expr"], known, problems)
            problems.check(rule["labels"]["severity"] in ("critical", "warning", "info"), f"{rule['alert']}: severity")
            problems.check(set(rule["annotations"]) == {"summary", "description"}, f"{rule['alert']}: annotations")
    played = (ROOT / "tests" / "deploy" / "alerts.yaml").read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            problems.check(rule["alert"] in played, f"{rule['alert']} is never played")
    promtool = str(TOOLS / "promtool")
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "test.yaml").write_text(played.replace("RULES", str(RULES)))
        for argv in (["check", "rules", "--lint=all", "--lint-fatal", str(RULES)], ["test", "rules", f"{scratch}/test.yaml"]):
            done = run([promtool, *argv])
            problems.check(done.returncode == 0, f"promtool {' '.join(argv[:2])}: {done.stdout}{done.stderr}")
    return used


def dashboard(known: dict, problems: Problems) -> set[str]:
    used, ids = set(), set()
    board = json.loads(DASHBOARD.read_text())
    variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    for panel in board["panels"]:
        where = f"panel {panel['title']}"
        problems.check(panel["id"] not in ids, f"{where}: its id is another's too")
        ids.add(panel["id"])
        if panel["type"] == "row":
            continue
        problems.check(bool(panel["description"]) and bool(panel["fieldConfig"]["defaults"]["unit"]), f"{where}: no text or unit")
        for target in panel["targets"]:
            used |= names(where, target["expr"], known, problems)
            over = set(re.findall(r"\$\{?(\w+)", target["expr"])) - variables
            problems.check(not over, f"{where}: variables {over}")
            # promtool parses the expression once the dashboard's variables are values.
            plain = re.sub(r"\$__rate_interval", "5m", target["expr"]).replace("$instance", ".*")
            check = {"groups": [{"name": "panel", "rules": [{"record": "panel", "expr": plain}]}]}
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(yaml.safe_dump(check))
                file.flush()
                done = run([str(TOOLS / "promtool"), "check", "rules", file.name])
            problems.check(done.returncode == 0, f"{where}: {done.stderr}{done.stdout}")
    return used


def served(used: set[str], problems: Problems) -> None:
    """What a catalog that has just started exports, as Prometheus reads it."""
    with tempfile.TemporaryDirectory() as data:
        catalog = subprocess.Popen(
            [os.environ["TERRACE_BINARY"], "--log=error", "--run-dir", f"{data}/run", "catalog", "serve",
             "--data", f"{data}/data", "--listen", "127.0.0.1:0"], text=True, stdout=subprocess.PIPE)
        try:
            url = catalog.stdout.readline().split()[1]
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
                answer.read()
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
                page = answer.read().decode()
        finally:
            catalog.kill()
            catalog.wait()
    exported = set(re.findall(r"^(terrace_\w+)", page, re.MULTILINE))
    missing = {name for name in used if name.startswith("terrace_catalog_")} - exported
    problems.check(not missing, f"used and not exported by a catalog: {', '.join(sorted(missing))}")


problems = Problems()
known = manual()
problems.check(len(known) > 40, f"only {len(known)} metrics found in the manual")
used = rules(known, problems) | dashboard(known, problems)
if os.environ.get("TERRACE_BINARY"):
    served(used, problems)
problems.end(f"dashboard and alerts, {len(used)} metrics of {len(known)}")
