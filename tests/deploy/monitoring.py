"""Checks deploy/monitoring against the page of a daemon, and asks a Prometheus that scrapes it.

    monitoring.py table PAGE           prints the table of metrics for deploy/monitoring/README.md
    monitoring.py check PAGE           README, alerts, their tests, the runbook and the dashboard fit the page
    monitoring.py text PAGE             prints the page in the older text format, which promtool reads
    monitoring.py queries              prints the queries of the dashboard as a file of rules, for promtool
    monitoring.py ask URL              each query of the dashboard is answered, with series
"""

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

FOLDER = Path(__file__).resolve().parents[2] / "deploy/monitoring"
# Labels that Prometheus adds, and its own metrics.
ADDED = {"job", "instance"}
OWN = {"up": set()}
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$job": ".+", "$instance": ".+"}
WORDS = set("and or unless on by without ignoring group_left group_right bool offset inf nan".split())

problems = []


def problem(text):
    problems.append(text)


def families(page):
    """The metrics of a page by the name that queries use, with their labels and values. Strict: raises where it is no OpenMetrics."""
    found = {}
    for family in text_string_to_metric_families(page):
        suffix = "_total" if family.type == "counter" else ""
        labels = {}
        for sample in family.samples:
            former = sample.labels.pop("name", None)
            own = {key: value for key, value in sample.labels.items() if key != "le"}
            if former is not None and list(own.values()) != [former]:
                problem(f"{sample.name}: the former label `name` is {former!r} beside {own}")
            for key, value in own.items():
                labels.setdefault(key, set()).add(value)
        found[family.name + suffix] = {
            "type": family.type,
            "help": family.documentation,
            "labels": labels,
            "samples": {sample.name for sample in family.samples},
        }
    return found


def unit(name, metric):
    """The unit of a metric: part of its name where it is a base unit of Prometheus."""
    parts = name.removesuffix("_total").split("_")
    if parts[-1] in ("seconds", "bytes"):
        return parts[-1]
    return "0 or 1" if metric["help"].startswith("1 while") else "" if parts[-1] == "info" else "count"


