"""What the dashboard owes those who use it: rights, true states, widths, accessibility, keys, and finding its daemon again.

    care.py reader URL TOKENS_FILE    somebody who may only read has no buttons; a token that is removed ends the session, once
    care.py states URL REDIS_PORT     commands and whom they reach, and one word for one state; stops Redis
    care.py looks URL REDIS_PORT      320, 768 and 1440 px without sideways scroll; axe-core in both themes
    care.py keys URL REDIS_PORT       every view by keyboard; the focus, and the place on a telephone
    care.py away URL REDIS_PORT       a daemon that is away, asleep, behind a broken proxy, or of another version

Started by tests/it/browser.rs, which restarts the daemon when a line says `restart` and answers `done`.
Needs what parts.py needs; `looks` also axe.min.js, which CASCOR_TEST_AXE names.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.request
import uuid

from selenium.webdriver.common.keys import Keys

from parts import LIMIT, Browser, Door, Trainer

ADMIN, READER = "admin-token-0123456789", "reader-token-0123456789"
WORD = "return document.querySelector('#connection span').textContent === arguments[0]"
SCOPE = "return document.documentElement.dataset.scope === arguments[0]"
RECEIPT = "return document.querySelector(`.receipts li[data-command=${arguments[0]}][data-outcome=${arguments[1]}]`) !== null"
TITLE = "return document.querySelector('main h1') && document.querySelector('main h1').textContent === arguments[0]"
DIALOG = "return document.querySelector('dialog').open"
# Controls of somebody who may change things, that are there to be seen.
CHANGING = "return [...document.querySelectorAll('[data-send], [data-needs=admin]')].filter((one) => one.getClientRects().length).map((one) => one.outerHTML.slice(0, 120))"
WIDTHS = (320, 768, 1440)


def views(page):
    """The address of each view; the run is the first of the list."""
    run, _ = page.until("a run", "return document.querySelector('#runs [data-run]').dataset.run")
    return {"runs": "#/runs", "run": f"#/run/{run}", "compare": "#/compare", "pipeline": "#/pipeline"}


def show(page, address):
    page.run("location.hash = arguments[0]", address)
    page.until("the view", "return location.hash.split('?')[0].split('/')[1] === document.body.dataset.view && document.querySelector('main h1') !== null")
    # What arrives a moment later is part of it.
    time.sleep(0.5)


def runs(page, port, count):
    """So many runs, and a page that knows them."""
    trainers = [Trainer(port, f"care-{at} {uuid.uuid4()}") for at in range(count)]
    for trainer in trainers:
        trainer.start()
        trainer.train(60)
        trainer.grow(2)
    page.until("all runs", "return document.querySelectorAll('#runs [data-run]').length >= arguments[0]", count)
    return trainers


def reader(url, tokens):
    lines = open(tokens).read()
    with Browser() as page:
        page.open(f"{url}/#/pipeline")
        page.until("reading is open here", SCOPE, "read")
        assert not page.run(CHANGING), page.run(CHANGING)
        sign_in(page, READER)
        page.until("bob is signed in", "return document.querySelector('#account').textContent === 'bob (read)'")
        for address in ("#/runs", "#/compare", "#/pipeline"):
            show(page, address)
            assert not page.run(CHANGING), f"{address}: {page.run(CHANGING)}"
        page.until("why there are none", "const said = document.querySelector('.control').textContent; return said.includes('signed in as bob (read)') && said.includes('scope `admin`')")
        # His token goes, while the page is open.
        with open(tokens, "w") as file:
            file.write("".join(line for line in lines.splitlines(keepends=True) if not line.startswith("bob")))
        status = json.load(urllib.request.urlopen(f"{url}/api/status"))
        os.kill(int(status["process"].rsplit(":", 1)[1]), signal.SIGHUP)
        page.until("it says that the session has ended", "const dialog = document.querySelector('dialog'); return dialog.open && dialog.textContent.includes('The session of `bob` has ended')")
        page.type("dialog input", READER, Keys.ENTER)
        page.until("a removed token has its words", "return document.querySelector('dialog .problem').textContent.includes('removed or replaced')")
        page.press(Keys.ESCAPE)
        page.until("the dialog is closed", "return !document.querySelector('dialog').open")
        time.sleep(3)
        assert not page.run(DIALOG), "it asks once, and not again with every question"
        sign_in(page, ADMIN)
        page.until("ann may change things", SCOPE, "admin")
        page.until("and has the commands", "return document.querySelectorAll('[data-send]').length === 5")
        assert page.run("return document.querySelectorAll('[data-send].strong').length") == 0, "no command stands out"
        assert not page.complaints(), page.complaints()


def sign_in(page, token):
    page.click("#account")
    page.type("dialog[open] input", token, Keys.ENTER)
    page.until("it takes the token", "return !document.querySelector('dialog').open")


class Channel:
    """What is published on the control channel."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(b"SUBSCRIBE cascor:control\r\n")
        text = b""
        while not text.endswith(b":1\r\n"):
            text += self.socket.recv(65536)
        self.socket.settimeout(1)

    def heard(self):
        text = b""
        try:
            while part := self.socket.recv(65536):
                text += part
        except TimeoutError:
            pass
        return text.decode()


