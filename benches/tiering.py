#!/usr/bin/env python3
"""What tiering costs and gives, against the same broker without it, in turns.

    cargo build --release
    benches/tiering.py                    # a folder for a bucket
    benches/tiering.py --rate 30000 --seconds 30 --pairs 3
    benches/tiering.py --bucket /dev/shm  # one that is not on the same disk

T1: records of 1 KiB at a steady rate, `acks=all`, on one node: latency of producers and the CPU of the broker with and without copying, and how much was copied when
the load ended. T2: everything read back, from the local log and from the bucket. `--kafka`: the same for Apache Kafka, whose own store for tests (LocalTieredStorage) keeps
segments in a folder too: it moves files and encrypts, checks and reads back nothing.

C3 (`--catch-up GB`): whoever tails a topic, with and without somebody who reads so much old data of another one, which is in the bucket only (`local`: on disk).
"""
import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness import rows
from harness.brokers import Kafka, Strandline
from harness.machine import KIT, cpu_seconds, run

PARTITIONS = 6
SEGMENTS = "segment.bytes=16777216,file.delete.delay.ms=100,segment.ms=2000"
TIERED = SEGMENTS + ",remote.storage.enable=true,local.retention.ms=1"


class Tiered(Strandline):
    name = "tiered"

    def __init__(self, folder, bucket):
        self.bucket = bucket
        super().__init__(folder, True)

    def command(self):
        often = ["log.retention.check.interval.ms=500", "remote.log.manager.task.interval.ms=500"]
        return super().command() + ["--tier", f"file:{self.bucket}"] + [word for setting in often for word in ("--set", setting)]


class TieredKafka(Kafka):
    name = "kafka-tiered"

    def __init__(self, folder, bucket):
        self.bucket = bucket
        super().__init__(folder, True)

    def properties(self):
        store = "org.apache.kafka.server.log.remote.storage.LocalTieredStorage"
        return super().properties() + [
            "remote.log.storage.system.enable=true", f"remote.log.storage.manager.class.name={store}",
            "remote.log.storage.manager.impl.prefix=rsm.config.", f"rsm.config.dir={self.bucket}",
            "remote.log.metadata.manager.listener.name=PLAINTEXT", "rlmm.config.remote.log.metadata.topic.replication.factor=1",
            "remote.log.manager.task.interval.ms=500", "log.retention.check.interval.ms=500",
        ]

    def start(self):
        if not list((self.java / "libs").glob("kafka-storage-*-test.jar")):
            version = next((self.java / "libs").glob("kafka-storage-[0-9]*.jar")).stem.rsplit("-", 1)[1]
            store = f"org.apache.kafka:kafka-storage:{version}:jar:test"
            run(["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={store}", f"-DoutputDirectory={self.java}/libs"], cwd=self.java)
        super().start()


def broker_of(kind, folder, bucket):
    match kind:
        case "tiered":
            return Tiered(folder, bucket)
        case "local":
            return Strandline(folder, True)
        case "kafka-tiered":
            return TieredKafka(folder, bucket)
        case _:
            return Kafka(folder, True)


def size(folder, pattern="*"):
    return sum(path.stat().st_size for path in Path(folder).rglob(pattern) if path.is_file())


def client(broker, topic):
    return [str(KIT / "kload"), "-brokers", broker.address, "-topic", topic, "-pid", str(broker.pid), "-size", "1024", "-partitions", str(PARTITIONS)]


def figures(output):
    """What a client's last line says, by the ends of names."""
    found = rows.figures(json.loads(output.strip().splitlines()[-1]))
    return lambda ending: next(value for key, value in found.items() if key.endswith(ending))


def load(broker, arguments, topic="t"):
    return figures(subprocess.run(client(broker, topic) + arguments, capture_output=True, text=True, check=True).stdout)


def wait_until_remote(folder, topic):
    until = time.time() + 120
    while sum(size(path, "*.log") for path in Path(folder, "data").glob(f"{topic}-*")) > 1e6 and time.time() < until:
        time.sleep(0.2)


