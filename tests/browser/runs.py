"""Drives the dashboard's table of runs in a real headless browser: search, order, pages, columns, selection, what is done with many runs, new runs, keys.

    runs.py table URL REDIS_PORT

Started by tests/it/browser.rs. Needs what parts.py needs; ends with status 0 when everything holds.
"""

import sys
import time
import urllib.error

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from parts import Browser, Trainer
from sweep import RUNS, SAYS, SELECTED, ask, box, matching, picture, soon, sweep

NAMES = "return [...document.querySelectorAll('.runs-table [data-run] .name')].map((cell) => cell.textContent)"
LISTED = "return [...document.querySelectorAll('#runs .entry b')].map((name) => name.textContent)"
HEADS = "return [...document.querySelectorAll('.runs-table thead th')].map((head) => head.dataset.column)"
#: Cells of a column.
CELLS = "const at = [...document.querySelectorAll('.runs-table thead tr > *')].findIndex((head) => head.dataset.column === arguments[0]); const cells = [...document.querySelectorAll('.runs-table [data-run]')].map((row) => row.cells[at]);"
COLUMN = CELLS + "return cells.map((cell) => cell.textContent)"
SHOWS = CELLS + "return JSON.stringify(cells.map((cell) => cell.textContent)) === JSON.stringify(arguments[1])"
#: The table is sorted by a column, in an order, and shows that order.
SORTED = "return document.querySelector(`thead [data-column='${arguments[0]}']`).getAttribute('aria-sort') === arguments[1] && !document.querySelector('.runs-table.stale')"
NEWEST_FIRST = "return !location.hash.includes('sort=') && !document.querySelector('.runs-table.stale')"
HAS_COLUMN = "return document.querySelector(`thead [data-column='${arguments[0]}']`) !== null"
FIRST = "return document.querySelector('.runs-table [data-run] .name').textContent.startsWith(arguments[0])"
NOTED = "return document.querySelector('.outcome-note').textContent.startsWith(arguments[0])"


def table(url, port):
    sweep(url)
    with Browser() as page:
        page.open(f"{url}/#/runs")
        page.until("a page of runs", SAYS, "50 runs shown; there are more")
        searched(page)
        sorted_and_paged(page)
        columns(page)
        metric_columns(page, url)
        selected(page)
        linked(page, url)
        bulk(page, url)
        lives(page, port)
        keyboard(page)
        complaints = page.complaints()
        assert not complaints, complaints


def searched(page):
    five = [f"sweep-lr0.09-seed{seed}" for seed in (4, 3, 2, 1, 0)]
    page.fill(".table-filters input", "sweep-lr0.09")
    page.until("the five", SAYS, "5 runs match.")
    assert page.run(NAMES) == five, page.run(NAMES)
    assert page.run("return document.title") == "Runs: sweep-lr0.09 - cascor-ingest"
    picture(page, "search")
    page.driver.refresh()
    page.until("the five after a reload", SAYS, "5 runs match.")
    assert page.run(NAMES) == five
    page.run("const status = document.querySelector('select[aria-label=Status]'); status.value = 'failed'; status.dispatchEvent(new Event('change'))")
    page.until("the failed one", SAYS, "1 run matches.")
    assert "status=failed" in page.driver.current_url
    page.fill(".table-filters input", "lr=0.07 nosuchword")
    page.until("nothing, after everything was looked at", SAYS, "No run matches.")
    picture(page, "none")
    page.button("Clear filters")
    page.until("all", SAYS, "50 runs shown")

    # The list beside a run asks the daemon, too: the oldest runs are on no page that was loaded.
    page.click(".runs-table .name a")
    page.until("the list", "return document.querySelectorAll('#runs .entry').length >= 50")
    page.type("#runs input[type=search]", "sweep-lr0.09")
    page.until("the five in the list", "return document.querySelector('#runs .summary').textContent === '5 runs match.'")
    assert page.run(LISTED) == five, page.run(LISTED)
    page.fill("#runs input[type=search]", Keys.BACKSPACE)
    page.driver.back()
    page.until("the table again", SAYS, "50 runs shown")