def states(url, port):
    channel = Channel(port)
    with Browser() as page:
        page.open(f"{url}/#/pipeline")
        page.until("the daemon is well", WORD, "ok")
        page.click("[data-send=reset]")
        page.until("it asks first", "return document.querySelector('dialog').open && document.querySelector('dialog').textContent.includes('Stored rows stay')")
        page.until("the focus on the harmless answer", "return document.activeElement.textContent === 'Cancel'")
        page.press(Keys.ENTER)
        page.until("it is dropped", "return !document.querySelector('dialog').open")
        time.sleep(0.5)
        assert page.run("return document.querySelector('.receipts li[data-command]') === null"), "nothing was sent"
        page.click("[data-send=reset]")
        page.click("dialog [data-confirm]")
        page.until("the receipt of the reset", RECEIPT, "reset", "done")
        page.click("[data-send=pause]")
        page.until("the head says it", WORD, "paused")
        page.until("the pipeline says it", "return document.querySelector('main .badge').textContent === 'paused'")
        page.until("the bar says it", "const said = document.querySelector('#notice').textContent; return said.includes('Paused: received and spooled, but not stored.') && said.includes('control resume --target')")
        page.until("one remedy in both places", "return document.querySelector('#notice').textContent.includes(document.querySelector('.remedy').textContent)")
        assert channel.heard() == "", "a command to this daemon is not on the channel"
        page.click("input[type=radio][value=everyone]")
        page.until("whom that reaches", "return document.querySelector('.targets').textContent.includes('Trainers')")
        page.click("[data-send=resume]")
        page.until("the receipt of the resume", RECEIPT, "resume", "done")
        page.until("all is well", WORD, "ok")
        published = channel.heard()
        assert '"resume"' in published and "target" not in published, published
        show(page, "#/compare")
        show(page, "#/pipeline")
        page.until("back to this daemon", "const first = document.querySelector('input[type=radio]'); return first && first.checked && first.value === 'own'")
        with socket.create_connection(("127.0.0.1", port)) as redis:
            redis.sendall(b"SHUTDOWN NOSAVE\r\n")
        page.until("the head says what is wrong", WORD, "not subscribed")
        page.until("what to do, in both places", "return document.querySelector('#notice').textContent.includes('start Redis') && document.querySelector('.remedy').textContent.includes('start Redis')")
        page.until("more about it", "return document.querySelector('#connection').title.includes('does not receive')")
        assert not page.complaints(), page.complaints()


#: Looks at a page that is drawn anew for another width.
TRIES = 8
AXE = """
const told = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ['violations']}).then(({violations}) => told(violations.filter(({impact}) => impact === 'serious' || impact === 'critical')
  .map(({id, help, nodes}) => `${id} (${help}): ${nodes.slice(0, 4).map((node) => node.target.join(' ') + ' ' + (node.any[0] ? node.any[0].message : '')).join(' | ')}`)));
"""


