"""Drives the dashboard in a real headless browser.

    dashboard.py walk URL REDIS_PORT      a run appears, its curve grows, commands, a sleeping page, a daemon restart
    dashboard.py closer URL REDIS_PORT DATABASE   a part of a long curve, and rows that are not stored
    dashboard.py served URL REDIS_PORT    a server without a pipeline
    dashboard.py signin URL TOKEN         a command that needs a token
    dashboard.py tls URL TOKEN DIRECTORY  the same behind TLS, with redis.pem and redis.key of the directory
    dashboard.py pictures URL DIRECTORY   the main views as pictures, in both themes, of a daemon that has runs

Started by tests/it/browser.rs, which restarts the daemon when a line says `restart` and answers `done`.
Needs selenium, chromium and chromedriver. Prints what it measures; ends with status 0 when everything holds.
"""

import base64
import os
import sqlite3
import sys
import time
import uuid

from selenium.webdriver.common.keys import Keys

from parts import FITS, Browser, Heard, Trainer, part_of, relay

POINTS = "return Number((/^([\\d,]+) points/.exec(document.querySelector('.curve-note').textContent) || [0, '0'])[1].replaceAll(',', ''))"
AT_LEAST = POINTS.replace("return ", "return (") + ") >= arguments[0]"
PILL = "return document.querySelector('#connection span').textContent === arguments[0]"
CURVE_READS = "return performance.getEntriesByType('resource').filter((entry) => entry.name.includes('api/metrics/range')).length"
GROWN = "return [...document.querySelectorAll('tbody tr')].some((row) => row.cells[0].textContent === arguments[0])"
RECEIPT = "return document.querySelector(`.receipts li[data-command=${arguments[0]}][data-outcome=${arguments[1]}]`) !== null"
# Colours of the lines on the first chart: a curve that is not drawn has none.
DRAWN = """
const canvas = document.querySelector('.plot canvas');
if (!canvas) return 0;
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let drawn = 0;
for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] > 200 && pixels[at + 2] > 150 && pixels[at] < 80) drawn += 1;
return drawn;
"""
# Listens as any page would, and notes how late each row is.
LISTEN = """
window.late = [];
const source = new EventSource('api/stream');
source.addEventListener('metrics', (event) => {
  const now = performance.timeOrigin + performance.now();
  for (const row of JSON.parse(event.data).rows) window.late.push(now - Date.parse(row.timestamp));
});
return new Promise((heard) => source.addEventListener('hello', () => heard(true)));
"""


def walk(url, port):
    name = f"browser {uuid.uuid4()}"
    with Browser() as page:
        page.open(url)
        page.until("the stream", PILL, "ok")
        page.until("what to do without a run", "return document.querySelector('main').textContent.includes('cascor-ingest demo')")

        trainer = Trainer(port, name)
        trainer.start()
        trainer.train(20)
        _, took = page.until("the run appears by itself", "return [...document.querySelectorAll('.entry b')].some((b) => b.textContent === arguments[0])", name)
        print(f"a run appears after {took:.2f} s")
        page.until("the newest run is shown", "return document.querySelector('h1').textContent === arguments[0]", name)
        page.until("its first points", AT_LEAST, 20)
        before = page.run(DRAWN)
        trainer.train(180)
        trainer.grow(3)
        _, took = page.until("the curve grows", AT_LEAST, 200)
        print(f"200 points are drawn {took:.2f} s after the last")
        page.until("the line is drawn", "return (() => {" + DRAWN + "})() > 200")
        print(f"pixels of the line: {before}, then {page.run(DRAWN)}")
        page.until("the network", "return document.querySelectorAll('.network .unit.hidden').length === 3")
        page.until("the growth", GROWN, "3")

        late(page, trainer, url)
        held(page, trainer)
        commands(page, url)
        sleep(page, trainer, url)
        restart(page, trainer)
        narrow(page, url)
        complaints = page.complaints()
        assert not complaints, complaints


HOPS = 4