def catch_up(kind, folder, options):
    """Latency of a topic that is tailed, and of the same beside a reader of old data."""
    bucket = tempfile.mkdtemp(prefix="tiering-bucket-", dir=options.bucket)
    broker = broker_of(kind, folder, bucket)
    config = TIERED if kind.endswith("tiered") else SEGMENTS
    try:
        time.sleep(broker.settle_s)
        load(broker, ["-records", str(int(options.catch_up * 1e9 / 1024)), "-acks", "1", "-topic-config", config], "old")
        if kind.endswith("tiered"):
            wait_until_remote(folder, "old")
        tail = ["-mode", "e2e", "-acks", "all", "-rate", str(options.rate), "-consumers", "1", "-topic-config", SEGMENTS, "-seconds", str(options.seconds), "-warmup", "2"]
        told = {}
        for name in ("alone", "beside"):
            reader = None
            if name == "beside":
                read = ["-mode", "consume", "-seconds", str(options.seconds + 2), "-idle", "1s"]
                reader = subprocess.Popen(client(broker, "old") + read, stdout=subprocess.PIPE, text=True)
            found = load(broker, tail)
            for percentile in ("p50", "p99"):
                told[f"{name}_ms.{percentile}"] = found(f"latency_ms.{percentile}")
            if reader:
                told["read_mb_per_s"] = figures(reader.communicate()[0])("mb_per_s")
        told["p99_ratio"] = told["beside_ms.p99"] / told["alone_ms.p99"]
        return told
    finally:
        broker.stop()
        for used in (folder, bucket):
            shutil.rmtree(used, ignore_errors=True)


def one(kind, folder, options):
    bucket = tempfile.mkdtemp(prefix="tiering-bucket-", dir=options.bucket)
    broker = broker_of(kind, folder, bucket)
    is_tiered = kind.endswith("tiered")
    try:
        config = TIERED if is_tiered else SEGMENTS
        time.sleep(broker.settle_s)
        before = cpu_seconds(broker.pid)
        send = ["-mode", "e2e", "-acks", "all", "-rate", str(options.rate), "-consumers", "1", "-topic-config", config, "-seconds", str(options.seconds), "-warmup", "2"]
        found = load(broker, send)
        cpu = cpu_seconds(broker.pid) - before
        latency = {name: found(name) for name in ("latency_ms.p50", "latency_ms.p99")}
        records = options.rate * options.seconds * 1024 / 1e9
        told = {"cpu_s_per_gb": cpu / records, **latency}
        if is_tiered:
            told["copied_at_end"] = size(bucket, "*.log") / 1e9 / records
            wait_until_remote(folder, "t")
            told["cpu_s_per_gb"] = (cpu_seconds(broker.pid) - before) / records
        begun = time.time()
        reading = cpu_seconds(broker.pid)
        found = load(broker, ["-mode", "consume", "-seconds", "120", "-idle", "1s"])
        told["read_mb_per_s"] = found("mb_per_s")
        told["read_cpu_s_per_gb"] = (cpu_seconds(broker.pid) - reading) / records
        told["read_s"] = time.time() - begun
        return told
    finally:
        broker.stop()
        for used in (folder, bucket):
            shutil.rmtree(used, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=30_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--bucket", help="where the folder is made that is the bucket")
    parser.add_argument("--kafka", action="store_true", help="Apache Kafka too")
    parser.add_argument("--catch-up", type=float, metavar="GB", help="C3 instead: how much old data somebody reads")
    options = parser.parse_args()
    measure = catch_up if options.catch_up else one
    rows.kload()
    pairs = []
    for number in range(options.pairs):
        kinds = ["local", "tiered"] + (["kafka-local", "kafka-tiered"] if options.kafka else [])
        order = kinds if number % 2 == 0 else kinds[::-1]
        pair = {kind: measure(kind, tempfile.mkdtemp(prefix=f"tiering-{kind}-"), options) for kind in order}
        pairs.append(pair)
        for kind in kinds:
            print(f"{number + 1} {kind:12}  " + "  ".join(f"{name} {value:.2f}" for name, value in pair[kind].items()), flush=True)
    against = [("tiered", "local")] + ([("kafka-tiered", "kafka-local"), ("tiered", "kafka-tiered")] if options.kafka else [])
    for one_kind, other in against:
        for name in pairs[0][other]:
            ratios = [pair[one_kind][name] / pair[other][name] for pair in pairs if pair[other][name]]
            print(f"{name}: {one_kind} / {other} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
