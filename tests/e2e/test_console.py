"""A new user with a browser opens the login link, adds a provider, sends a recording, and reads the cost and its
causes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from playwright.sync_api import Error as PlaywrightError
from tests.support.browser import ARRIVES_MS, chromium
from tests.support.otlp_bodies import SECRET, Group, codex_record, codex_response, encode
from tests.support.product import COMMAND, Product, product
from tests.support.replay import Body, post
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
PAGES = ("/", "/providers", "/providers/billing/openai", "/sessions", "/deadletters", "/bills", "/openai", "/health")
WITHOUT_FILES = """() => [...document.querySelectorAll("main table")].filter(table => {
  for (let at = table; at.id !== "main"; at = at.parentElement) {
    if (at.querySelector(".files") || (at.nextElementSibling && at.nextElementSibling.matches(".files"))) return false;
  }
  return true;
}).map(table => table.innerText.slice(0, 80))"""
"""Tables with no link to a file of them in their section, or after it."""
WITHOUT_LINK = """() => [...document.querySelectorAll("main tbody td.n, main .big")]
  .filter(cell => /[0-9]/.test(cell.innerText) && !cell.querySelector("a") && !cell.closest(".charges"))
  .map(cell => cell.parentElement.innerText.slice(0, 80))"""
"""Numbers that do not lead to what they are made of; a price and a count of tokens of one kind are made of nothing."""
SHOTS = Path(__file__).resolve().parents[2] / "build" / "console"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
"""Schemathesis' checks of what is answered."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with product(tmp_path_factory.mktemp("console") / "data") as found:
        found.cli("console", "link")
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def link(running: Product) -> str:
    url: str = running.json("console", "link")["url"]
    return url


def open_link(page: Page, url: str) -> str:
    """Follow a link, as soon as the console answers; return the base URL."""
    base = url.partition("/login")[0]

    def answers() -> bool:
        try:
            return page.request.get(f"{base}/static/icon.svg").ok
        except PlaywrightError:
            return False

    eventually(answers, "the console answers")
    page.goto(url)
    return base


