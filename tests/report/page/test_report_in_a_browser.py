"""The page in a real browser: no error, no request, everything in its place on a telephone and on a desk, and legible."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.browser import Browser, browser_path, browsing

pytestmark = pytest.mark.skipif(browser_path() is None, reason="there is no Chromium here (apt-get install chromium)")

CONTRASTS = r"""
(() => {
  const light = colour => {
    const [r, g, b] = colour.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parsed = text => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const behind = element => {
    for (let own = element; own; own = own.parentElement) {
      const colour = parsed(getComputedStyle(own).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const own = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || own.closest('style, .hidden, .skip')) continue;
    const style = getComputedStyle(own), drawn = own.closest('svg');
    const a = light(parsed(drawn ? style.fill : style.color)), b = light(behind(own));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), Math.round(100 * ratio) / 100]);
  }
  return found;
})()
"""
OUT_OF_PLACE = """
(() => {
  const wide = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > wide ? ['the page is ' + document.documentElement.scrollWidth] : [];
  for (const own of document.querySelectorAll('h1, h2, h3, h4, p, figure, svg, .scroll, li, pre, dd')) {
    const box = own.getBoundingClientRect();
    if (box.width && !own.closest('.skip, .hidden') && (box.left < -1 || box.right > wide + 1))
      found.push(own.tagName + ' ' + own.textContent.trim().slice(0, 40));
  }
  for (const own of document.querySelectorAll('svg')) {
    const frame = own.getBoundingClientRect();
    for (const text of own.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      if (box.left < frame.left - 12 || box.right > frame.right + 12) found.push('text ' + text.textContent);
    }
  }
  return found;
})()
"""
SMALLEST = """
Math.min(...[...document.querySelectorAll('svg text')].map(own => {
  const svg = own.ownerSVGElement;
  return parseFloat(getComputedStyle(own).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
}))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_whole_quiet_and_legible(
    browser: Browser, page_file: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    browser.events.clear()
    browser.look(page_file, width=width, dark=dark)
    assert browser.ask(OUT_OF_PLACE) == []
    assert browser.ask(CONTRASTS) == []
    assert browser.ask(SMALLEST) > 8.5
    told: list[Any] = browser.of("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert told == []
    assert {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")} <= {
        page_file.as_uri(),
        "data:,",
    }
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 20, 24)" if dark else "rgb(255, 255, 255)"
    )
    assert browser.ask("document.querySelectorAll('script').length") == 0
    assert browser.photograph(tmp_path / "page.png", height=900).stat().st_size > 20_000
