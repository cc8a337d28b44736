"""A person at the status page, in a real Chromium: sees a job go from green to red to green, reads why, presses buttons."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import CHROMIUM, DRIVER, WHY_NOT, chromium
from harness import Mainstay, wait_for

pytest.importorskip("selenium", reason="selenium is not installed (dev group)")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=WHY_NOT), pytest.mark.timeout(240)]

HOSTILE = '"><img src=x onerror=document.title=1>'
SCRIPT = """
import os, sys
def walk(n):
    return walk(n + 1)
print("begins", os.environ["MAINSTAY_RUN"], '"><img src=x onerror=document.title=1>', chr(27) + "[2J", flush=True)
if not os.path.exists("well"):
    walk(0)
print("well done", flush=True)
"""
JOBS = f"""
defaults: {{restart: {{when: never}}}}
jobs:
  flaky:
    description: '{HOSTILE}'
    command: [python3, flaky.py]
    schedule: manual
    limits: {{recursion: 300, memory: 128MiB, time: 1m}}
  talker:
    shell: "while :; do date; sleep 0.2; done"
"""


class Open(Mainstay):
    """A daemon on loopback whose status page takes changes."""

    def write_config(self, text: str) -> None:
        head = f"supervisor: {{state_dir: state, listen: '127.0.0.1:{self.port}', actions: loopback}}\n"
        self.config.write_text(head + text)
        self.config.chmod(0o600)


@pytest.fixture
def mainstay(tmp_path: Any) -> Iterator[Mainstay]:
    (tmp_path / "flaky.py").write_text(SCRIPT)
    (tmp_path / "well").touch()
    one = Open(tmp_path, JOBS)
    try:
        yield one.start()
    finally:
        one.close()


def text_of(driver: Any, selector: str) -> str:
    """The text of the first such element, "" while there is none (it may just be swapped)."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By

    try:
        return str(driver.find_element(By.CSS_SELECTOR, selector).text)
    except WebDriverException:
        return ""


def wait(question: Callable[[], Any], what: str) -> None:
    wait_for(question, what, 60.0)


def press(driver: Any, words: str) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By

    def pressed() -> bool:
        try:
            driver.find_element(By.XPATH, f"//button[text()='{words}']").click()
        except WebDriverException:  # it was swapped under the finger
            return False
        return True

    wait(pressed, f"the button {words}")


def complaints(driver: Any) -> list[str]:
    """What the browser said against our pages: policy violations, errors of the script, failed requests."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_a_person_follows_a_job_from_green_to_red_to_green(mainstay: Mainstay) -> None:
    base = f"http://127.0.0.1:{mainstay.port}"
    with chromium() as driver, chromium(390, 844, dark=True) as phone:
        mainstay.run_job("flaky")
        for each in (driver, phone):
            each.get(base + "/")
            wait(lambda each=each: text_of(each, "h1") == "All is well", "green")
            wait(
                lambda each=each: each.execute_script("return document.querySelector('#pulse').className") == "pulse live",
                "that it is live",
            )
        phone.get(base + "/jobs/flaky")

        (mainstay.folder / "well").unlink()
        press(phone, "Run now")  # the phone acts, the desk only looks on
        wait(lambda: "Asked to run once" in text_of(phone, "#asked"), "the answer to the button")
        wait(lambda: text_of(driver, "h1") == "1 job needs attention", "red, without a reload")
        wait(lambda: "ran away in recursion" in text_of(driver, "tr.attention"), "what happened, in words")
        wait(lambda: "ran away in recursion" in text_of(phone, "#facts"), "the same on the phone")

        driver.get(base + "/")
        wait(lambda: "flaky" in text_of(driver, ".incidents"), "the incident")
        driver.execute_script("document.querySelector('.incidents a').click()")
        wait(lambda: "What called itself" in text_of(driver, "#dossier"), "the dossier")
        dossier = text_of(driver, "#dossier")
        assert "walk" in dossier
        assert "How to override" in dossier
        assert "RecursionError" in dossier
        press(driver, "Acknowledge")
        wait(lambda: "acknowledged" in text_of(driver, "#head"), "that it is acknowledged")

        (mainstay.folder / "well").touch()
        driver.get(base + "/")
        press(phone, "Run now")
        wait(lambda: "succeeded" in text_of(phone, "#facts"), "well again on the phone")
        wait(lambda: "succeeded" in text_of(driver, "#jobs tr:has(a[href='/jobs/flaky'])"), "well again on the desk")
        incident = mainstay.ask("/incidents")["incidents"][0]
        if incident["closed_at"] is None:  # a bug that may come back is closed by a person, or by time
            driver.get(f"{base}/incidents/{incident['incident']}")
            press(driver, "Resolve")
            driver.get(base + "/")
        wait(lambda: text_of(driver, "h1") == "All is well", "green")
        assert driver.title == "Jobs · Mainstay", "no text of a job ran as a script"
        assert [complaints(driver), complaints(phone)] == [[], []]


def test_output_is_live_and_what_a_job_writes_is_only_text(mainstay: Mainstay) -> None:
    with chromium(390, 844) as driver:
        driver.get(f"http://127.0.0.1:{mainstay.port}/jobs/talker")
        wait(lambda: "live" in text_of(driver, "#log-of"), "the stream")
        before = len(text_of(driver, "#log"))
        wait(lambda: len(text_of(driver, "#log")) > before + 50, "more output")
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the edge of a phone"
        mainstay.run_job("flaky")
        driver.get(f"http://127.0.0.1:{mainstay.port}/jobs/flaky")
        wait(lambda: "well done" in text_of(driver, "#log"), "its output")
        assert HOSTILE in text_of(driver, "#log")
        assert driver.execute_script("return document.querySelectorAll('main img').length") == 0
        assert driver.title == "flaky · Mainstay"
        for page in ("/", "/runs", "/incidents", "/runs/1"):
            driver.get(f"http://127.0.0.1:{mainstay.port}{page}")
            assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), page
        assert complaints(driver) == []


def test_without_javascript_the_page_reads_and_the_buttons_work(mainstay: Mainstay) -> None:
    with chromium(scripts=False) as driver:
        driver.get(f"http://127.0.0.1:{mainstay.port}/")
        assert text_of(driver, "h1") == "All is well"
        driver.get(f"http://127.0.0.1:{mainstay.port}/jobs/flaky")
        press(driver, "Run now")
        wait(lambda: "Asked to run once" in text_of(driver, "#asked"), "the answer")
        wait(lambda: bool(mainstay.runs("flaky")), "its run")
        mainstay.wait_for_end("flaky", mainstay.runs("flaky")[0]["run"])
        wait(lambda: "succeeded" in text_of(driver, "#facts"), "that the page loads itself anew")


def test_readers_are_offered_no_buttons(make: Callable[..., Mainstay]) -> None:
    mainstay = make("jobs:\n  hello: {command: [echo, hello], schedule: manual}\n").start()
    with chromium() as driver:
        driver.get(f"http://127.0.0.1:{mainstay.port}/jobs/hello")
        assert text_of(driver, "h1").startswith("hello")
        assert driver.execute_script("return document.querySelectorAll('form, button').length") == 0