def late(page, trainer, url):
    """
    From publish to the picture. The daemon's part is how late a bare client of its stream hears. It may be as late as on a quiet
    machine, and later by as much as this machine holds up each hop (receiving, intake, HTTP, the client), which a bare subscriber
    of Redis, with one hop, shows. The page's part is how much later than that client it hears. A machine that does something else
    for a moment gets another round, and a third.
    """
    page.run(LISTEN)
    redis, stream = Heard.of_redis(trainer.port), Heard.of_stream(url)
    for rest in (2, 1, 0):
        trainer.train(300, pause=0.01)
        page.until("every row", "return window.late.length >= 300")
        pages = sorted(page.run("return window.late.splice(0)"))
        bare, streamed = redis.take(300), stream.take(300)
        for name, seen in (("Redis", bare), ("stream", streamed), ("browser", pages)):
            print(f"publish to {name}: p50 {part_of(seen, 50):.0f} ms, p99 {part_of(seen, 99):.0f} ms")
        most = 200 + HOPS * part_of(bare, 99)
        page_adds = part_of(pages, 50) - part_of(streamed, 50)
        if part_of(streamed, 50) <= 200 and part_of(streamed, 99) <= most and page_adds <= 100:
            return
        assert rest, f"the stream may be {most:.0f} ms late (p99) and 200 ms (p50), and the page 100 ms later (p50)"


def held(page, trainer):
    """A unit arrives while the store takes nothing: the growth, which the store tells, has it once the store does."""
    trainer.send(b"cascor:control", b"pause")
    page.until("it is paused", PILL, "paused")
    trainer.train(60)
    units = (trainer.epoch - 1) // 50
    page.until("the curve grows meanwhile", AT_LEAST, trainer.epoch)
    # Longer than the page waits before it asks the store.
    time.sleep(4)
    assert not page.run(GROWN, str(units)), "the store cannot tell yet"
    trainer.send(b"cascor:control", b"resume")
    page.until("the growth, late", GROWN, str(units))


def commands(page, url):
    # By keyboard alone: to the tab, to the button, and the receipt is told.
    page.type("[data-tab=pipeline]", Keys.ENTER)
    page.type("[data-send=pause]", Keys.ENTER)
    page.until("the receipt of the pause", RECEIPT, "pause", "done")
    page.until("the page says so", PILL, "paused")
    assert page.run("return document.querySelector('.receipts').getAttribute('aria-live')") == "polite"
    page.until("the focus where it was", "return document.activeElement.dataset.send === 'pause'")
    page.type("[data-send=resume]", Keys.SPACE)
    page.until("the receipt of the resume", RECEIPT, "resume", "done")
    page.until("the page says so", PILL, "ok")


def sleep(page, trainer, url):
    page.click("[data-tab=runs]")
    page.click(".runs-table .name a")
    page.until("the curve again", AT_LEAST, trainer.epoch)
    page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    trainer.train(60)
    time.sleep(0.5)
    page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    _, took = page.until("what was missed asleep", AT_LEAST, trainer.epoch)
    print(f"a page that slept has caught up after {took:.2f} s")


def restart(page, trainer):
    page.run("window.marker = 'still here'")
    print("restart", flush=True)
    assert sys.stdin.readline().strip() == "done"
    started = time.time()
    page.until("the page is live again", PILL, "ok")
    print(f"live again {time.time() - started:.2f} s after the daemon was ready")
    trainer.train(50)
    page.until("the curve goes on", AT_LEAST, trainer.epoch)
    assert page.run("return window.marker") == "still here", "without being loaded again"