def table(metrics):
    lines = ["| metric | type | unit | labels | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, metric in sorted(metrics.items()):
        labels = ", ".join(f"`{label}`" for label in metric["labels"])
        lines.append(f"| `{name}` | {metric['type']} | {unit(name, metric)} | {labels} | {metric['help'].rstrip('.')} |")
    return lines


def selectors(expression):
    """The selectors of a query as names with their matchers, and the labels that it groups or joins by."""
    grouped = set()
    for labels in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        grouped |= {label.strip() for label in labels.split(",") if label.strip()}
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    found = []
    for name, after in re.findall(r"([a-zA-Z_:][\w:]*)(\s*\{[^}]*\}|\s*\(|)", re.sub(r"\[[^\]]*\]", " ", bare)):
        if after.strip() == "(" or name.lower() in WORDS:
            continue
        matchers = re.findall(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"", after)
        found.append((name, matchers))
    return found, grouped


def check_query(place, expression, metrics, shown=()):
    """Every name and label of a query is on the page; `shown`: labels that a text shows."""
    samples = {sample: metric["labels"] for metric in metrics.values() for sample in metric["samples"]}
    found, grouped = selectors(expression)
    known = set(ADDED) | {"le"}
    if not found:
        problem(f"{place}: no metric in `{expression}`")
    for name, matchers in found:
        if name not in samples and name not in OWN:
            problem(f"{place}: no metric `{name}`")
            continue
        labels = samples.get(name, {})
        known |= set(labels)
        for label, operator, value in matchers:
            if label not in set(labels) | ADDED:
                problem(f"{place}: `{name}` has no label `{label}`")
            elif label not in ADDED and operator == "=" and value not in labels[label]:
                problem(f"{place}: `{name}` has no {label} `{value}`")
    for label in grouped | set(shown):
        if label not in known:
            problem(f"{place}: no label `{label}` in `{expression}`")


def alerts():
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def check_alerts(metrics):
    rules = {rule["alert"]: rule for rule in alerts()}
    runbook = (FOLDER / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    if list(sections) != list(rules):
        problem(f"runbook.md and alerts.yaml name other alerts: {set(sections) ^ set(rules) or 'in another order'}")
    for name, text in sections.items():
        for part in ("means", "look", "do", "otherwise"):
            if f"**{part}**" not in text.lower():
                problem(f"runbook.md: {name} has no **{part.capitalize()}**")
    for name, rule in rules.items():
        texts = rule["annotations"]
        check_query(name, rule["expr"], metrics, re.findall(r"\$labels\.(\w+)", texts["summary"]))
        if texts["runbook_url"] != f"runbook.md#{name.lower()}":
            problem(f"{name}: `runbook_url` is {texts['runbook_url']}")
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    results = {name: set() for name in rules}
    for test in (test for one in tests for test in one["alert_rule_test"]):
        results[test["alertname"]].add(bool(test.get("exp_alerts")))
    for name, seen in results.items():
        if seen != {True, False}:
            problem(f"alerts_test.yaml: {name} needs a test in which it fires, and one in which it does not")


def dashboard():
    return json.loads((FOLDER / "grafana.json").read_text())


def targets():
    """Each query of the dashboard: its place, the query, and the text that shows its labels."""
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"grafana.json: {panel['title']}", target["expr"], target["legendFormat"]
    for mark in board["annotations"]["list"]:
        yield f"grafana.json: {mark['name']}", mark["expr"], mark["textFormat"]


def filled_in(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def check_dashboard(metrics):
    board = dashboard()
    for place, expression, legend in targets():
        check_query(place, expression, metrics, re.findall(r"{{\s*(\w+)\s*}}", legend))
        if set(re.findall(r"\$\w+", expression)) - set(VARIABLES):
            problem(f"{place}: unknown variable in `{expression}`")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            check_query(f"grafana.json: ${variable['name']}", inner[1], metrics, [inner[2]])
    identifiers, taken = [panel["id"] for panel in board["panels"]], {}
    if len(set(identifiers)) != len(identifiers):
        problem("grafana.json: two panels have one id")
    for panel in board["panels"]:
        at = panel["gridPos"]
        if not panel.get("title") or (panel["type"] != "row" and not panel.get("description")):
            problem(f"grafana.json: panel {panel['id']} needs a title and a description")
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            problem(f"grafana.json: {panel['title']} does not use the chosen Prometheus")
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if cell[0] >= 24 or taken.setdefault(cell, panel["id"]) != panel["id"]:
                problem(f"grafana.json: {panel['title']} covers another panel, or leaves the page")
                break


def check(page):
    metrics = families(page)
    shown = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith(("| `", "| metric"))]
    wanted = [line for line in table(metrics) if not line.startswith("| ---")]
    for line in sorted(set(shown) ^ set(wanted)):
        problem(f"README.md: {'is missing' if line in wanted else 'is not on the page'}: {line}")
    check_alerts(metrics)
    check_dashboard(metrics)
    print(f"{len(metrics)} metrics, {len(alerts())} alerts, {len(list(targets()))} queries of the dashboard")


def older_text(page):
    """Counters of OpenMetrics have their names without `_total`, and there are units and an end."""
    counters = set(re.findall(r"^# TYPE (\S+) counter$", page, re.MULTILINE))
    for line in page.splitlines():
        words = line.split(" ", 3)
        if line == "# EOF" or words[:2] == ["#", "UNIT"]:
            continue
        if words[0] == "#" and words[2] in counters:
            words[2] += "_total"
        print(" ".join(words))


def rules_of_queries():
    rules = [{"record": f"q:{number}", "expr": filled_in(expression)} for number, (_, expression, _) in enumerate(targets())]
    print(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))


def query(url, expression):
    encoded = urllib.parse.urlencode({"query": expression})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/v1/query?{encoded}", timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def ask(url):
    silent = 0
    for place, expression, _ in targets():
        # A comparison leaves out what is well.
        filtered = " > 0" in expression or "< +Inf" in expression
        series = query(url, filled_in(expression))
        if not series and not filtered:
            problem(f"{place}: no series for `{expression}`")
        silent += not series
    print(f"the dashboard's queries are answered; {silent} that show trouble only, or a limit, have no series")


def main(command, *arguments):
    page = Path(arguments[0]).read_text() if command in ("table", "check", "text") else ""
    if command == "table":
        print("\n".join(table(families(page))))
    elif command == "check":
        check(page)
    elif command == "text":
        older_text(page)
    elif command == "queries":
        rules_of_queries()
    elif command == "ask":
        ask(*arguments)
    else:
        sys.exit(__doc__)
    for text in problems:
        print(text, file=sys.stderr)
    sys.exit(bool(problems))


main(*(sys.argv[1:] or [""]))