def sorted_and_paged(page):
    page.click("thead [data-column=final_train_loss] button")
    page.until("the largest first", SORTED, "final_train_loss", "descending")
    page.until("the end of a page", SAYS, "50 runs shown")
    losses = [float(text) for text in page.run(COLUMN, "final_train_loss")]
    assert losses == sorted(losses, reverse=True) and losses[0] == RUNS / 1000, losses[:5]
    page.click("[data-do=more]")
    page.until("a second page", SAYS, "100 runs shown")
    losses = [float(text) for text in page.run(COLUMN, "final_train_loss")]
    assert len(set(losses)) == 100 and losses == sorted(losses, reverse=True)
    page.click("thead [data-column=final_train_loss] button")
    page.until("the smallest first", CELLS + "return cells[0].textContent === '0.001'", "final_train_loss")
    assert "sort=final_train_loss&order=asc" in page.driver.current_url
    # Their points are under each other.
    edges = page.run(CELLS + "return cells.map((cell) => cell.querySelector('.rest')).filter((rest) => /^\\.\\d/.test(rest.textContent) && rest.textContent.length < 6).map((rest) => Math.round(rest.getBoundingClientRect().left))", "final_train_loss")
    assert len(set(edges)) == 1 and len(edges) >= 50, set(edges)
    page.click("thead [data-column='config.lr'] button")
    page.until("by a key of the configuration", FIRST, "sweep-lr0.41")
    page.click("thead [data-column=start_time] button")
    page.until("newest first again", NEWEST_FIRST)


def columns(page):
    assert page.run(HEADS)[:4] == ["name", "status", "start_time", "duration_seconds"]
    assert "total_hidden_units" not in page.run(HEADS), "a column without a value is left out"
    page.click(".anchor button")
    page.type(".popup input[type=search]", "net.lay")
    page.click(".popup [data-column='config.net.layers'] input")
    page.until("the column", HAS_COLUMN, "config.net.layers")
    picture(page, "columns")
    page.press(Keys.ESCAPE)
    page.until("the choice is closed", "return document.querySelector('.popup').hidden")
    assert set(page.run(COLUMN, "config.net.layers")) == {"[4,8]"}
    page.driver.refresh()
    page.until("the column after a reload", HAS_COLUMN, "config.net.layers")
    page.click(".anchor button")
    page.button("Default columns")
    page.until("the default", "return document.querySelector(\"thead [data-column='config.net.layers']\") === null && !location.hash.includes('col=')")
    page.click(".anchor button")


def metric_columns(page, url):
    """Any metric that a run logs is a column: its last value, its lowest and its highest; the runs without it have an empty cell."""
    at = time.time() - 60
    names = {"run_id": "policy-sweep-lr0.09"}
    rows = [{"reward/mean": 0.25, "perplexity": 40}, {"reward/mean": 0.75, "perplexity": 12.5}, {"reward/mean": 0.5, "perplexity": float("nan")}]
    start = {"type": "training_start", **names, "timestamp": at, "data": {}}
    ask(f"{url}/api/messages", "POST", [start, *({"type": "metrics", **names, "timestamp": at + n, "data": {"epoch": n, "metrics": row}} for n, row in enumerate(rows, 1))])
    soon(lambda: matching(url, "q=policy") == 1, "the run is stored")
    page.fill(".table-filters input", "sweep-lr0.09")
    page.until("it is in the list", SAYS, "6 runs match.")

    page.click(".anchor button")
    page.type(".popup input[type=search]", "mean rew")
    page.click(".popup [data-column='metric.reward/mean'] input")
    page.until("the last value, and nothing for the others", SHOWS, "metric.reward/mean", ["0.5", "", "", "", "", ""])
    page.fill(".popup input[type=search]", "perplexity")
    for key in ("metric", "min"):
        page.click(f".popup [data-column='{key}.perplexity'] input")
    page.until("a value that is not finite, by its name", SHOWS, "metric.perplexity", ["NaN", "", "", "", "", ""])
    page.until("the lowest that is finite", SHOWS, "min.perplexity", ["12.5", "", "", "", "", ""])
    picture(page, "metrics", ((1440, 900, "light"), (1440, 900, "dark"), (768, 1024, "dark"), (320, 800, "light")))
    page.press(Keys.ESCAPE)
    page.until("the choice is closed", "return document.querySelector('.popup').hidden")
    shown = ["metric.reward/mean", "metric.perplexity", "min.perplexity"]
    assert page.run(HEADS)[-3:] == shown, page.run(HEADS)
    assert page.run("return [...document.querySelectorAll('thead .metric')].every((head) => !head.querySelector('button') && !head.hasAttribute('aria-sort'))"), "the daemon cannot sort by them"
    page.driver.refresh()
    page.until("the last value after a reload", SHOWS, "metric.reward/mean", ["0.5", "", "", "", "", ""])
    assert page.run(HEADS)[-3:] == shown, page.run(HEADS)
    ask(f"{url}/api/messages", "POST", [{"type": "metrics", **names, "timestamp": at + 30, "data": {"epoch": 4, "metrics": {"reward/mean": 0.625, "perplexity": 8}}}])
    page.until("the next value, by itself", SHOWS, "metric.reward/mean", ["0.625", "", "", "", "", ""])
    page.until("and a lower one", SHOWS, "min.perplexity", ["8", "", "", "", "", ""])
    page.click(".anchor button")
    page.button("Default columns")
    page.until("the default", "return document.querySelector('thead .metric') === null && !location.hash.includes('col=')")
    page.click(".anchor button")
    page.fill(".table-filters input", Keys.BACKSPACE)
    page.until("all", SAYS, "50 runs shown")


