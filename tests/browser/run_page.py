"""Drives the page of a run and the comparison in a real headless browser: what people change, links, configurations beside each other.

    run_page.py manage URL REDIS_PORT   details of a run, two people who change it, links to runs, a comparison
    run_page.py signed URL TOKEN        changes that need a token

Started by tests/it/browser.rs. Needs what parts.py needs; ends with status 0 when everything holds.
"""

import sys

from selenium.webdriver.common.keys import Keys

from parts import Browser
from sweep import SAYS, SEEDS, SELECTED, ask, box, matching, picture, soon, sweep

SHOWN = "return document.querySelector('.details') !== null && document.querySelector('h1').textContent === arguments[0]"
NOTES = "return document.querySelector('.notes').textContent === arguments[0] && !document.querySelector('.edited.saving')"
NOTES_PROBLEM = "return document.querySelector('[data-edit=notes] .problem').textContent.includes(arguments[0])"
ROWS = "return document.querySelectorAll('.compared tbody tr').length === arguments[0]"
VALUES = ROWS + " && document.querySelector('.compared').textContent.includes('train_loss last')"
#: Somebody else changes the notes, and the page saves before it can hear of that.
BEHIND_ITS_BACK = """
const other = new XMLHttpRequest();
other.open('PATCH', 'api/runs/winner', false);
other.setRequestHeader('Content-Type', 'application/json');
other.send(JSON.stringify({notes: 'newer'}));
document.querySelector('[data-edit=notes] textarea').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true}));
return other.status;
"""


def manage(url):
    sweep(url)
    with Browser() as page:
        page.open(f"{url}/#/runs?q=sweep-lr0.00")
        compared(page)
        details(page, url)
        two_people(page, url)
        links(page, url)
        complaints = page.complaints()
        assert not complaints, complaints


