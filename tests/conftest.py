"""One browser for all tests of a process: Playwright starts no second one beside it."""

import pytest

from tools.browser import chromium


@pytest.fixture(scope="session")
def browser():
    try:
        with chromium() as browser:
            yield browser
    except SystemExit as no_browser:
        pytest.exit(str(no_browser), 1)
