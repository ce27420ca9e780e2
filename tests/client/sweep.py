"""Manages a sweep of twelve runs by HTTP and by the command line alone, with Python's standard library.

    sweep.py URL PROGRAM      the address of a daemon, and the path of cascor-ingest

After each step it checks what must be there, by HTTP and by the command line alike; its status is 0 when all holds.
A token, if the daemon needs one, is in CASCOR_INGEST_TOKEN.
"""

import csv, io, json, os, subprocess, sys, tempfile, time, urllib.error, urllib.parse, urllib.request

URL, PROGRAM = sys.argv[1:]
TOKEN, EPOCHS, NOW = os.environ.get("CASCOR_INGEST_TOKEN"), 30, int(time.time())
SWEEP = f"spirals-{time.time_ns()}"


def same(what, found, expected):
    assert found == expected, f"{what}\nfound    {found}\nexpected {expected}"


def http(method, path, body=None, code=200, **parameters):
    """The answer to a request: its JSON, else its text."""
    request = urllib.request.Request(f"{URL}{path}?{urllib.parse.urlencode(parameters, doseq=True)}", method=method)
    request.data = body.encode() if isinstance(body, str) else body and json.dumps(body).encode()
    request.headers |= {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()
    same(f"{method} {path}: {text[:500]}", answer.status, code)
    return json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def cli(*arguments, status=0):
    """What a command prints: its JSON, else its text; of a command that fails: what it says."""
    done = subprocess.run([PROGRAM, *arguments], env={**os.environ, "CASCOR_INGEST_URL": URL}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    same(f"{arguments}: {done.stderr}{done.stdout[:500]}", done.returncode, status)
    return done.stderr if status else json.loads(done.stdout) if "--json" in arguments else done.stdout


def at(run, rest=""):
    return f"/api/runs/{urllib.parse.quote(run, safe='')}{rest}"


def flush():
    """Waits until everything that was sent is in the store."""
    for answer in http("POST", "/api/control", {"command": "flush"}), cli("control", "flush", "--wait", "--json")[0]:
        same("flush", answer["outcome"], "done")


def listed(expected, words="", **filters):
    """The runs of the sweep that a list has, in both ways: in this order, if it is sorted."""
    words, flags = f"{SWEEP} {words}", [part for name, value in filters.items() for part in (f"--{name}", str(value))]
    names = lambda answer: [run["display_name"] or run["run_name"] for run in answer["runs"]]
    order = list if "sort" in filters else sorted
    page = http("GET", "/api/runs", q=words, **filters)
    while page.get("sorted", {}).get("sorting"):
        page = http("GET", "/api/runs", q=words, before=page["next"], **filters)
    for answer in page, cli("runs", "--json", "-q", words, *flags):
        same(f"the list {filters}", order(names(answer)), order(expected))


def shown(run, **expected):
    """Fields of a run, in both ways; its metrics."""
    for answer in http("GET", at(run)), cli("show", "--json", run):
        same(run, {name: answer["run"][name] for name in expected}, expected)
    return answer


# Twelve runs, created with their configurations; those with the largest rate will diverge.
grid = {f"{SWEEP}/lr={rate},units={units}": (rate, units) for rate in (0.003, 0.01, 0.03, 1.0) for units in (2, 4, 8)}
runs, failed, good = list(grid), list(grid)[9:], list(grid)[:9]
for n, (run, (rate, units)) in enumerate(grid.items()):
    body = {"name": run, "timestamp": NOW - 1800 + n, "dataset": "two-spirals", "config": {"learning_rate": rate, "units": units}, "tags": ["sweep"]}
    same("its name", http("POST", "/api/runs", body, code=201)["run_name"], run)
    shown(run, run_name=run, tags=["sweep"], config_json=json.dumps(body["config"], separators=(",", ":")))
flush()
listed(runs, dataset="two-spirals")

# Their metrics, as lines of JSON. NaN is a number, as Python writes it.
def metrics(run, epoch):
    rate, units = grid[run]
    row = {"run_id": run, "timestamp": NOW - 1750 + 60 * epoch, "epoch": epoch, "loss": 1 / (epoch + units), "grad_norm": epoch / units}
    return row | ({"loss": float("nan")} if run in failed else {"val_accuracy": round(0.5 + rate * epoch / 3 + units / 50, 6)})

lines = [json.dumps(metrics(run, epoch)) for run in runs for epoch in range(EPOCHS)]
same("messages", http("POST", "/api/messages", "\n".join(lines)), {"accepted": len(lines), "rejected": []})
flush()
listed(runs, status="running")
assert "force=true" in http("DELETE", at(runs[0]), code=409)["detail"], "a run that is running is not deleted"
assert "--force" in cli("runs", "delete", "--yes", runs[0], status=1)

# Their ends.
for run in runs:
    body = {"status": "failed", "reason": "diverged"} if run in failed else {"final_metrics": {"val_loss": 0.25}}
    same("its end", http("POST", at(run, "/complete"), body)["status"], "failed" if run in failed else "completed")
flush()
listed(failed, status="failed")
listed(good, status="completed")
for run in runs:
    same("its rows", shown(run, final_epoch=EPOCHS - 1, tags=["sweep"], dataset_name="two-spirals")["metric_count"], EPOCHS)
shown(good[0], final_val_loss=0.25)

# The best of them, and the order of a key of their configurations.
score = {run: metrics(run, EPOCHS - 1)["val_accuracy"] for run in good}
best, second, *rest = ranked = sorted(good, key=score.get, reverse=True)
listed(ranked, status="completed", sort="best_val_accuracy")
listed(ranked[:1], sort="best_val_accuracy", limit=1)
listed(sorted(runs[::-1], key=lambda run: grid[run][0]), sort="config.learning_rate", order="asc")
listed([run for run in runs if grid[run] == (0.03, 8)], words="learning_rate=0.03 units=8")

# A name, tags and notes. The published name finds the run, too.
winner = f"{SWEEP} winner"
same("its name", http("PATCH", at(best), {"name": winner, "add_tags": ["best"], "remove_tags": ["sweep"]})["run"]["display_name"], winner)
http("POST", at(best, "/notes"), {"notes": "for the paper: α = 0.03"})
for name in (best, winner):
    shown(name, run_name=best, display_name=winner, tags=["best"], notes="for the paper: α = 0.03", best_val_accuracy=score[best])
cli("runs", "rename", second, f"{SWEEP} second")
cli("runs", "tag", second, "best", "spare")
cli("runs", "untag", second, "sweep", "best")
cli("runs", "note", f"{SWEEP} second", "in case")
shown(second, display_name=f"{SWEEP} second", tags=["spare"], notes="in case")
cli("runs", "rename", second, "")
listed([winner], tag="best")
listed([second], tag="spare")

# The rest is archived: left out of lists, not deleted.
for run in rest[:3]:
    same("archived", http("PATCH", at(run), {"archived": True})["run"]["archived"], True)
same("archived", cli("runs", "archive", "--json", *rest[3:])["count"], len(rest) - 3)
listed(rest, archived="true")
cli("runs", "unarchive", rest[0])
http("PATCH", at(rest[1]), {"archived": False})
listed([winner, second, rest[0], rest[1], *failed])

# Two of them compared, and exported with every metric as a column.
for answer in http("GET", "/api/compare", run_id=[winner, second], field=["val_accuracy", "grad_norm"]), cli("compare", "--json", winner, second, "--field", "val_accuracy,grad_norm"):
    same("epochs", answer["x"], list(range(EPOCHS)))
    last = [metrics(run, EPOCHS - 1)[field] for field in ("val_accuracy", "grad_norm") for run in (best, second)]
    same("last values", [curve["last"][-1] for curve in answer["curves"]], last)
for run in (winner, failed[0]):
    for text in http("GET", "/api/export", run_id=run, format="csv"), cli("export", run):
        rows = list(csv.DictReader(io.StringIO(text)))
        same("grad_norm", [float(row["grad_norm"]) for row in rows], [metrics(best if run == winner else run, epoch)["grad_norm"] for epoch in range(EPOCHS)])
        same("not finite", {row["train_loss"] for row in rows} == {"NaN"}, run == failed[0])

# A table of an old run, imported twice: the same rows.
old = f"{SWEEP}/old"
with tempfile.NamedTemporaryFile("w", suffix=".csv") as table:
    table.write("Epoch,loss,val_acc,f1\n" + "".join(f"{epoch},{1 / (epoch + 1)},0.5,{epoch / 16}\n" for epoch in range(10)))
    table.flush()
    for _ in range(2):
        same("import", cli("import", "--json", table.name, "--run", old, "--start", f"{NOW - 86400}"), {"read": 10, "accepted": 10, "refused": 0, "ended": 1, "problems": []})
same("its end", http("POST", at(old, "/complete"), {"timestamp": NOW - 86000})["status"], "completed")
flush()
same("its metrics", shown(old, status="completed", final_epoch=9, duration_seconds=400)["metric_names"], ["f1"])
for answer in http("GET", "/api/metrics/range", run_id=old, fields="f1", order="asc"), cli("metrics", "--json", old, "--fields", "f1", "--ascending"):
    same("f1", [row["f1"] for row in answer["metrics"]], [epoch / 16 for epoch in range(10)])

# What failed is deleted; nothing else is.
run_id = shown(failed[0])["run"]["run_id"]
same("deleted", http("DELETE", at(failed[0])), {"run_id": run_id, "deleted": True})
assert "--yes" in cli("runs", "delete", *failed[1:], status=2)
listed(failed[1:], status="failed")
same("deleted", cli("runs", "delete", "--yes", "--json", *failed[1:])["count"], 2)
http("GET", at(run_id), code=404)
for run in failed:
    assert "there is no run" in cli("show", run, status=1), run
    assert "Invalid UUID" in http("GET", at(run), code=400)["detail"], run
listed([winner, second, *rest, old], archived="any")
for run in good:
    same("its rows", shown(run)["metric_count"], EPOCHS)
print(f"{SWEEP}: all is as it should be")
