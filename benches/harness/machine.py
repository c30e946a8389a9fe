"""The machine under the brokers: its memory kept warm, its own limits, what a process uses of it."""
import json
import mmap
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KIT = ROOT / "target" / "bench-kit"
HUGE = 2 << 20


def run(command, **kwargs):
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr[-2000:]} {done.stdout[-500:]}")
    return done.stdout


class WarmMemory:
    """Makes a hypervisor back the guest's memory, and keeps it so.

    A virtual machine that reports free blocks to its host pays for each new page of the page cache several times what
    the copy costs, and whichever broker runs second looks faster. Touching memory in huge pages and giving every other
    one back leaves holes too small to be reported.
    """

    def __init__(self, gigabytes):
        self.pages = None
        count = int(gigabytes * (1 << 30)) // HUGE
        if count == 0:
            return
        pages = mmap.mmap(-1, count * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)
        for page in range(count):
            pages[page * HUGE] = 1
        for page in range(0, count, 2):
            pages.madvise(mmap.MADV_DONTNEED, page * HUGE, HUGE)
        self.pages = pages


def memory_gigabytes():
    line = next(l for l in Path("/proc/meminfo").read_text().splitlines() if l.startswith("MemFree"))
    return int(line.split()[1]) / (1 << 20)


def cpu_seconds(pids):
    """Of one process, or of several with commas between them."""
    def of(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return sum(of(pid) for pid in str(pids).split(","))


def rss_megabytes(pid):
    line = next(l for l in Path(f"/proc/{pid}/status").read_text().splitlines() if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


class Neighbours:
    """How much of the machine other machines took meanwhile, in percent of its time."""

    def __init__(self):
        self.before = self._times()

    def percent(self):
        after = self._times()
        spent = [b - a for a, b in zip(self.before, after)]
        return 100 * spent[7] / max(1, sum(spent))

    @staticmethod
    def _times():
        return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def limit(folder, what, size):
    """A bare server's figures for requests of this size."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target/limits")}
    run(["cargo", "build", "--release", "-q"], cwd=ROOT / "benches/limits", env=environment)
    return json.loads(run([str(ROOT / "target/limits/release/limits"), str(folder), what, str(size), "2"]))