def narrow(page, url):
    page.size(390, 844, "dark")
    for view in ["#/runs", "#/compare", "#/pipeline"]:
        page.run("location.hash = arguments[0]", view)
        page.until("the view", "return location.hash.startsWith(`#/${document.body.dataset.view}`) && document.querySelector('main h1') !== null")
        # What arrives a moment later is part of it.
        time.sleep(0.3)
        page.until(f"{view} to fit a telephone", FITS)
    dark = page.run("return getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    page.until("the switch, which wins over the system", "return getComputedStyle(document.body).backgroundColor !== arguments[0]", dark)


NOTE = "return document.querySelector('.curve-note').textContent"
# Hatching of gaps on the first chart.
HATCHED = """
const canvas = document.querySelector('.plot canvas');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let drawn = 0;
for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] > 60 && pixels[at] > 170 && pixels[at] < 225 && pixels[at + 1] < 90 && pixels[at + 2] < 100) drawn += 1;
return drawn;
"""
EPOCHS = 9000
# Rows that the store loses: nobody but their numbers tells.
LOST = (4001, 4040)


def closer(url, port, database):
    trainer = Trainer(port, f"long {uuid.uuid4()}")
    trainer.start()
    trainer.train(EPOCHS, pause=0)
    with Browser() as page:
        page.open(url)
        page.until("the run", "return document.querySelector('h1') && document.querySelector('h1').textContent === arguments[0]", trainer.name)
        # All of it, in as many points as a picture needs.
        page.until("fewer points", f"return document.querySelector('.curve-note') && document.querySelector('.curve-note').textContent.includes('of {EPOCHS:,}')")
        print(page.run(NOTE))
        page.until("the line is drawn", "return (() => {" + DRAWN + "})() > 0")
        page.until("nothing is missing yet", "return (() => {" + HATCHED + "})() === 0")

        drag(page, 0.40, 0.50)
        _, took = page.until("every row of the part", "return document.querySelector('.curve-note').textContent.includes('exact, of this part')")
        seen = page.run(POINTS)
        print(f"a tenth of {EPOCHS} rows: {seen} points, {took:.2f} s after the drag: {page.run(NOTE)}")
        assert EPOCHS * 0.09 < seen < EPOCHS * 0.12, seen
        page.until("the line is drawn", "return (() => {" + DRAWN + "})() > 200")
        drag(page, 0.2, 0.8)
        time.sleep(0.5)
        assert page.run(POINTS) == seen, f"what is exact is not asked for again: {seen}, then {page.run(NOTE)}"
        # What arrives meanwhile moves nothing.
        trainer.train(20)
        time.sleep(0.5)
        assert page.run(POINTS) == seen and "of this part" in page.run(NOTE)
        page.double_click(".u-over")
        page.until("the whole again", "return /points of [\\d,]+, buckets/.test(document.querySelector('.curve-note').textContent)")
        drag(page, 0.1, 0.3)
        page.until("another part", "return document.querySelector('.curve-note').textContent.includes('of this part')")
        page.run("[...document.querySelectorAll('button')].find((button) => button.textContent === 'Whole run').focus()")
        page.press(Keys.ENTER)
        page.until("the whole again, by keyboard", "return !document.querySelector('.curve-note').textContent.includes('of this part')")
        assert page.run("return [...document.querySelectorAll('button')].find((button) => button.textContent === 'Whole run').hidden")

        with sqlite3.connect(database, timeout=20) as store:
            lost = store.execute("DELETE FROM training_metrics_rows WHERE seq BETWEEN ? AND ?", LOST).rowcount
        assert lost == LOST[1] - LOST[0] + 1
        page.until("its address", "return !location.hash.includes('from=')")
        # What a run lacks is kept for some seconds where it took long to find: the page may be told the former answer once more.
        text, limit = None, time.time() + 60
        while not text and time.time() < limit:
            page.driver.refresh()
            page.until("the run again", "return document.querySelector('.curve-note') && document.querySelector('.curve-note').textContent")
            time.sleep(2)
            text = page.run("const hole = document.querySelector('.gaps li[data-reason=missing_seq]'); return hole && hole.textContent")
        assert text, "what is not stored is told"
        assert text.startswith(f"{lost} not stored, seq {LOST[0]} to {LOST[1]}"), text
        hatched, _ = page.until("the hole on the curve", "return (() => {" + HATCHED + "})()")
        print(f"{text}: {hatched} pixels")
        # The hole is at the place of its rows; closer, it is wider, and elsewhere it is not seen.
        part = LOST[0] / EPOCHS
        drag(page, part - 0.02, part + 0.02)
        wide, _ = page.until("a wider hole", "const now = (() => {" + HATCHED + "})(); return now > 3 * arguments[0] && now", hatched)
        print(f"closer: {wide} pixels")
        page.button("Whole run")
        page.until("the whole again", "return !document.querySelector('.curve-note').textContent.includes('of this part')")
        drag(page, 0.7, 0.9)
        page.until("a part without it", "return document.querySelector('.curve-note').textContent.includes('of this part') && (() => {" + HATCHED + "})() === 0")
        assert not page.complaints(), page.complaints()


def drag(page, start, end):
    """Over this part of the first chart."""
    page.drag(".u-over", start, end)


def served(url, port):
    with Browser() as page:
        page.open(url)
        page.until("the stream", PILL, "ok")
        trainer = Trainer(port, f"served {uuid.uuid4()}")
        trainer.start()
        trainer.train(20)
        page.until("the newest run is shown", "return document.querySelector('h1') && document.querySelector('h1').textContent === arguments[0]", trainer.name)
        page.until("its first points", AT_LEAST, 20)
        # By what the stream brings: a page that asks again and again reads the curve whenever it grows.
        unasked = asked = 0
        while unasked < 3:
            before = page.run(CURVE_READS)
            trainer.train(10)
            _, took = page.until("the curve grows", AT_LEAST, trainer.epoch)
            without = page.run(CURVE_READS) == before
            unasked, asked = unasked + without, asked + (not without)
            assert asked < 40, "the curve grows only when it is read again"
        print(f"the last points after {took:.2f} s; {unasked} of {unasked + asked} times without reading the curve")
        page.click("[data-tab=pipeline]")
        page.until("what it listens to", "return document.querySelector('main').textContent.includes('subscribed')")
        page.click("[data-send=flush]")
        page.until("the receipt of the daemon", RECEIPT, "flush", "done")
        assert not page.complaints(), page.complaints()


def tls(url, token, directory):
    port = relay(int(url.rsplit(":", 1)[1]), directory)
    flags = ["--host-resolver-rules=MAP dash.example 127.0.0.1", "--ignore-certificate-errors"]
    signin(f"https://dash.example:{port}", token, "__Host-cascor_session", flags)


def signin(url, token, cookie="cascor_session", flags=()):
    with Browser(flags=flags) as page:
        page.open(f"{url}/#/pipeline")
        page.until("what is allowed is known", "return document.documentElement.dataset.scope")
        if page.run("return fetch('api/runs').then((answer) => answer.status)") != 401:
            # Reading is open here, and commands are not; elsewhere the page asks by itself.
            page.until("with what there would be commands", "return document.querySelector('.control').textContent.includes('scope `admin`')")
            page.click("#account")
        assert page.run("return document.querySelector('[data-send]') === null"), "no commands without a token"
        page.type("dialog[open] input", "no-such-token-0123456789", Keys.ENTER)
        page.until("it says that this is none", "return document.querySelector('dialog .problem').textContent.includes('not one of')")
        page.fill("dialog input", token, Keys.ENTER)
        page.until("it knows who we are", "return document.querySelector('#account').textContent.includes('ann')")
        assert page.run("return document.cookie") == "", "no script reads the session"
        kept = [(one["name"], one["secure"], one["path"], one["sameSite"]) for one in page.driver.get_cookies()]
        assert kept == [(cookie, cookie.startswith("__Host-"), "/", "Strict")], kept
        page.click("[data-send=flush]")
        page.until("the receipt", RECEIPT, "flush", "done")
        page.driver.refresh()
        page.until("it still knows", "return document.querySelector('#account').textContent.includes('ann')")
        page.click("#account")
        page.button("Sign out")
        page.until("signed out", "return document.querySelector('#account').textContent === 'Sign in'")
        assert not page.complaints(), page.complaints()


# The width of the pictures, and of the page in them.
PICTURE, PAGE = 900, 1280


def pictures(url, directory):
    with Browser() as page:
        page.open(url)
        # No scroll bar in a picture.
        page.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        runs = page.run("return fetch('api/runs?limit=5&sort=start_time').then((answer) => answer.json()).then(({runs}) => runs)")
        # One that has ended has more to show.
        shown = next((run for run in runs if run["status"] == "completed"), runs[0])["run_id"]
        compared = "&".join(f"run={run['run_id']}" for run in runs)
        views = {"run": f"#/run/{shown}", "table": "#/runs", "compare": f"#/compare?{compared}", "pipeline": "#/pipeline", "phone": f"#/run/{shown}"}
        for name, view in views.items():
            width, height = (390, 844) if name == "phone" else (PAGE, 860)
            for scheme in ("light", "dark"):
                page.size(width, height, scheme)
                page.run("location.hash = arguments[0]", view)
                page.driver.refresh()
                if "run=" in view or "/run/" in view:
                    page.until("its curves", "return document.querySelector('.u-legend') !== null")
                time.sleep(8 if name == "pipeline" else 2)
                clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": min(1, PICTURE / width)}
                answer = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": False})
                path = os.path.join(directory, f"{name}-{scheme}.png")
                with open(path, "wb") as file:
                    file.write(base64.b64decode(answer["data"]))
                size = os.path.getsize(path)
                print(f"{path}: {size // 1024} KiB")
                assert size < 150_000, path


if __name__ == "__main__":
    what, url, more = sys.argv[1:4]
    {"walk": lambda: walk(url, int(more)), "closer": lambda: closer(url, int(more), sys.argv[4]), "served": lambda: served(url, int(more)), "signin": lambda: signin(url, more), "tls": lambda: tls(url, more, sys.argv[4]), "pictures": lambda: pictures(url, more)}[what]()
    print("fine")
