"""A headless Chromium that has no network, for tests of pages."""

import os
import shutil

import pytest
from selenium import webdriver

ARGUMENTS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage
--no-first-run --disable-background-networking --disable-component-update --disable-sync
--hide-scrollbars --host-resolver-rules=MAP*~NOTFOUND --force-prefers-reduced-motion""".split()


def open_browser(folder):
    """Start Chromium with a profile in `folder`; skip where it is missing, but fail in CI."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        sentence = "Debian's packages chromium and chromium-driver are not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in [*ARGUMENTS, f"--user-data-dir={folder}"]:
        options.add_argument(argument.replace("~", " "))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