def selected(page):
    page.until("the rows", SAYS, "50 runs shown")
    page.click(box(2))
    page.run("document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', { bubbles: true, shiftKey: true }))", box(5))
    page.until("a range", SELECTED, "4 selected")
    picture(page, "selected")
    page.click("[data-do=more]")
    page.until("more runs", SAYS, "100 runs shown")
    page.until("the selection stays", SELECTED, "4 selected")
    page.fill(".table-filters input", "sweep-lr0.00")
    page.until("elsewhere", SAYS, "5 runs match")
    page.click(".runs-table thead input")
    page.until("all shown as well", SELECTED, "9 selected, 4 of them not in this list")
    page.driver.refresh()
    page.until("the selection after a reload", SELECTED, "9 selected, 4 of them not in this list")
    page.click("[data-do=clear]")
    page.until("none", "return document.querySelector('.bulk').hidden")


def linked(page, url):
    page.driver.get(f"{url}/#/runs?q=sweep&sort=config.lr&order=asc&tag=sweep&col=name&col=config.lr")
    page.driver.refresh()
    page.until("all of the link", FIRST, "sweep-lr0.00")
    assert page.run(HEADS) == ["name", "config.lr"]


def bulk(page, url):
    page.driver.get(f"{url}/#/runs?q=sweep-lr0.2")
    page.driver.refresh()
    page.until("fifty", SAYS, "50 runs")
    page.click(".runs-table thead input")
    page.until("all", SELECTED, "50 selected")
    page.until("how many fit", "return document.querySelector('[data-do=compare]').textContent === 'Compare the first 16'")
    page.click("[data-do=tag]")
    page.type("dialog[open] input", "late", Keys.ENTER)
    page.until("tagged", NOTED, "Added the tag late: 50 runs.")
    assert matching(url, "tag=late") == 50
    page.click("[data-do=archive]")
    page.until("archived", NOTED, "Archived 50 runs.")
    assert matching(url, "tag=late") == 0

    page.driver.get(f"{url}/#/runs?tag=late&archived=true&q=sweep-lr0.20")
    page.until("the five of them", SAYS, "5 runs match")
    page.click(".runs-table thead input")
    page.until("all", SELECTED, "5 selected")
    # One of them is gone when it is its turn, and one runs: they are told by their names, and what can be tried again stays selected.
    ask(f"{url}/api/runs/sweep-lr0.20-seed2", "DELETE")
    ask(f"{url}/api/messages", "POST", [{"type": "training_start", "run_id": "sweep-lr0.20-seed3", "timestamp": time.time(), "data": {}}])
    soon(lambda: ask(f"{url}/api/runs/sweep-lr0.20-seed3")["run"]["status"] == "running", "it runs again")
    page.click("[data-do=delete]")
    page.until("the question", "return document.querySelector('dialog.question[open] button.danger').disabled")
    picture(page, "delete")
    page.fill("dialog.question input[type=text]", "4")
    assert page.run("return document.querySelector('dialog.question button.danger').disabled"), "the number is 5"
    page.fill("dialog.question input[type=text]", "5", Keys.ENTER)
    page.until("three are deleted, two failed", "const note = document.querySelector('.outcome-note').textContent; return note.includes('Deleted 3 runs.') && note.includes('sweep-lr0.20-seed2: Run not found') && note.includes('sweep-lr0.20-seed3: the run is running')")
    page.until("one is left", SELECTED, "1 selected")
    picture(page, "failed", ((1440, 900, "light"), (320, 800, "dark")))
    page.until("its row says so", "return document.querySelector('.runs-table tbody .status.running') !== null")
    page.click("[data-do=delete]")
    page.click("dialog.question input[type=checkbox]")
    page.fill("dialog.question input[type=text]", "sweep-lr0.20-seed3", Keys.ENTER)
    page.until("deleted all the same", NOTED, "Deleted 1 run.")
    assert matching(url, "tag=late&archived=any&q=sweep-lr0.20") == 0

    # One by its name, on its page.
    page.driver.get(f"{url}/#/run/sweep-lr0.01-seed0")
    page.until("the run", "return document.querySelector('.details') !== null && document.querySelector('h1').textContent === 'sweep-lr0.01-seed0'")
    page.click(".details [data-do=delete]")
    page.fill("dialog.question input[type=text]", "sweep-lr0.01-seed0", Keys.ENTER)
    page.until("the table", SAYS, "50 runs shown")
    try:
        ask(f"{url}/api/runs/sweep-lr0.01-seed0")
        raise AssertionError("it is deleted")
    except urllib.error.HTTPError as error:
        assert error.code in (400, 404), error


