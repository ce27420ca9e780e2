"""Drives the buttons for the trainer of a run, in a real headless browser, with a trainer that uses the Python package.

    trainer.py commands URL REDIS_PORT    pause, resume and stop of one of two runs

Started by tests/it/browser.rs. Needs what parts.py needs, and the package `redis`; ends with status 0 when everything holds.
"""

import pathlib
import sys
import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from parts import LIMIT, Browser

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy" / "python"))

import cascor_ingest  # noqa: E402

TOLD = "return document.querySelector('.trainer .told').textContent.includes(arguments[0])"
SEEN = "return document.querySelector('[data-trainer=pause]').checkVisibility() === arguments[0]"
BADGE = "return document.querySelector('.title .badge').textContent === arguments[0]"
HIDDEN_SCOPE = "document.documentElement.dataset.scope = arguments[0]"


def soon(what, holds):
    end = time.time() + LIMIT
    while not holds():
        assert time.time() < end, f"waited {LIMIT} s for {what}"
        time.sleep(0.05)


def commands(url, port):
    redis = f"redis://127.0.0.1:{port}/0"
    run, other = (cascor_ingest.init(name, redis_url=redis) for name in ("spiral-7", "circles-1"))
    for one in run, other:
        one.log({"loss": 0.5}, epoch=1)
        one.flush(LIMIT)
    with Browser() as page:
        page.open(f"{url}/#/run/{run.uuid}")
        page.until("the buttons", SEEN, True)
        page.find("[data-trainer=pause]").click()
        page.until("what became of it", TOLD, "pause sent to the trainer of spiral-7. A trainer sends no receipt.")
        soon("the pause", lambda: run.paused)
        assert page.run("return document.activeElement.dataset.trainer") == "pause", "the focus stays"
        page.find("[data-trainer=resume]").click()
        page.until("what became of it", TOLD, "resume sent")
        soon("the resume", lambda: not run.paused)

        page.find("[data-trainer=stop]").click()
        page.until("it asks first", "return document.querySelector('dialog').open && document.querySelector('dialog').textContent.includes('Stop spiral-7?')")
        assert page.run("return document.activeElement.textContent") == "Cancel", "the harmless answer has the focus"
        ActionChains(page.driver).send_keys(Keys.ENTER).perform()
        page.until("it is dropped", "return !document.querySelector('dialog').open")
        time.sleep(0.3)
        assert not run.stopped, "nothing was sent"
        page.find("[data-trainer=stop]").click()
        page.until("it asks again", "return document.querySelector('dialog').open")
        page.find("[data-confirm=yes]").click()
        soon("the stop", lambda: run.stopped)
        run.finish()
        page.until("the run has ended", BADGE, "stopped")
        page.until("an ended run has no buttons", SEEN, False)
        assert page.run(TOLD, "stop sent"), "what became of the stop can still be read"
        assert not other.paused and not other.stopped, "the other trainer goes on"
        assert page.run("return fetch('api/status').then((answer) => answer.json()).then(({paused}) => paused)") is False, "the daemon goes on"

        page.run("location.hash = arguments[0]", f"#/run/{other.uuid}")
        page.until("the buttons of the other", SEEN, True)
        page.run(HIDDEN_SCOPE, "read")
        assert page.run(SEEN, False), "without the scope `admin` there are none"
        assert not page.complaints(), page.complaints()
    other.finish()


if __name__ == "__main__":
    what, url, port = sys.argv[1:4]
    {"commands": commands}[what](url, int(port))
    print("fine")