def serious(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


def test_console_shows_a_new_session_and_explains_its_cost(running: Product, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
    url = link(running)
    base = open_link(page, url)
    page.on("request", lambda asked: foreign.append(asked.url) if not asked.url.startswith(base) else None)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert "token" not in page.url

    page.get_by_role("link", name="Providers").click()
    page.get_by_label("Agent").select_option("codex")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create provider").click()
    expect(page.get_by_text("Copy this now.")).to_be_visible()
    endpoint = page.locator("#base-url").inner_text()
    config = page.locator("#config").inner_text()
    assert "[otel]" in config
    assert endpoint in config
    secret = page.locator("#ingest-id").inner_text()

    page.get_by_role("link", name="Done").click()
    row = page.get_by_role("row", name=re.compile("laptop"))
    expect(row).to_contain_text("waiting for the first request")
    assert secret not in page.content()
    expect(page.locator("#live-state")).to_have_text("live")

    fleet = subprocess.run(
        running.command(
            "simulate", "--endpoint", endpoint, "--agents", "1", "--requests", "12", "--seed", "3", "--client", "codex",
            "--truth", str(tmp_path / "truth.json"),
        ),
        env=running.environment, capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert fleet.returncode == 0, fleet.stderr
    # The page is not reloaded; the row itself must change.
    expect(row).not_to_contain_text("waiting")

    page.get_by_role("link", name="Sessions").click()
    first = page.locator("#sessions-list tbody th a").first
    expect(first).to_be_visible(timeout=ARRIVES_MS)
    running.cli("wait", "--caught-up", "--timeout", "180")
    truth = running.json("cost", "sessions")["rows"]
    dearest = truth[0]
    there = f"{base}/session?connection={dearest['connection_id']}&id={dearest['session_id']}"
    eventually(lambda: page.request.get(there).ok, "the ledger has the session")
    page.goto(there)
    whole = sum(
        (Decimal(one["cost_usd"] or 0) for one in truth if one["session_id"] == dearest["session_id"]), Decimal(0)
    )
    expect(page.locator("#session-cost")).to_have_attribute("data-usd", f"{whole.normalize():f}")
    expect(page.get_by_role("heading", name="How the cost was computed")).to_be_visible()
    charges = page.request.get(base + (page.locator("a[href*='table=charges'][download]").get_attribute("href") or ""))
    assert charges.status == 200
    assert charges.text().startswith("hour,model,")
    sums = page.locator(".charges tfoot td").all_inner_texts()
    if len(sums) == page.locator(".bucket").count():
        assert sum(map(Decimal, sums)) == whole
    assert foreign == []
    assert complaints == []


def test_session_page_shows_started_sessions_and_plan_billing(running: Product, browser: Browser) -> None:
    """A ChatGPT login whose session starts a subagent: from the client's records to both pages and the table."""
    child, now = "01a1ffa0-ba82-70b2-8c49-8b4fec05b4b6", time.time_ns()
    output = f'{{"agent_id":"{child}","nickname":"{SECRET}"}}'
    records = [
        codex_response("parent", "gpt-5", now),
        codex_record("codex.tool_result", "parent", "gpt-5", now, tool_name="spawn_agent", output=output),
        codex_response(child, "gpt-5", now + 1),
    ]
    body = encode([Group([one.having(auth_mode="Chatgpt") for one in records])], Encoding.PROTOBUF)
    connection = running.json("connections", "create", "codex", "--name", "family")
    sent = Body("logs", {"content-type": "application/x-protobuf"}, body)
    assert post(connection["logs_url"], sent) == 200
    running.cli("wait", "--caught-up", "--timeout", "180")
    only = ("--connection", connection["connection_id"])
    alone = running.json("cost", "sessions", *only)["rows"]
    (whole,) = running.json("cost", "sessions", "--with-children", *only)["rows"]
    assert (whole["session_id"], whole["children"], whole["requests"]) == ("parent", [child], 2)
    assert {one["attribution"]["billing"] for one in alone} == {"plan"}
    assert "part of no bill" in " ".join(running.cli("cost", "sessions", *only).split())

    page = browser.new_page()
    base = open_link(page, link(running))
    there = f"{base}/session?connection={connection['connection_id']}&id=parent"
    eventually(lambda: page.request.get(there).ok, "the ledger has the session")
    page.goto(there)
    expect(page.get_by_role("heading", name="Sessions that it started")).to_be_visible(timeout=ARRIVES_MS)
    expect(page.locator("#plan")).to_contain_text("A plan pays for this usage")
    assert serious(page) == []
    page.locator("section[aria-labelledby=family] tbody th a").click()
    expect(page.get_by_role("heading", name=child)).to_be_visible()
    expect(page.get_by_text("Started by")).to_be_visible()
    assert SECRET not in page.content()
    page.goto(base)
    expect(page.locator("#plan")).to_contain_text("a plan pays for")


def _is_complaint(said: ConsoleMessage) -> bool:
    """Tell whether the browser refused something, because the pages' policy forbids foreign and inline code."""
    return said.type == "error"


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (1280, "light"), (3840, "dark")])
def test_console_pages_are_accessible_and_fit_the_screen(
    running: Product, browser: Browser, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    base = open_link(page, link(running))
    SHOTS.mkdir(parents=True, exist_ok=True)
    for path in PAGES:
        page.goto(base + path)
        assert serious(page) == [], path
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{path} is wider than a screen of {width}"
        page.screenshot(path=SHOTS / f"{width}-{scheme}{path.replace('/', '-')}.png", full_page=True)
    context.close()


def test_each_number_leads_on_and_each_table_has_files(running: Product, browser: Browser) -> None:
    page = browser.new_page()
    base = open_link(page, link(running))
    for path in (*PAGES, "/?range=30d"):
        page.goto(base + path)
        assert page.evaluate(WITHOUT_FILES) == [], path
        assert path == "/health" or page.evaluate(WITHOUT_LINK) == [], path
        for href in {one.get_attribute("href") or "" for one in page.locator(".files a").all()}:
            assert page.request.get(base + href).status == 200, href
    connection = running.json("connections", "create", "codex", "--name", "numbers")
    body = encode([Group([codex_response("numbers", "gpt-5", time.time_ns())])], Encoding.PROTOBUF)
    assert post(connection["logs_url"], Body("logs", {"content-type": "application/x-protobuf"}, body)) == 200
    page.goto(f"{base}/sessions")
    page.locator("#sessions-list tbody th a").first.click(timeout=ARRIVES_MS)
    assert page.evaluate(WITHOUT_FILES) == []


def test_billing_of_a_provider_is_added_by_its_setting(running: Product, browser: Browser) -> None:
    page = browser.new_page()
    base = open_link(page, link(running))
    page.goto(f"{base}/providers")
    page.get_by_label("Agent").select_option("openai-billing")
    page.get_by_role("button", name="Create provider").click()
    expect(page.get_by_role("heading", name="OpenAI billing")).to_be_visible()
    expect(page.locator("#config")).to_contain_text("TALLYSTREAM_OPENAI_ADMIN_TOKEN=")
    assert page.locator("input:not([type=hidden])").count() == 0, "a key is never entered on a page"


def test_console_works_without_javascript(running: Product, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    base = open_link(page, link(running))
    page.goto(f"{base}/providers")
    page.get_by_label("Agent").select_option("claude")
    page.get_by_label("Name").fill("ci")
    page.get_by_role("button", name="Create provider").click()
    expect(page.get_by_text("Copy this now.")).to_be_visible()
    for path in PAGES:
        page.goto(base + path)
        expect(page.get_by_role("navigation", name="Pages", exact=True)).to_be_visible()
    context.close()


def test_console_link_works_once_and_is_required(running: Product, browser: Browser) -> None:
    url = link(running)
    first, second = browser.new_context(), browser.new_context()
    base = open_link(first.new_page(), url)
    assert first.request.get(f"{base}/api/v1/me").status == 200
    page = second.new_page()
    page.goto(url)
    expect(page.get_by_text("This link is not valid")).to_be_visible()
    assert second.request.get(f"{base}/api/v1/sessions").status == 401
    assert second.request.get(f"{base}/", headers={"Host": "evil.example"}).status == 421
    me = first.request.get(f"{base}/api/v1/me").json()
    create = {"provider": "codex", "name": "x"}
    assert first.request.post(f"{base}/api/v1/connections", data=create).status == 403
    forged = {"X-CSRF-Token": me["csrf"], "Origin": "https://evil.example"}
    assert first.request.post(f"{base}/api/v1/connections", data=create, headers=forged).status == 403
    made = first.request.post(f"{base}/api/v1/connections", data=create, headers={"X-CSRF-Token": me["csrf"]})
    assert made.status == 201


def test_console_api_matches_its_openapi_document(running: Product, browser: Browser) -> None:
    context = browser.new_context()
    base = open_link(context.new_page(), link(running))
    cookie = "; ".join(f"{one['name']}={one['value']}" for one in context.cookies())
    csrf = context.request.get(f"{base}/api/v1/me").json()["csrf"]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{base}/api/v1/openapi.json",
            "--header", f"Cookie: {cookie}", "--header", f"X-CSRF-Token: {csrf}", "--max-examples", "15", "--seed", "1",
            "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color",
            "--checks", CHECKS,
        ],
        capture_output=True, text=True, timeout=400, check=False, env=running.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None
    assert int(tested[1]) >= 13, "every operation was tried"
