#!/usr/bin/env python3
"""Whether three nodes get slower or larger with time: a load that stays the same, told minute by minute.

    cargo build --release
    benches/soak.py                       # ten minutes, 100 partitions, 20,000 records a second, two producers, two consumers
    benches/soak.py --minutes 60 --rate 5000

`acks=all`, three replicas; old segments are deleted as it goes, so the disk stays as full as it is. The last line says how much
the second half differs from the first.
"""
import argparse
import json
import shutil
import statistics
import subprocess
import tempfile

from harness import rows
from harness.brokers import Cluster, StrandlineNode
from harness.machine import KIT

PARTITIONS = 100
SETTINGS = "segment.bytes=8388608,retention.bytes=33554432,file.delete.delay.ms=1000"


def minute(cluster, rate, number):
    client = [str(KIT / "kload"), "-brokers", cluster.address, "-topic", "soak", *cluster.client_flags, "-pid", str(cluster.pid)]
    load = ["-mode", "e2e", "-acks", "all", "-size", "1024", "-rate", str(rate), "-partitions", str(PARTITIONS), "-partitioner", "rr"]
    load += ["-clients", "2", "-consumers", "2", "-topic-config", SETTINGS, "-seconds", "60", "-warmup", "2"]
    out = subprocess.run(client + load, capture_output=True, text=True).stdout
    told = json.loads(out.strip().splitlines()[-1])
    if not told["ok"]:
        # The client checks every record; what it found is worth more than the figures.
        reasons = {key: value for key, value in told.items() if "err" in key or key in ("verify", "records", "acked", "produced", "consumed")}
        raise SystemExit(f"minute {number}: {json.dumps(reasons)}")
    found = rows.figures(told)
    wanted = ("latency_ms.p50", "latency_ms.p99", "latency_ms.p99.9", "broker.cpu_us_per_msg", "rss_after_mb")
    told = {name: next(value for key, value in found.items() if key.endswith(name)) for name in wanted}
    print(f"minute {number:3}  " + "  ".join(f"{name} {value:.2f}" for name, value in told.items()), flush=True)
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rate", type=int, default=20_000)
    options = parser.parse_args()
    rows.kload()
    folder = tempfile.mkdtemp(prefix="soak-")
    cluster = Cluster(StrandlineNode, folder, False)
    try:
        found = [minute(cluster, options.rate, number + 1) for number in range(options.minutes)]
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    half = len(found) // 2
    for name in found[0] if half else ():
        first, second = (statistics.median(each[name] for each in part) for part in (found[:half], found[half:]))
        print(f"{name}: {first:.2f} in the first half, {second:.2f} in the second ({second / first:.2f}x)")


if __name__ == "__main__":
    main()