def accessible(page, what, found):
    for width, scheme in ((1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")):
        page.size(width, 900, scheme)
        if not page.run("return Boolean(window.axe)"):
            page.run(open(os.environ["CASCOR_TEST_AXE"]).read())
        # A page that is being drawn anew for this width may be in between.
        for rest in range(TRIES - 1, -1, -1):
            time.sleep(0.3)
            findings = page.driver.execute_async_script(AXE)
            if not findings or not rest:
                break
        found += [f"{what}, {width} px, {scheme}: {finding}" for finding in findings]


def sideways(page, what, found):
    for width in WIDTHS:
        page.size(width, 900)
        for _ in range(TRIES):
            time.sleep(0.4)
            wide = page.run("return document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
            if wide <= 0:
                break
        else:
            ends = page.run("const edge = document.documentElement.clientWidth; return [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > edge + 1 && getComputedStyle(one).position !== 'absolute').map((one) => `${one.tagName}.${one.className}`).slice(0, 5)")
            found.append(f"{what} is {wide} px too wide at {width} px: {ends}")


def looks(url, port):
    found = []
    with Browser() as page:
        page.driver.set_script_timeout(300)
        page.open(url)
        page.until("the daemon", WORD, "ok")
        for look in (accessible, sideways):
            look(page, "the page without a run", found)
        page.size(1440, 1000)
        trainers = runs(page, port, 4)
        # Lists that are longer than their boxes.
        for _ in range(40):
            trainers[-1].publish({"type": "cascade_add", "data": {"hidden_unit_index": 1, "correlation": 0.8}})
        page.run("document.querySelectorAll('#runs [data-run] input[type=checkbox]').forEach((box, at) => at < 3 && box.click())")
        for name, address in views(page).items():
            show(page, address)
            for look in (accessible, sideways):
                look(page, name, found)
        page.size(1440, 1000)
        page.press("?")
        page.until("the keys", DIALOG)
        accessible(page, "the dialog of keys", found)
        page.press(Keys.ESCAPE)
        show(page, "#/pipeline")
        page.click("[data-send=reset]")
        accessible(page, "the question before a reset", found)
        page.press(Keys.ESCAPE)
        page.until("the question is dropped", "return !document.querySelector('dialog').open")
        page.run("document.querySelector('#account').hidden = false; document.querySelector('#account').click()")
        page.until("the dialog to sign in", DIALOG)
        for look in (accessible, sideways):
            look(page, "the dialog to sign in", found)
        assert not page.complaints(), page.complaints()
    assert not found, "\n" + "\n".join(found)


RING = """
const focused = document.activeElement;
if (!focused || focused === document.body) return 'body';
const style = getComputedStyle(focused);
const box = focused.getBoundingClientRect();
const name = `${focused.tagName} ${focused.className} ${focused.textContent.trim().slice(0, 30)}`;
if (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2) return `no ring: ${name}`;
if (box.width < 1 || box.height < 1) return `not to be seen: ${name}`;
return name;
"""


def keys(url, port):
    with Browser() as page:
        page.open(url)
        page.until("the daemon", WORD, "ok")
        trainers = runs(page, port, 12)
        for letter, hash in (("p", "#/pipeline"), ("c", "#/compare"), ("r", "#/runs")):
            # The second key is waited for 1.5 s only.
            for _ in range(5):
                page.press("g", letter)
                with contextlib.suppress(AssertionError):
                    page.until(f"g {letter}", "return location.hash.startsWith(arguments[0])", hash, limit=LIMIT / 5)
                    break
            else:
                raise AssertionError(f"g {letter} does nothing")
        page.press("?")
        page.until("the keys", "return document.querySelector('dialog').open && document.querySelector('dialog').textContent.includes('next, previous run')")
        page.press("j")
        assert page.run(DIALOG), "keys behind a dialog do nothing"
        page.press(Keys.ESCAPE)
        page.until("Esc closes it", "return !document.querySelector('dialog').open")
        page.press("/")
        page.until("/ searches", "return document.activeElement.type === 'search'")
        page.press("g", "p")
        page.until("keys that are text in a field", "return document.activeElement.value === 'gp'")
        page.press(Keys.BACKSPACE, Keys.BACKSPACE, Keys.ESCAPE)
        page.until("Esc leaves the field", "return document.activeElement === document.body")
        walk(page, trainers)
        for name, address in views(page).items():
            show(page, address)
            page.run("document.activeElement.blur(); window.scrollTo(0, 0)")
            seen = set()
            for _ in range(60):
                page.press(Keys.TAB)
                ring = page.run(RING)
                assert not ring.startswith(("no ring", "not to be seen")), f"{name}: {ring}"
                seen.add(ring)
            assert len(seen) > 10, f"{name}: {seen}"
        telephone(page)
        assert not page.complaints(), page.complaints()


FOCUSED = "const row = document.activeElement.closest('[data-run]'); return row && row.dataset.run"


def walk(page, trainers):
    """Through the list and into a run, without a mouse; what arrives meanwhile takes the focus from nobody."""
    show(page, "#/pipeline")
    page.until("the list", "return document.querySelectorAll('#runs [data-run]').length >= arguments[0]", len(trainers))
    page.press("j", "j", "j")
    run = page.run(FOCUSED)
    order = page.run("return [...document.querySelectorAll('#runs [data-run]')].map((row) => row.dataset.run)")
    assert run in order, run
    for trainer in trainers[:3]:
        trainer.train(20)
    time.sleep(1)
    assert page.run(FOCUSED) == run, "the focus stays on its run"
    page.press("k")
    page.until("the row above", FOCUSED + " !== arguments[0]", run)
    run = page.run(FOCUSED)
    page.press("x")
    page.until("x ticks it", "return document.querySelector(`#runs [data-run='${arguments[0]}'] input`).checked", run)
    page.run("document.querySelector(`#runs [data-run='${arguments[0]}'] a`).focus()", run)
    page.press(Keys.ENTER)
    page.until("Enter opens it", "return location.hash.includes(arguments[0])", run)


def telephone(page):
    page.size(390, 600)
    show(page, "#/runs")
    page.until("a list longer than the screen", "return document.scrollingElement.scrollHeight > 1000")
    # The page notes its place when it has been drawn.
    page.run("window.scrollTo(0, 350); return new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    page.run("[...document.querySelectorAll('[data-run] a')].find((link) => link.getBoundingClientRect().top > 200 && link.getClientRects().length).click()")
    page.until("a run", "return location.hash.startsWith('#/run/') && document.querySelector('main h1') !== null")
    page.until("from its top", "return window.scrollY === 0")
    page.driver.back()
    page.until("the list where it was", "return location.hash.startsWith('#/runs') && Math.abs(window.scrollY - 350) < 3")


#: How many streams the page opens at once when the network is back.
ONLINE = """
const Before = window.EventSource;
let opened = 0;
window.EventSource = class extends Before { constructor(...all) { super(...all); opened += 1; } };
window.dispatchEvent(new Event('online'));
window.EventSource = Before;
return opened;
"""


def away(url, port):
    door = Door(int(url.rsplit(":", 1)[1]))
    trainer = Trainer(port, f"away {uuid.uuid4()}")
    trainer.start()
    trainer.train(20)
    with Browser() as page:
        page.open(f"http://127.0.0.1:{door.port}/#/runs")
        page.until("the daemon", WORD, "ok")
        page.run("window.marker = 'still here'")
        for mode, words in (("refuse", "does not answer"), ("502", "502 Bad Gateway")):
            door.mode = mode
            page.until(f"it says so ({mode})", WORD, "not connected")
            page.until("in words", "return document.querySelector('#notice').textContent.includes(arguments[0])", words)
            # Long enough for the longest pause between two tries.
            time.sleep(12)
            door.mode = "open"
            _, took = page.until("the page is live again", WORD, "ok")
            print(f"{mode} for {12} s: live again {took:.1f} s later")
        door.mode = "refuse"
        page.until("not connected", WORD, "not connected")
        time.sleep(8)
        door.mode = "open"
        assert page.run(ONLINE) == 1, "it tries at once when the network is back"
        page.until("live", WORD, "ok")
        page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
        print("restart", flush=True)
        assert sys.stdin.readline().strip() == "done"
        trainer.train(30)
        page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
        page.until("live behind a sleep and a restart", WORD, "ok")
        page.until("and caught up", "return [...document.querySelectorAll('#runs [data-run]')].some((row) => row.textContent.includes(arguments[0]))", trainer.name)
        page.until("no notice", "return document.querySelector('#notice').hidden")
        version = json.load(urllib.request.urlopen(f"{url}/api/status"))["version"]
        door.rewrite = (f'"version":"{version}"'.encode(), f'"version":"{version[:-1]}x"'.encode())
        page.until("another version", "return document.querySelector('#notice').textContent.includes('Reload the page')")
        assert page.run("return window.marker") == "still here", "until somebody chooses"
        page.click("#notice button")
        page.until("a new page", "return window.marker === undefined && document.querySelector('#connection span').textContent === 'ok'")
        page.until("no notice", "return document.querySelector('#notice').hidden")
        assert not page.complaints(), page.complaints()


if __name__ == "__main__":
    what, url, more = sys.argv[1:4]
    {"reader": reader, "states": states, "looks": looks, "keys": keys, "away": away}[what](url, more if what == "reader" else int(more))
    print("fine")
