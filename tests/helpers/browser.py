"""A headless Chromium that has no network, and packages of npm, for tests of pages."""

import os
import shutil
import subprocess
import tarfile

import pytest
from selenium import webdriver

ARGUMENTS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage
--no-first-run --disable-background-networking --disable-component-update --disable-sync
--hide-scrollbars --host-resolver-rules=MAP*~NOTFOUND --force-prefers-reduced-motion""".split()


def open_browser(folder, *more):
    """Start Chromium with a profile in `folder`; skip where it is missing, but fail in CI.

    Args:
        folder: folder of the profile.
        more: further arguments of Chromium.
    """
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        _missing("Debian's packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in [*ARGUMENTS, f"--user-data-dir={folder}"]:
        options.add_argument(argument.replace("~", " "))
    for argument in more:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(programs[1]))


def npm_package(name, folder):
    """Return the folder of a package of npm, NAME@VERSION.

    Skips without npm, but fails in CI; skips without the registry or a copy in npm's cache.
    """
    npm = shutil.which("npm")
    if npm is None:
        _missing("Debian's package npm is not installed")
    command = [npm, "pack", name, "--silent", "--prefer-offline", "--pack-destination", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm pack {name} failed: {done.stderr.strip()[-300:]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def _missing(sentence):
    (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)