def compared(page):
    page.until("the runs", SAYS, "5 runs match")
    page.click(box(1))
    page.click(box(5))
    page.until("two", SELECTED, "2 selected")
    page.click("[data-do=compare]")
    page.until("the difference", "return document.querySelector('.differences [data-key=seed]') !== null")
    page.until("its values", VALUES, 2)
    differ = page.run("return [...document.querySelector('.differences').querySelectorAll('[data-key]')].map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert differ == [["seed", "4", "0"]], differ
    equal = page.run("return [...document.querySelectorAll('.equal [data-key]')].map((row) => row.dataset.key)")
    assert equal == ["lr", "net.act", "net.layers"], equal
    assert page.run("return document.title") == "Compare 2 runs - cascor-ingest"
    page.until("how many fit", "return document.querySelector('.fits').textContent === '2 of at most 16 runs'")
    address = page.driver.current_url
    assert address.count("run=") == 2, address
    picture(page, "compare-run")
    # A link is enough, in a tab that knows nothing.
    page.run("sessionStorage.clear()")
    page.driver.get("about:blank")
    page.open(address)
    page.until("both runs of the link", VALUES, 2)
    page.run("document.querySelector('.compared tbody button').click()")
    page.until("one is taken out", ROWS + " && (location.hash.match(/run=/g) || []).length === 1", 1)
    page.run("document.querySelector('.compared tbody button').click()")
    page.until("what to do", "return document.querySelector('main').textContent.includes('No run is selected') && document.querySelector('.fits').textContent === 'At most 16 runs fit in one comparison.'")


def details(page, url):
    page.driver.get(f"{url}/#/run/sweep-lr0.09-seed1")
    page.until("by its name", SHOWN + " && document.title === 'sweep-lr0.09-seed1 - cascor-ingest'", "sweep-lr0.09-seed1")
    text = page.find(".details").text
    for part in ["Configuration, 4 keys", "net.layers", "[4,8]", "spiral" if 46 % 2 == 0 else "circles", "194 samples", "sweep-lr0.09-seed1", "sweep"]:
        assert part in text, f"{part}: {text}"
    for part in ["Parameters", "Created by", "Restarted"]:
        assert part not in text, f"{part} has no value"
    picture(page, "run")

    page.click("[data-edit=notes] button")
    page.fill("[data-edit=notes] textarea", "two\nlines", Keys.CONTROL, Keys.ENTER)
    page.until("the notes", NOTES, "two\nlines")
    assert ask(f"{url}/api/runs/sweep-lr0.09-seed1")["run"]["notes"] == "two\nlines"
    page.click("[data-edit=notes] button")
    page.fill("[data-edit=notes] textarea", "never", Keys.ESCAPE)
    page.until("the notes as they were", NOTES, "two\nlines")

    page.type("[data-edit=tags] input", "best of all", Keys.ENTER)
    page.until("the tag", "return [...document.querySelectorAll('.tag-list .tag a')].some((tag) => tag.textContent === 'best of all') && !document.querySelector('.tag.saving')")
    page.click("[aria-label='Remove the tag sweep']")
    page.until("the tag is gone", "return !document.querySelector(\"[aria-label='Remove the tag sweep']\") && !document.querySelector('.tag.saving')")
    soon(lambda: ask(f"{url}/api/runs/sweep-lr0.09-seed1")["run"]["tags"] == ["best of all"], "the tags are stored")

    page.click("[data-edit=name] button")
    page.fill("[data-edit=name] input", "e" * 300, Keys.ENTER)
    page.until("why it is refused", "const problem = document.querySelector('[data-edit=name] .problem').textContent; return problem.includes('256 characters')")
    assert page.run("return [document.querySelector('[data-edit=name] input').value.length, document.querySelector('h1').textContent]") == [300, "sweep-lr0.09-seed1"], "back, and the text is kept"
    page.fill("[data-edit=name] input", "winner", Keys.ENTER)
    page.until("the name", SHOWN + " && document.title === 'winner - cascor-ingest'", "winner")
    page.until("the list has it", "return [...document.querySelectorAll('#runs .entry b')].every((name) => name.textContent !== 'sweep-lr0.09-seed1')")
    soon(lambda: matching(url, "q=winner") == 1, "the name is stored")
    assert ask(f"{url}/api/runs/winner")["run"]["run_name"] == "sweep-lr0.09-seed1"

    page.click(".details [data-do=archive]")
    page.until("it is archived", "return document.querySelector('.details [data-do=archive]').textContent === 'Unarchive'")
    assert matching(url, "q=winner") == 0
    page.click(".details [data-do=archive]")
    page.until("it is not", "return document.querySelector('.details [data-do=archive]').textContent === 'Archive'")


def two_people(page, url):
    """What is typed stays, whatever arrives meanwhile."""
    page.click("[data-edit=notes] button")
    page.fill("[data-edit=notes] textarea", "mine")
    ask(f"{url}/api/runs/winner", "PATCH", {"notes": "theirs"})
    page.until("it says so", NOTES_PROBLEM, "theirs")
    assert page.run("return document.querySelector('[data-edit=notes] textarea').value") == "mine"
    picture(page, "both-run", ((1440, 1000, "light"),))
    page.fill("[data-edit=notes] textarea", "mine after all", Keys.CONTROL, Keys.ENTER)
    page.until("replaced on purpose", NOTES, "mine after all")
    assert ask(f"{url}/api/runs/winner")["run"]["notes"] == "mine after all"
    # A change that the page has not heard of yet is found before it is written over.
    page.click("[data-edit=notes] button")
    page.fill("[data-edit=notes] textarea", "over")
    assert page.run(BEHIND_ITS_BACK) == 200
    page.until("it says so", NOTES_PROBLEM, "newer")
    assert ask(f"{url}/api/runs/winner")["run"]["notes"] == "newer"
    page.type("[data-edit=notes] textarea", Keys.ESCAPE)
    page.until("theirs stays", NOTES, "newer")


def links(page, url):
    page.driver.get(f"{url}/#/run/nosuch run")
    page.until("it says so", "return document.querySelector('[data-unknown]') !== null && document.title.startsWith('nosuch run')")
    picture(page, "unknown")
    page.driver.get(f"{url}/#/run/00000000-0000-4000-8000-000000000000")
    page.until("an id likewise", "const name = document.querySelector('[data-unknown] b'); return name && name.textContent.startsWith('00000000')")
    for seed in (2, 3):
        ask(f"{url}/api/runs/sweep-lr0.09-seed{seed}", "PATCH", {"name": "twin"})
    page.driver.get(f"{url}/#/run/twin")
    page.until("both", "return document.querySelectorAll('.candidates a').length === 2")
    picture(page, "several")
    page.click(".candidates a")
    page.until("one of them", SHOWN, "twin")
    page.driver.back()
    page.until("back", "return document.querySelectorAll('.candidates a').length === 2")
    page.driver.forward()
    page.until("forward", SHOWN, "twin")


def signed(url, token):
    """A change after the session has ended asks for a token, keeps what was typed, and is made once somebody has signed in."""
    sweep(url, SEEDS, token)
    with Browser() as page:
        page.open(f"{url}/#/run/sweep-lr0.00-seed0")
        page.type("#dialog[open] input", token, Keys.ENTER)
        page.until("the run", SHOWN, "sweep-lr0.00-seed0")
        page.click("[data-edit=notes] button")
        page.fill("[data-edit=notes] textarea", "a note")
        # The session ends elsewhere, while the page believes in it. It may find that out by itself at any moment, and asks; the
        # keys are those of the field even then.
        page.driver.delete_all_cookies()
        page.run("document.querySelector('[data-edit=notes] textarea').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true}))")
        page.until("it asks again", "return document.querySelector('#dialog[open] input') !== null")
        page.until("it is not saved", NOTES_PROBLEM, "Not saved")
        assert page.run("return document.querySelector('[data-edit=notes] textarea').value") == "a note", "what was typed is kept"
        page.type("#dialog input", token, Keys.ENTER)
        page.until("signed in", "return !document.querySelector('#dialog[open]')")
        page.type("[data-edit=notes] textarea", Keys.CONTROL, Keys.ENTER)
        page.until("it is saved", NOTES, "a note")
        assert ask(f"{url}/api/runs/sweep-lr0.00-seed0", token=token)["run"]["notes"] == "a note"
        assert not page.complaints(), page.complaints()


if __name__ == "__main__":
    what, url, more = sys.argv[1:4]
    {"manage": lambda: manage(url), "signed": lambda: signed(url, more)}[what]()
    print("fine")
