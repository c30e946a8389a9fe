#!/usr/bin/env python3
"""Strandline beside Apache Kafka on one machine: same client, interleaved runs, medians of ratios.

    cargo build --release && benches/side_by_side.py [--seconds 6] [--pairs 3] [--rows produce-16k,consume,...]

Needs go, java and mvn. Estimate, written before the first run: a broker that copies record bytes once and decodes
nothing should need about a quarter of Kafka's CPU for produce with 16 KiB batches and a tenth with 1 MB; throughput is
bound by the client (1-2 CPU-seconds a GB on the same two cores), so at most 1.6 and 2.5 times Kafka's.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / "target" / "bench-kit"

# name: (kload arguments to measure, whether the topic must be filled first)
ROWS = {
    "produce-16k": ["-mode", "produce", "-acks", "1", "-batch-bytes", "16384", "-size", "1024", "-partitions", "6"],
    "produce-1m": ["-mode", "produce", "-acks", "1", "-batch-bytes", "1000000", "-size", "1024", "-partitions", "6"],
    "produce-100b": ["-mode", "produce", "-acks", "1", "-batch-bytes", "16384", "-size", "100", "-partitions", "6"],
    # The binary's own client sends batches that were built once: it costs little beside the broker.
    "replay-16k": ["replay", "16384"],
    "replay-1m": ["replay", "1000000"],
    "produce-16k-100p": ["-mode", "produce", "-acks", "1", "-batch-bytes", "16384", "-size", "1024", "-partitions", "100"],
    "produce-16k-1000p": ["-mode", "produce", "-acks", "1", "-batch-bytes", "16384", "-size", "1024", "-partitions", "1000"],
    "consume": ["-mode", "consume", "-size", "1024", "-partitions", "6"],
    "e2e-1000": ["-mode", "e2e", "-acks", "1", "-size", "1024", "-partitions", "6", "-rate", "1000"],
    "e2e-20000": ["-mode", "e2e", "-acks", "1", "-size", "1024", "-partitions", "6", "-rate", "20000"],
}


# What the replay client asks for; `--flush` makes it all.
FLUSH_ACKS = "1"


def run(command, **kwargs):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]} {done.stdout[-500:]}")
    return done.stdout


def build():
    KIT.mkdir(parents=True, exist_ok=True)
    kload = KIT / "kload"
    run(["go", "build", "-o", str(kload), "."], cwd=ROOT / "benches" / "kload")
    java = KIT / "java"
    java.mkdir(exist_ok=True)
    shutil.copy(ROOT / "integration/clients/java/pom.xml", java)
    shutil.copy(ROOT / "integration/clients/java/log4j2.xml", java)
    if not (java / "libs").exists():
        run(["mvn", "-B", "-q", "dependency:copy-dependencies"], cwd=java)
    return kload, java


def port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Strandline:
    name = "strandline"

    def __init__(self, folder, settings):
        self.address = f"127.0.0.1:{port()}"
        command = [str(ROOT / "target/release/strandline"), "serve", "--set", f"log.dirs={folder}/s", "--set", f"listeners=PLAINTEXT://{self.address}", "--set", "http.listen="]
        for setting in settings:
            command += ["--set", setting]
        begun = time.time()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        self.ready_ms = (time.time() - begun) * 1000


class Kafka:
    name = "kafka"

    def __init__(self, folder, java, settings):
        self.address = f"127.0.0.1:{port()}"
        controller = port()
        properties = Path(folder) / "kafka.properties"
        lines = [
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
            "controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
            f"listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=PLAINTEXT://{self.address}",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={folder}/k", "offsets.topic.replication.factor=1", "group.initial.rebalance.delay.ms=0",
        ] + settings
        properties.write_text("\n".join(lines) + "\n")
        base = ["java", "-cp", f"{java}/libs/*", f"-Dlog4j2.configurationFile={java}/log4j2.xml"]
        run(base + ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties)])
        heap = ["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
        begun = time.time()
        log = open(f"{folder}/kafka.log", "w")
        self.process = subprocess.Popen(base[:1] + heap + base[1:] + ["kafka.Kafka", str(properties)], stdout=log, stderr=log)
        import socket

        while True:
            try:
                socket.create_connection(tuple(self.address.split(":")), timeout=1).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("Kafka did not start: " + Path(f"{folder}/kafka.log").read_text()[-2000:])
                time.sleep(0.1)
        self.ready_ms = (time.time() - begun) * 1000


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def replay(broker, topic, batch_bytes, acks, seconds):
    binary = str(ROOT / "target/release/strandline")
    remote = ["-b", broker.address]
    run([binary, "topic", "create", topic, "-p", "6"] + remote)
    # Apache Kafka names a leader a moment before that leader knows.
    time.sleep(1)
    before = cpu_seconds(broker.process.pid)
    load = ["--seconds", str(seconds), "--record-bytes", "1024", "--batch-bytes", batch_bytes, "--clients", "2", "--acks", acks]
    out = run([binary, "bench", "produce", topic] + load + remote)
    used = cpu_seconds(broker.process.pid) - before
    rate = float(out.split("sent: ")[1].split(" MB/s")[0])
    took = float(out.split(" over ")[1].split(" s")[0])
    p99 = float(out.split("p99 ")[1].split(",")[0])
    run([binary, "topic", "rm", topic] + remote)
    return {"mb_per_s": rate, "msgs_per_s": rate * 1e6 / 1024, "broker": {"cpu_s_per_gb": used / (rate * took / 1000)}, "latency_ms": {"p99": p99}}


def measure(kload, broker, row, seconds, number):
    topic = f"{row}-{number}"
    arguments = list(ROWS[row])
    if arguments[0] == "replay":
        return replay(broker, topic, arguments[1], FLUSH_ACKS, seconds)
    if row == "consume":
        fill = [str(kload), "-brokers", broker.address, "-topic", topic, "-mode", "produce", "-acks", "1", "-partitions", "6", "-size", "1024", "-batch-bytes", "1000000", "-seconds", str(seconds)]
        run(fill)
        arguments += ["-seconds", "60", "-idle", "1s"]
    else:
        arguments += ["-seconds", str(seconds), "-warmup", "1"]
    out = run([str(kload), "-brokers", broker.address, "-topic", topic, "-pid", str(broker.process.pid), "-delete"] + arguments)
    return json.loads(out.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--flush", action="store_true", help="everybody flushes before it acknowledges")
    parser.add_argument("--raw", action="store_true")
    options = parser.parse_args()
    kload, java = build()
    folder = tempfile.mkdtemp(prefix="side-by-side-")
    ours = [] if options.flush else ["write.caching=true"]
    theirs = ["log.flush.interval.messages=1"] if options.flush else []
    brokers = [Strandline(folder, ours), Kafka(folder, java, theirs)]
    try:
        print(f"ready: {brokers[0].ready_ms:.0f} ms, Kafka {brokers[1].ready_ms:.0f} ms")
        if options.flush:
            global FLUSH_ACKS
            FLUSH_ACKS = "all"
            for row in ROWS.values():
                if "-acks" in row:
                    row[row.index("-acks") + 1] = "all"
        for warm in range(2):
            for broker in brokers:
                measure(kload, broker, "produce-16k", 4, f"warm{warm}")
        print(f"{'row':14} {'what':12} {'strandline':>12} {'kafka':>12} {'ratio':>7}  spread")
        for row in options.rows.split(","):
            found = {broker.name: [] for broker in brokers}
            for pair in range(options.pairs):
                order = brokers if pair % 2 == 0 else brokers[::-1]
                for broker in order:
                    found[broker.name].append(measure(kload, broker, row, options.seconds, pair))
            if options.raw:
                print(json.dumps(found, indent=1))
            report(row, found)
    finally:
        for broker in brokers:
            broker.process.send_signal(signal.SIGTERM)
            broker.process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def figures(result):
    """The figures of one run that are compared."""
    flat = {}

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}{key}.", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(f"{prefix}{index}.", inner)
        elif isinstance(value, (int, float)):
            flat[prefix[:-1]] = float(value)

    walk("", result)
    return flat


SHOWN = os.environ.get("SHOWN", "mb_per_s,msgs_per_s,cpu_s_per_gb,cpu_us_per_msg,latency_ms.p50,latency_ms.p99,rss_after").split(",")


def report(row, found):
    ours = [figures(r) for r in found["strandline"]]
    theirs = [figures(r) for r in found["kafka"]]
    for key in ours[0]:
        if not any(part in key for part in SHOWN):
            continue
        pairs = [(a[key], b[key]) for a, b in zip(ours, theirs) if key in a and key in b]
        ratios = [a / b for a, b in pairs if b]
        if not ratios:
            continue
        a, b = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{row:14} {key[-30:]:30} {a:12.3f} {b:12.3f} {statistics.median(ratios):7.2f}  {spread}")


if __name__ == "__main__":
    main()
