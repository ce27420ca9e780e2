"""A sweep of 210 runs for the scripts beside it, what the daemon says of them, and what they see of the table of runs."""

import json
import os
import time
import urllib.request

from parts import FITS, LIMIT

RUNS = 210
SEEDS = 5
SAYS = "const summary = document.querySelector('.runs-line .summary'); return summary && summary.textContent.startsWith(arguments[0])"
SELECTED = "const bar = document.querySelector('.bulk'); return bar && !bar.hidden && bar.querySelector('b').textContent === arguments[0]"


def ask(url, method="GET", body=None, token=None):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def matching(url, query, token=None):
    """How many runs match: a page may be short, and says where the list goes on."""
    count, cursor = 0, ""
    while cursor is not None:
        page = ask(f"{url}/api/runs?limit=500&{query}{cursor and '&before=' + cursor}", token=token)
        count, cursor = count + page["count"], page["next"]
    return count


def soon(holds, what, limit=LIMIT):
    """What the page shows at once is stored a moment later."""
    end = time.time() + limit
    while not holds():
        assert time.time() < end, what
        time.sleep(0.1)


def sweep(url, runs=RUNS, token=None):
    """As many finished runs, five of each learning rate, the oldest first."""
    start = time.time() - 86400
    for first in range(0, runs, SEEDS):
        messages = []
        for n in range(first, first + SEEDS):
            name, at = f"sweep-lr0.{n // SEEDS:02}-seed{n % SEEDS}", start + 60 * n
            config = {"lr": n // SEEDS / 100, "seed": n % SEEDS, "net": {"act": "tanh", "layers": [4, 8]}}
            data = {"dataset": {"name": ["spiral", "circles"][n % 2], "num_samples": 194}, "config": config, "tags": ["sweep"]}
            messages.append({"type": "training_start", "run_id": name, "seq": 0, "timestamp": at, "data": data})
            messages.append({"type": "metrics", "run_id": name, "seq": 1, "timestamp": at + 5, "data": {"epoch": n, "loss": (n * 37 % RUNS + 1) / 1000}})
            messages.append({"type": "training_end", "run_id": name, "seq": 2, "timestamp": at + 30, "data": {"status": "failed" if n % SEEDS == 4 else "completed"}})
        answer = ask(f"{url}/api/messages", "POST", messages, token)
        assert answer["accepted"] == len(messages), answer
    soon(lambda: matching(url, "status=completed", token) == runs * 4 // 5, "the runs are stored")


def picture(page, name, sizes=((1440, 900, "light"), (768, 1024, "dark"), (320, 800, "light"))):
    """Nothing is wider than the page; pictures for a person who looks, where a folder is named."""
    for width, height, scheme in sizes:
        page.size(width, height, scheme)
        page.until(f"{name} to fit {width} px", FITS)
        if os.environ.get("CASCOR_TEST_SCREENSHOTS"):
            page.driver.save_screenshot(os.path.join(os.environ["CASCOR_TEST_SCREENSHOTS"], f"{name}-{width}-{scheme}.png"))
    page.size(1440, 1000, "light")


def box(n):
    """The check box of a row of the table."""
    return f".runs-table tbody tr:nth-child({n}) input[type=checkbox]"
