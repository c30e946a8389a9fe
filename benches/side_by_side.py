#!/usr/bin/env python3
"""Strandline beside other brokers on one machine: same client, interleaved runs, medians of ratios.

    cargo build --release
    benches/side_by_side.py                                    # nobody flushes for an acknowledgement
    benches/side_by_side.py --flush                            # everybody does
    benches/side_by_side.py --peers kafka,crabka --crabka DIR  # a second peer
    benches/side_by_side.py --rows produce-16k,e2e-1000 --pairs 5 --seconds 6
    benches/side_by_side.py --cluster --rows produce-16k,e2e-1000   # three nodes each, acks=all
    benches/side_by_side.py --alone                            # start, memory, recovery, idle connections
    benches/side_by_side.py --builds OLD NEW                   # a regression check: CPU per request of two builds

Needs go, and for Kafka java and mvn. Estimate, written before the first run: a broker that copies record bytes once and
decodes nothing should need about a quarter of Kafka's CPU for produce with 16 KiB batches and a tenth with 1 MB;
throughput is bound by the client (1-2 CPU-seconds a GB on the same two cores), so at most 1.6 and 2.5 times Kafka's.
"""
import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path

from harness import alone, machine, rows
from harness.brokers import Cluster, Crabka, Kafka, KafkaNode, Strandline, StrandlineNode

REGRESSION_ROWS = "produce-16k,single-5,replay-16k,consume,e2e-5000"
# CPU differs by this much between runs of one build.
NOISE = 1.15


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", default=",".join(rows.ROWS))
    parser.add_argument("--peers", default="kafka")
    parser.add_argument("--crabka", help="folder with the binaries crabka and crabka-broker")
    parser.add_argument("--flush", action="store_true", help="everybody flushes before it acknowledges")
    parser.add_argument("--acks", help="what clients ask for (1; all with --flush)")
    parser.add_argument("--warm-gb", type=float, help="memory to keep warm (default: most of what is free; 0 for none)")
    parser.add_argument("--cluster", action="store_true", help="three nodes each, acks=all, their CPU summed")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--builds", nargs=2, metavar=("OLD", "NEW"))
    parser.add_argument("--raw", type=Path, help="file for every run's own figures")
    return parser.parse_args()


def maker(name, options, folder):
    kinds = {
        "strandline": lambda at: Strandline(at, options.flush),
        "kafka": lambda at: Kafka(at, options.flush),
        "crabka": lambda at: Crabka(at, options.crabka),
    }
    if options.cluster:
        nodes = {"strandline": StrandlineNode, "kafka": KafkaNode}
        return lambda at: Cluster(nodes[name], f"{folder}/{name}-{at}", options.flush)
    return lambda at: kinds[name](f"{folder}/{name}-{at}")


def compare(brokers, options, folder):
    acks = options.acks or ("all" if options.flush or options.cluster else "1")
    # Three JVMs on two cores need long until their code is compiled.
    for warm in range(10 if options.cluster else 3):
        for broker in brokers:
            if warm < 3 or broker.name == "kafka":
                rows.measure(broker, "produce-16k", 4, f"warm{warm}", acks)
    everything = {}
    for row in options.rows.split(","):
        found = {broker.name: [] for broker in brokers}
        neighbours = machine.Neighbours()
        for pair in range(options.pairs):
            for broker in brokers if pair % 2 == 0 else brokers[::-1]:
                try:
                    found[broker.name].append(rows.measure(broker, row, options.seconds, pair, acks))
                except SystemExit as failure:
                    print(f"{row:18} {broker.name} failed: {failure}", flush=True)
        first, *others = brokers
        rows.report(row, found[first.name], {other.name: found[other.name] for other in others})
        if neighbours.percent() > 5:
            print(f"{row:18} other machines took {neighbours.percent():.0f} % of the time", flush=True)
        everything[row] = found
    for what, size in (("produce", 16384), ("produce", 1_000_000), ("fetch", 1 << 20)):
        print(f"limit of the machine, {what} of {size} bytes: {machine.limit(folder, what, size)}", flush=True)
    if options.raw:
        options.raw.write_text(json.dumps(everything, indent=1))
    return everything


def regression(options, folder):
    """Fails where the new build needs more CPU than the old one by more than the noise."""
    options.rows = REGRESSION_ROWS
    old, new = (Strandline(f"{folder}/{name}", options.flush, binary, name) for name, binary in zip(("old", "new"), options.builds))
    try:
        found = compare([new, old], options, folder)
    finally:
        old.stop()
        new.stop()
    worse = []
    for row, results in found.items():
        def cpu(name):
            flat = [rows.figures(r) for r in results[name]]
            return [next(f[k] for k in f if k.endswith(("cpu_us_per_msg", "cpu_s_per_gb")) and "client" not in k) for f in flat]

        ratio = statistics.median(a / b for a, b in zip(cpu("new"), cpu("old")))
        if ratio > NOISE:
            worse.append(f"{row}: {ratio:.2f} times the CPU")
    if worse:
        raise SystemExit("the new build is dearer: " + "; ".join(worse))
    print("the new build is no dearer than the old one")


def main():
    options = parse()
    rows.kload()
    folder = tempfile.mkdtemp(prefix="side-by-side-")
    # Half of it stays held; brokers and clients need some beside it.
    gigabytes = max(0.0, (machine.memory_gigabytes() - 5) * 1.2) if options.warm_gb is None else options.warm_gb
    names = ["strandline"] + [name for name in options.peers.split(",") if name]
    brokers = []
    try:
        if options.builds:
            warm = machine.WarmMemory(gigabytes)
            regression(options, folder)
            return
        if options.alone:
            for name in names:
                make = maker(name, options, folder)
                alone.at_rest(make)
                for size in (1, 5):
                    alone.recovery(make, size)
                alone.idle_connections(make, 10_000)
            return
        warm = machine.WarmMemory(gigabytes)
        brokers = [maker(name, options, folder)("load") for name in names]
        compare(brokers, options, folder)
        del warm
    finally:
        for broker in brokers:
            broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
