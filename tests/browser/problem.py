"""What the dashboard says while the store needs a person, and that it stops saying so once the store is mended.

    problem.py URL FILE     FILE is not a database; the command that the page names mends that

Started by tests/it/browser.rs. Needs what parts.py needs.
"""

import subprocess
import sys

from parts import Browser

ALERT = "return (document.querySelector('main [role=alert]') || {}).textContent || ''"


def main(url, file):
    with Browser() as page:
        page.open(f"{url}/#/pipeline")
        page.until("the alert", "return document.querySelector('main [role=alert] code') !== null")
        text = page.run(ALERT)
        for part in ("held", "the store is misconfigured", "since", "damaged or not a SQLite database", file):
            assert part in text, f"{part}: {text}"
        page.until("its state", "return document.querySelector('.states').textContent.includes('holds rows back')")
        page.until("the same in the head", "return document.querySelector('#connection span').textContent === 'held'")
        page.until("and in the bar", "return document.querySelector('#notice').textContent.includes('is misconfigured')")
        remedy = page.run("return document.querySelector('main [role=alert] code').textContent")
        print(remedy)
        subprocess.run(remedy, shell=True, check=True)
        page.until("the alert is gone", "return document.querySelector('main [role=alert]') === null")
        page.until("that it answers", "return document.querySelector('.states').textContent.includes('answers')")
        page.until("all is well again", "return document.querySelector('#connection span').textContent === 'ok' && document.querySelector('#notice').hidden")
        assert not page.complaints(), page.complaints()


if __name__ == "__main__":
    main(*sys.argv[1:3])
    print("fine")