def lives(page, port):
    """New runs come in on top while nobody reads, and wait behind a line while somebody does."""
    page.run("scrollTo(0, 0); document.activeElement.blur()")
    ActionChains(page.driver).move_to_element(page.find("h1")).perform()
    trainer = Trainer(port, "newcomer")
    trainer.start()
    trainer.train(3)
    page.until("it comes in by itself", FIRST, "newcomer")
    page.click("thead [data-column=final_train_loss] button")
    page.until("sorted", SORTED, "final_train_loss", "descending")
    page.until("the end of a page", SAYS, "50 runs shown")
    first = page.run(NAMES)[:5]
    second = Trainer(port, "later")
    second.start()
    second.train(2)
    # Before that it is sorted behind the page.
    page.until("its loss is stored", "return fetch('api/runs?q=later').then((answer) => answer.json()).then(({ runs }) => runs.length === 1 && runs[0].final_train_loss !== null)")
    page.until("it waits", "return document.querySelector('.news').textContent === '1 new run: show' && !document.querySelector('.news').hidden")
    assert page.run(NAMES)[:5] == first, "nothing moves"
    page.click(".news")
    page.until("it is there", NAMES + ".includes('later')")
    trainer.train(40)
    page.until("a row follows its run", "const row = [...document.querySelectorAll('.runs-table [data-run]')].find((row) => row.querySelector('.name').textContent === 'newcomer'); return row && [...row.cells].some((cell) => cell.textContent === '42')")
    page.click("thead [data-column=start_time] button")
    page.until("newest first", NEWEST_FIRST)


def keyboard(page):
    page.run("document.querySelector('.runs-table tbody tr').focus()")
    page.press("j", Keys.ARROW_DOWN, "k", "x")
    page.until("the second is selected", f"return document.querySelector('{box(2)}').checked")
    assert page.run("return document.activeElement === document.querySelectorAll('.runs-table tbody tr')[1]")
    name = page.run(NAMES)[1]
    page.press("x", Keys.ENTER)
    page.until("it is opened", "return document.querySelector('.details') && document.querySelector('h1').textContent === arguments[0]", name)


if __name__ == "__main__":
    table(sys.argv[2], int(sys.argv[3]))
    print("fine")
