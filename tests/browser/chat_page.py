"""The page in the hands of a visitor: what is typed, pressed and seen."""

from __future__ import annotations

import json

import httpx
from playwright.sync_api import expect

LIMIT_MS = 20_000
expect.set_options(timeout=LIMIT_MS)


class ChatPage:
    """One tab with the page in it; ``problems`` is what the browser complained of."""

    def __init__(self, tab, address):
        self.tab = tab
        self.address = address
        self.problems = []
        tab.set_default_timeout(LIMIT_MS)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("console", self._on_console)

    def _on_console(self, message):
        # Chromium reports each status of 400 and more; the tests ask for some.
        if message.type in {"error", "warning"} and "server responded with" not in message.text:
            self.problems.append(message.text)

    def open(self):
        self.tab.goto(self.address)
        expect(self.tab.locator("#model option").first).to_be_attached()
        return self

    def set(self, **fields):
        """Set parameters; ``system`` and ``more`` (a dict) among them."""
        self.tab.get_by_role("button", name="Parameters").click()
        for name, value in fields.items():
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            self.tab.locator(f"#parameters [name={name}]").fill(text)
        self.tab.get_by_role("button", name="Parameters").click()

    def say(self, text):
        self.tab.locator("#prompt").fill(text)
        self.tab.keyboard.press("Enter")

    def say_forced(self, text, answer):
        """Say something to which the model can only answer ``answer``."""
        self.set(more={"structured_outputs": {"choice": [answer]}}, max_tokens=400)
        self.say(text)
        self.until_answered()

    def until_answered(self):
        expect(self.tab.locator("#send")).to_be_visible()
        expect(self.tab.locator("#stop")).to_be_hidden()

    @property
    def answers(self):
        return self.tab.locator(".message.answer")

    @property
    def answer(self):
        return self.answers.last

    @property
    def said(self):
        return self.tab.locator(".message.said")

    @property
    def rows(self):
        return self.tab.locator("#engine tbody tr")

    @property
    def map_picture(self):
        return self.tab.locator(".map canvas").first.evaluate("canvas => canvas.toDataURL()")

    def engine_state(self):
        """What the server itself says."""
        return httpx.get(f"{self.address}/engine/state", timeout=20).json()

    def until_idle(self):
        """Wait until the server has no request any more, by its own word."""
        expect(self.rows).to_have_count(0)
        for _ in range(100):
            if not self.engine_state()["requests"]:
                return
            self.tab.wait_for_timeout(50)
        raise AssertionError(self.engine_state())

    def overflow_px(self):
        """By how much the page is wider than the screen."""
        return self.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
