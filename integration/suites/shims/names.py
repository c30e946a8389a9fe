"""A pytest plugin that says how each test ended, one a line: OUTCOME, a tab, and the test's name."""

import os

ENDED = {}


def pytest_runtest_logreport(report):
    before = ENDED.get(report.nodeid)
    if report.failed or before == "Failed":
        ENDED[report.nodeid] = "Failed"
    elif report.skipped:
        ENDED[report.nodeid] = "Skipped"
    else:
        ENDED[report.nodeid] = before or "Passed"


def pytest_sessionfinish():
    with open(os.environ["NAMES"], "w") as file:
        for name, outcome in sorted(ENDED.items()):
            file.write(f"{outcome}\t{name}\n")
