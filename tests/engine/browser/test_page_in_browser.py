"""The page in a real browser, as somebody uses it who has never seen it."""

import shutil

import pytest
from named_page import CLUSTERS

from alps.engine.labels.classes import read_classes
from alps.engine.naming.names import read_names
from alps.engine.stages.naming import Suggestion

pytestmark = pytest.mark.usefixtures("one_thread")
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
MARKUP = "<img src=x onerror=document.title='hurt'>"
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as started:
        # Containers of CI have no user namespaces for the sandbox; the page is our own.
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """A function that opens a page and notes what it asks for and complains of."""
    contexts = []

    def open_page(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: page.complaints.append(said.text) if said.type == "error" else None,
        )
        page.goto(address)
        page.wait_for_selector(".card")
        return page

    yield open_page
    for context in contexts:
        context.close()


def wait_for(page, run, is_so):
    """Wait until what is on the disk is so."""
    for _ in range(PATIENCE_MS // 50):
        if is_so(read_names(run)):
            return read_names(run)
        page.wait_for_timeout(50)
    raise AssertionError(run.names.read_text() if run.names.exists() else "no names.json")


def until(page, expression):
    """Wait until an expression is true; playwright's own wait is refused by the page's policy."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def order_of(page):
    return page.evaluate(
        "[...document.querySelectorAll('.card')].map(c => Number(c.dataset.value))"
    )


@pytest.mark.slow
def test_classes_are_named_by_the_keyboard_alone(run, serve_page, visit):
    served = serve_page(run, lambda: {n: Suggestion("soil", 0.8) for n in range(CLUSTERS)})
    page = visit(served.address)
    served.post("leave", {"session": served.session})  # the test's own session
    page.wait_for_selector("#other", state="hidden")
    first, second, third, fourth, fifth, sixth = order_of(page)
    keys = page.keyboard

    # Names, each with Enter; the second of one name merges.
    keys.type("water")
    keys.press("Enter")
    keys.type(MARKUP)
    keys.press("Enter")
    wait_for(page, run, lambda names: names.of_cluster(second).name == MARKUP)
    # The disk has it before the page has heard so and shown the names anew.
    page.wait_for_function(
        "([place, name]) => document.querySelector(place)?.value === name",
        arg=[f"[data-value='{second}'] .name", MARKUP],
        timeout=PATIENCE_MS,
    )
    keys.type("water")
    keys.press("Enter")
    names = wait_for(page, run, lambda names: len(names.of_cluster(third).clusters) == 2)
    assert names.of_cluster(first).clusters == tuple(sorted((first, third)))
    # What real labels suggest is taken by a key.
    until(page, f"document.activeElement.closest('.card')?.dataset.value === '{fourth}'")
    keys.press("Control+Enter")
    wait_for(page, run, lambda names: names.of_cluster(fourth).name == "soil")

    # Chosen, merged and named; both undone.
    keys.press("Escape")
    for step in ("x", "ArrowRight", "x", "m"):
        keys.press(step)
    merged = min(fifth, sixth)
    wait_for(page, run, lambda names: len(names.of_cluster(fifth).clusters) == 2)
    until(page, f"document.activeElement.matches('[data-value=\"{merged}\"] .name')")
    keys.type("grass")
    keys.press("Enter")
    wait_for(page, run, lambda names: names.of_cluster(sixth).name == "grass")
    keys.press("Escape")
    keys.press("u")
    keys.press("u")
    wait_for(page, run, lambda names: len(names.of_cluster(fifth).clusters) == 1)

    # Split, and that undone.
    page.wait_for_selector(f"[data-value='{sixth}']")
    page.focus(f"[data-value='{sixth}']")
    keys.press("s")
    page.wait_for_selector("#split-dialog[open]")
    keys.type("2")
    keys.press("Enter")
    wait_for(page, run, lambda names: len(names.splits) == 1)
    page.wait_for_selector(f"[data-value='{CLUSTERS}']")
    assert order_of(page).index(CLUSTERS) == order_of(page).index(sixth) + 1
    keys.press("u")
    wait_for(page, run, lambda names: not names.splits)
    page.wait_for_selector(f"[data-value='{CLUSTERS}']", state="detached")

    # Ignored, and label maps painted.
    page.focus(f"[data-value='{sixth}']")
    keys.press("i")
    wait_for(page, run, lambda names: names.of_cluster(sixth).ignore)
    keys.press("p")
    page.wait_for_selector("#older", state="hidden")
    run.refuse_unpainted()
    classes = {one.id: one for one in read_classes(run.classes).classes}
    merged = min(first, third)
    assert classes[merged].name == "water" and classes[second].name == MARKUP
    assert classes[sixth].ignored and classes[fourth].name == "soil"

    assert page.title() != "hurt" and not page.complaints
    host = f"127.0.0.1:{served.port}"
    assert page.asked and all(url.split("/")[2] == host for url in page.asked)


def test_the_map_takes_the_colours_of_classes_at_once(run, serve_page, visit):
    served = serve_page(run)
    page = visit(served.address)
    served.post("leave", {"session": served.session})
    page.wait_for_selector("#other", state="hidden")
    page.fill("#opacity", "100")
    pixel = """() => {
        const map = document.getElementById('map'), [x, y] = [map.width / 2, map.height / 2];
        return [...map.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3).join();
    }"""
    until(page, f"({pixel})() !== '0,0,0'")
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    value = page.evaluate("Number(document.activeElement.closest('.card').dataset.value)")
    asked = len([url for url in page.asked if "/clusters/" in url])
    assert served.change("colour", value, text="#010203").status == 409  # the browser's turn
    page.evaluate(
        "v => { const c = document.querySelector(`[data-value='${v}'] .colour`);"
        "c.value = '#0a64c8'; c.dispatchEvent(new Event('change')) }",
        value,
    )
    until(page, f"({pixel})() === '10,100,200'")
    assert read_names(run).of_cluster(value).colour == "#0a64c8"
    assert len([url for url in page.asked if "/clusters/" in url]) == asked
    assert page.complaints == []


def test_a_second_browser_is_told_and_may_take_over(run, serve_page, visit):
    served = serve_page(run)
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    page = visit(served.address, **phone)
    page.wait_for_selector("#other:visible")
    page.click("#take")
    page.wait_for_selector("#other", state="hidden")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.tap(".tabs [data-view=map]")
    assert page.is_visible("#map") and not page.is_visible("#cards")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    until(page, "document.getElementById('map-words').textContent === ''")
    page.tap("#map")  # opens the class there
    until(page, "document.activeElement.matches('.card.current .name')")
    assert page.is_visible("#cards")
