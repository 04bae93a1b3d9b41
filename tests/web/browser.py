"""A headless Chromium that opens the live page, driven by Selenium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions",
)  # fmt: skip
WAIT_SECONDS = 60.0


def missing() -> str:
    """Return why no browser can be driven here; '' if one can."""
    if find_browser() is None or shutil.which("chromedriver") is None:
        return "no chromium and chromedriver here (apt-get install chromium chromium-driver)"
    return "" if find_spec("selenium") else "no selenium here (make test-web installs it)"


def find_browser() -> str | None:
    """Return the path of a Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """Window of a headless Chromium."""

    def __init__(self, width: int = 1200, height: int = 900) -> None:
        from selenium import webdriver  # pyright: ignore[reportMissingImports]
        from selenium.webdriver.chrome.service import Service  # pyright: ignore[reportMissingImports]

        options = webdriver.ChromeOptions()
        options.binary_location = find_browser() or ""
        for flag in (*FLAGS, f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def open(self, url: str) -> None:
        """Open a page."""
        self.driver.get(url)

    def run(self, script: str) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script)

    def text(self, selector: str) -> str:
        """Return the text of the first element that a selector finds; '' if there is none."""
        return self.run(f"return document.querySelector({selector!r})?.textContent ?? ''")

    def wait(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> float:
        """Wait until a condition holds, and return the seconds that it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < seconds, self.text("body")[:2000]
            time.sleep(0.05)
        return time.monotonic() - start

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console: errors of scripts, and what its policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def picture(self, path: str, width: int, height: int) -> None:
        """Save a picture of the page."""
        self.driver.set_window_size(width, height)
        time.sleep(1.5)
        self.driver.save_screenshot(path)

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()
