"""nbval starts its kernels as the tools do; and tests may count what they looked at."""

from collections import Counter

import jupyter_client
import nbval.kernel
import pytest

from tools import kernels

TALLY = "tally "


def _manager(**settings):
    return jupyter_client.KernelManager(**kernels.transport(), **settings)


nbval.kernel.KernelManager = _manager


@pytest.fixture
def tally(record_property):
    """`tally(pages=1, visits=4)`: what a test looked at. The sums close the run's report."""

    def add(**counts: int) -> None:
        for name, count in counts.items():
            record_property(TALLY + name, count)

    return add


def pytest_terminal_summary(terminalreporter):
    sums = Counter()
    for report in (
        r for group in terminalreporter.stats.values() for r in group
    ):
        if getattr(report, "when", None) == "call":
            for name, count in report.user_properties:
                if name.startswith(TALLY):
                    sums[name.removeprefix(TALLY).replace("_", " ")] += count
    if sums:
        counted = ", ".join(f"{count:,} {name}" for name, count in sums.items())
        terminalreporter.write_line(f"Counted: {counted}.")
