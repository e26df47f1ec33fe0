"""Debian's Chromium, headless: opens a page from disk and tells what it logged and asked for."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
)
TALLEST = 12_000
CONTRASTS = """
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parsed = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const back = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = parsed(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] > 0.99) return found.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const text = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
  const box = element.getBoundingClientRect();
  if (!text.length || !box.width || element.closest("script, noscript")) continue;
  const style = getComputedStyle(element);
  const ink = parsed(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
  const both = [light(ink), light(back(element))].sort((a, b) => b - a);
  found.push([(both[0] + 0.05) / (both[1] + 0.05), text[0].data.trim().slice(0, 40)]);
}
return found;
"""


class Chromium:
    """One browser, which shows one page at a time."""

    def __init__(self) -> None:
        binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
        assert binary, "Chromium is not installed; `make test-browser` does it"
        assert driver, "Chromium's driver is not installed; `make test-browser` does it"
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in ARGUMENTS:
            options.add_argument(argument)
        logs = {"browser": "ALL", "performance": "ALL"}
        options.set_capability("goog:loggingPrefs", logs)
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        """Open a page from disk in a window of a size, in a colour scheme."""
        self.logged()
        self.asked_for()
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.driver.get(page.as_uri())

    def command(self, name: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def logged(self) -> list[str]:
        """Return what the console has shown since it was asked last, of any level."""
        return [str(row["message"]) for row in self.driver.get_log("browser")]

    def asked_for(self) -> list[str]:
        """Return the URLs that were asked for since it was asked last, data URIs left out."""
        rows = [json.loads(row["message"])["message"] for row in self.driver.get_log("performance")]
        sent = [row["params"] for row in rows if row["method"] == "Network.requestWillBeSent"]
        urls = [str(row["request"]["url"]) for row in sent]
        return [url for url in urls if not url.startswith("data:")]

    def contrasts(self) -> list[tuple[float, str]]:
        """Return the contrast of each text to what lies behind it, as WCAG 2.2 defines it."""
        return [(float(ratio), str(text)) for ratio, text in self.run(CONTRASTS)]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - window.innerWidth"))

    def screenshot(self, place: Path, width: int) -> None:
        """Write a picture of the whole page."""
        height = self.run("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, TALLEST), "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        place.write_bytes(base64.b64decode(shot["data"]))
