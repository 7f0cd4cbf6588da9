"""The page in Chromium: no error, no request, keys, touch, and numbers against the library."""

# ruff: noqa: E501  (scripts of the page's language)
from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from latentia.likelihood import exact_log_likelihood


def opened(browser, path, width=1280, **options):
    """The page with what went wrong in it: errors, warnings and requests other than files and parts of the page."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page, wrong


def number(page, name):
    """The value of a number of the first tab, once it is there."""
    card = page.locator("details.number", has=page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$"))).first
    card.locator(".kind:not(:empty)").wait_for(timeout=60_000)
    return float(card.get_attribute("data-value"))


@pytest.mark.parametrize(("width", "theme"), [(400, "light"), (1000, "dark"), (2000, "light")])
def test_every_tab_opens_without_error_request_or_overflow(browser, page, width, theme, tmp_path):
    shown, wrong = opened(browser, page, width, color_scheme=theme)
    assert number(shown, "log p(x)") < 0
    for k, tab in enumerate(shown.get_by_role("tab").all()):
        tab.click()
        shown.wait_for_timeout(400)
        assert tab.get_attribute("aria-selected") == "true"
        assert shown.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        shown.screenshot(path=tmp_path / f"tab-{k}-{width}-{theme}.png", full_page=True)
    assert shown.locator("script", has_text="alert(1)").count() <= 1  # inside of the page's JSON alone
    assert not wrong
    shown.close()


def test_every_kind_of_model_opens_and_labels_can_be_chosen(browser, page_of_kinds, tmp_path):
    shown, wrong = opened(browser, page_of_kinds)
    before = number(shown, "log p(x|y)")
    shown.get_by_role("group", name="label y").get_by_role("button", name="3", exact=True).click()
    shown.wait_for_timeout(300)
    assert number(shown, "log p(x|y)") != before
    shown.get_by_role("option", name=re.compile("^test image 3:")).first.click()
    chosen = shown.get_by_role("group", name="label y").locator("[aria-pressed=true]").inner_text()
    assert f"a {chosen}" in shown.get_by_text(re.compile("test image, a")).first.inner_text()
    for k, tab in enumerate(shown.get_by_role("tab").all()):
        tab.click()
        shown.wait_for_timeout(400)
        shown.screenshot(path=tmp_path / f"kind-{k}.png", full_page=True)
    assert not wrong
    shown.close()


def test_first_picture_is_there_at_once(browser, page):
    shown, _ = opened(browser, page)
    milliseconds = shown.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert milliseconds > 0
    assert shown.evaluate("document.querySelector('.tile canvas').width") > 0
    shown.close()


def test_a_drawn_digit_has_pythons_log_likelihood(browser, page, vae_run):
    shown, wrong = opened(browser, page)
    number(shown, "log p(x)")
    pad = shown.get_by_role("application", name=re.compile("^Drawing pad"))
    box = pad.bounding_box()
    shown.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.2 * box["height"])
    shown.mouse.down()
    for k in range(12):
        shown.mouse.move(box["x"] + (0.5 + 0.01 * k) * box["width"], box["y"] + (0.2 + 0.05 * k) * box["height"])
    shown.mouse.up()
    shown.wait_for_timeout(300)
    number(shown, "… amortization gap")
    found, mass = number(shown, "log p(x)"), number(shown, "mass of the heat map")
    bits = json.loads(
        shown.evaluate(
            """() => { const canvas = [...document.querySelectorAll('canvas')].find((c) => (c.getAttribute('aria-label') ?? '').startsWith('The image x'));
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return JSON.stringify(Array.from({ length: canvas.width * canvas.height }, (_, k) => data[4 * k] / 255)); }"""
        )
    )
    x = torch.tensor(bits).reshape(1, *vae_run.model.event_shape)
    assert set(bits) == {0, 1}
    assert found == pytest.approx(exact_log_likelihood(vae_run.model, x, tolerance=0.001).values.item(), abs=0.05)
    assert mass == pytest.approx(1, abs=0.01)
    gap = number(shown, "inference gap")
    parts = number(shown, "… approximation gap") + number(shown, "… amortization gap")
    assert gap == pytest.approx(parts, abs=0.01)
    assert gap == pytest.approx(found - number(shown, "bound of the encoder (ELBO)"), abs=0.01)
    assert not wrong
    shown.close()


def test_everything_works_by_keys(browser, page):
    shown, wrong = opened(browser, page)
    number(shown, "log p(x)")
    plane = shown.get_by_role("application", name=re.compile("^Plane of z"))
    plane.focus()
    decoded = (
        "() => { const c = document.querySelector('[aria-label^=\"The decoded picture\"]'); return c.toDataURL(); }"
    )
    before = shown.evaluate(decoded)
    for _ in range(4):
        shown.keyboard.press("Shift+ArrowRight")
    assert shown.evaluate(decoded) != before
    first = shown.get_by_role("option", name=re.compile("^test image 1:"))
    first.focus()
    value = number(shown, "log p(x)")
    shown.keyboard.press("ArrowRight")
    shown.wait_for_timeout(200)
    assert shown.get_by_role("option", name=re.compile("^test image 2:")).get_attribute("aria-selected") == "true"
    assert number(shown, "log p(x)") != value
    pad = shown.get_by_role("application", name=re.compile("^Drawing pad"))
    pad.focus()
    shown.keyboard.press("Space")
    for key in ("ArrowDown",) * 6 + ("ArrowRight",) * 4:
        shown.keyboard.press(key)
    shown.wait_for_timeout(200)
    shown.get_by_text("drawn by hand").wait_for(timeout=10_000)
    tabs = shown.get_by_role("tab").all()
    tabs[0].focus()
    shown.keyboard.press("ArrowRight")
    assert tabs[1].get_attribute("aria-selected") == "true"
    assert not wrong
    shown.close()


def test_touch_draws(browser, page):
    shown, wrong = opened(browser, page, 420, has_touch=True)
    pad = shown.get_by_role("application", name=re.compile("^Drawing pad"))
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    shown.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.wait_for_timeout(300)
    shown.get_by_text("drawn by hand").wait_for(timeout=10_000)
    assert not wrong
    shown.close()


def test_a_toy_gan_can_be_scrubbed(browser, page):
    shown, wrong = opened(browser, page)
    shown.get_by_role("tab").nth(1).click()
    epoch = shown.get_by_role("slider", name="epoch").first
    picture = "() => document.querySelector('[aria-label=\"D of the game\"]').toDataURL()"
    shown.wait_for_timeout(300)
    last = shown.evaluate(picture)
    epoch.focus()
    shown.keyboard.press("Home")
    shown.wait_for_timeout(300)
    assert shown.evaluate(picture) != last
    radius = shown.locator("details.number", has_text="size of a step").locator(".value").first.inner_text()
    assert np.isfinite(float(radius.split()[0]))
    assert not wrong
    shown.close()
