"""The website as a reader opens it: as files, without a network, in a browser."""

import ast
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.support import browser
from tests.support.mpy import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: ./dev docs")

from tools.site.__main__ import build  # noqa: E402

if not browser.find():
    pytest.skip("chromium is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(120)

_LINKS = "[...document.querySelectorAll('a[href]')].map(each => each.href)"
_IDS = "[...document.querySelectorAll('[id]')].map(each => each.id)"
_BLIND = """[...document.images].filter(each => !each.naturalWidth || !each.alt)
    .map(each => each.src)"""
# what Markdown on a forge takes for a list or a table, and this one does not
_NO_LIST = r"""[...document.querySelectorAll('article p')].map(each => each.textContent)
    .filter(each => /(^|\n)(- |\* |\d+\. |\|)/.test(each))"""
_COMMENT = """[...document.querySelectorAll('article :is(p, td, li)')]
    .some(each => [...each.childNodes].some(node => (node.data || '').includes('<!--')))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == 0
    return folder


@pytest.fixture(scope="module")
def tab():
    with browser.Browser() as tab:
        yield tab


def faults(tab):
    """Return what went wrong on the page that is open (list of str)."""
    found = [f"image: {each}" for each in tab.evaluate(_BLIND)]
    found += [f"no list: {each}" for each in tab.evaluate(_NO_LIST)]
    found += ["shows a comment"] if tab.evaluate(_COMMENT) else []
    found += [
        f"asks for {url}"
        for each in tab.happened("Network.requestWillBeSent")
        if not (url := each["request"]["url"]).startswith(("file:", "data:", "blob:"))
    ]
    found += [f"not loaded: {each}" for each in tab.happened("Network.loadingFailed")]
    found += [f"script: {each}" for each in tab.happened("Runtime.exceptionThrown")]
    found += [
        f"log: {each['entry']['text']}"
        for each in tab.happened("Log.entryAdded")
        if each["entry"]["level"] == "error"
    ]
    return found


def test_every_link_leads_to_a_page_and_its_anchor_and_every_page_can_be_reached(site, tab):
    home = (site / "index.html").as_uri()
    ids = {}  # address -> what it has
    links = {}  # address with anchor -> a page that has this link
    bad = []
    waiting = [home]
    while waiting:
        address = waiting.pop()
        path = Path(unquote(address.removeprefix("file://")))
        if not path.is_file():
            bad.append(f"{address}: not there, linked by {links[address]}")
            ids[address] = []
            continue
        tab.open(address)
        ids[address] = tab.evaluate(_IDS)
        bad += [f"{address}: {each}" for each in faults(tab)]
        for link in tab.evaluate(_LINKS):
            if link.startswith("file:"):
                there = urldefrag(link)[0]
                links.setdefault(link, address)
                links.setdefault(there, address)
                if there not in ids and there not in waiting:
                    waiting.append(there)
            elif not link.startswith(("https:", "http:")):
                bad.append(f"{address}: {link}")
    for link, source in links.items():
        there, anchor = urldefrag(link)
        # "__" are the theme's own switches; a bare # is the top
        if anchor and unquote(anchor) not in ids[there]:
            bad.append(f"{source}: {link}: no such anchor")
    assert bad == []
    built = {path.as_uri() for path in site.rglob("*.html")} - {(site / "404.html").as_uri()}
    assert built == set(ids)


def test_search_finds_without_a_server(site, tab):
    tab.open((site / "index.html").as_uri())
    tab.evaluate(
        """(() => {
        const field = document.querySelector(".md-search__input");
        field.focus();
        field.value = "session_expiry_s";
        field.dispatchEvent(new Event("input", {bubbles: true}));
        field.dispatchEvent(new Event("keyup", {bubbles: true}));
    })()"""
    )
    found = tab.wait_for(
        "[...document.querySelectorAll('.md-search-result__link')].map(each => each.href).join()"
    )
    assert "mqtt5.html" in found and "reference.html" in found


def test_every_public_name_is_in_the_reference(site, tab):
    tab.open((site / "reference.html").as_uri())
    ids = set(tab.evaluate(_IDS))
    missing = []
    for stub in sorted((ROOT / "mqtt_as_tls").glob("*.pyi")):
        module = "mqtt_as_tls" + ("" if stub.stem == "__init__" else f".{stub.stem}")
        for node in ast.parse(stub.read_text()).body:
            name = getattr(node, "name", "_")
            if name[0] != "_":
                missing += [] if f"{module}.{name}" in ids else [f"{module}.{name}"]
                for each in getattr(node, "body", []):
                    method = getattr(each, "name", "_")
                    full = f"{module}.{name}.{method}"
                    missing += [] if method[0] == "_" or full in ids else [full]
    assert missing == []
    text = tab.evaluate("document.querySelector('article').innerText")
    assert "3.1.1 section 4.3" in text and "asyncio.TimeoutError" in text


def test_dark_where_the_reader_has_it_dark_and_narrow_on_a_phone(site, tab):
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    for kind, expected in (("dark", "slate"), ("light", "default")):
        feature = {"name": "prefers-color-scheme", "value": kind}
        tab.call("Emulation.setEmulatedMedia", features=[feature])
        tab.open((site / "index.html").as_uri())
        assert tab.wait_for(scheme) == expected
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    tab.call("Emulation.setDeviceMetricsOverride", **phone)
    wide = []
    for path in sorted(site.glob("*.html")):
        tab.open(path.as_uri())
        wide += [path.name] if tab.evaluate("document.documentElement.scrollWidth > 360") else []
    assert wide == []
