#!/usr/bin/env python3
"""What clients notice when a node of three goes: Strandline beside Apache Kafka, the same client.

    cargo build --release
    benches/failover.py                               # everything, both
    benches/failover.py --peers strandline --times 9  # ours alone

Rows: the leader killed with -9 (ms to the next acknowledged record that was sent after the kill), leaders moved as planned
(longest wait of any record, and errors), a rolling restart of all three under load, the controller killed with -9 (ms to the
next created topic), a node restarted that holds a thousand partitions.

Estimate, written before the first run: a killed process refuses connections at once, so the controller knows after one
round trip, decides with one flush on a majority, and the client learns on its next retry: 0.1-0.5 s. Kafka waits for the
session of 9 s.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from harness.brokers import Cluster, KafkaNode, StrandlineNode
from harness.machine import KIT, ROOT, run

BINARY = str(ROOT / "target/release/strandline")
RATE = 500


def clients():
    """confluent-kafka, in an environment of its own."""
    python = KIT / "python/bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(KIT / "python")])
        run([str(python), "-m", "pip", "install", "-q", "confluent-kafka"])
    return python


class Load(threading.Thread):
    """Produces with acks=all; remembers when each record was sent and acknowledged."""

    def __init__(self, address, topic):
        from confluent_kafka import Producer

        super().__init__(daemon=True)
        settings = {"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 0, "retry.backoff.ms": 20, "log_level": 0,
                    "retry.backoff.max.ms": 100, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "topic.metadata.refresh.fast.interval.ms": 50}
        self.producer, self.topic, self.stopping = Producer(settings), topic, False
        self.acked, self.errors = [], []

    def run(self):
        number = 0
        while not self.stopping:
            sent = time.monotonic()

            def done(error, _, sent=sent):
                (self.errors if error else self.acked).append(error or (sent, time.monotonic()))

            self.producer.produce(self.topic, value=str(number), on_delivery=done)
            number += 1
            until = sent + 1 / RATE
            while True:
                self.producer.poll(max(0, until - time.monotonic()))
                if time.monotonic() >= until:
                    break
        self.producer.flush(60)

    def next_ack(self, since, patience=60):
        """When the first record that was sent after `since` was acknowledged."""
        deadline = time.monotonic() + patience
        at = len(self.acked)
        while time.monotonic() < deadline:
            for sent, acked in self.acked[max(0, at - 50):]:
                if sent >= since:
                    return acked
            time.sleep(0.002)
        raise SystemExit("nothing was acknowledged any more")

    def longest_wait(self, since):
        """The longest time that a record waited for its acknowledgement."""
        return max((acked - sent for sent, acked in self.acked if acked >= since), default=0)


class Subject:
    def __init__(self, kind, folder):
        self.cluster = Cluster(kind, folder, flush=False)
        self.name = self.cluster.name

    def create(self, topic, partitions=1):
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.cluster.address, "log_level": 0})
        admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(30)
        time.sleep(1)

    def node(self, node_id):
        return next(node for node in self.cluster.nodes if node.node == node_id)

    def metadata(self, topic=None):
        """By a new client each time: an old one may wait for a node that was killed."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        for _ in range(50):
            try:
                admin = AdminClient({"bootstrap.servers": self.cluster.address, "log_level": 0})
                return admin.list_topics(topic, timeout=5) if topic else admin.list_topics(timeout=5)
            except KafkaException:
                time.sleep(0.1)
        raise SystemExit(f"{self.name} does not answer")

    def leader(self, topic):
        return self.metadata(topic).topics[topic].partitions[0].leader

    def wait_in_sync(self, topics, nodes=3):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = self.metadata()
            partitions = [p for topic in topics for p in found.topics[topic].partitions.values()]
            if len(found.brokers) == nodes and all(len(p.isrs) == 3 and p.leader >= 0 for p in partitions):
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.name}: replicas did not come back")

    def restart(self, node):
        log = open(node.folder / "broker.log", "a")
        node.process = subprocess.Popen(node.command(), stdout=log, stderr=log)


def load(subject, topic, seconds):
    """franz-go, which looks for new leaders at once: what it waits for is the cluster. librdkafka adds a second or two of its own."""
    client = [str(KIT / "kload"), "-brokers", subject.cluster.address, "-topic", topic, "-mode", "e2e", "-acks", "all", "-size", "100", "-rate", str(RATE)]
    client += ["-partitions", "1", "-rf", "3", "-seconds", str(seconds), "-warmup", "1"]
    return subprocess.Popen(client, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def longest(client):
    """The longest that a record waited for its acknowledgement, in ms, and how many failed."""
    out, err = client.communicate()
    if client.returncode:
        raise SystemExit(err[-2000:] + out[-2000:])
    found = json.loads(out.strip().splitlines()[-1])
    return found["ack_latency_ms"]["max"], int(found.get("errors") or 0)


def leader_killed(subject, times):
    waits, errors = [], 0
    patience = 7 if subject.name == "strandline" else 25
    for number in range(times):
        topic = f"killed-{number}"
        subject.create(topic)
        client = load(subject, topic, patience)
        time.sleep(3.5)
        node = subject.node(subject.leader(topic))
        node.process.kill()
        wait, failed = longest(client)
        waits.append(wait)
        errors += failed
        node.process.wait()
        subject.restart(node)
        subject.wait_in_sync([topic])
    return {"leader killed, ms until records are acknowledged": waits, "errors": errors}


def planned_moves(subject, times):
    """Leaders go from one node to the next."""
    topic = "moved"
    subject.create(topic)
    load = Load(subject.cluster.address, topic)
    load.start()
    waits = []
    for _ in range(times):
        time.sleep(1)
        begun = time.monotonic()
        leader = subject.leader(topic)
        if subject.name == "strandline":
            run([BINARY, "broker", "drain", str(leader), "-b", subject.cluster.address])
            time.sleep(0.5)
            waits.append(1000 * load.longest_wait(begun))
            run([BINARY, "broker", "undrain", str(leader), "-b", subject.cluster.address])
    load.stopping = True
    load.join()
    return {"planned move, longest wait of a record in ms": waits, "errors": len(load.errors)}


def rolling_restart(subject, times):
    """Each restart is watched by itself, from before the signal until all replicas are in sync."""
    waits, errors = [], 0
    for number in range(times):
        for node in subject.cluster.nodes:
            topic = f"rolled-{number}-{node.node}"
            subject.create(topic)
            client = load(subject, topic, 9 if subject.name == "strandline" else 25)
            time.sleep(3)
            node.process.send_signal(signal.SIGTERM)
            node.process.wait(90)
            subject.restart(node)
            subject.wait_in_sync([topic])
            wait, failed = longest(client)
            waits.append(wait)
            errors += failed
    return {"rolling restart, longest wait of a record in ms": waits, "errors": errors}


def controller_killed(subject, times):
    waits = []
    for number in range(times):
        # The active controller, also where clients are told of another broker.
        if subject.name == "strandline":
            found = json.loads(run([BINARY, "cluster", "voters", "--format", "json", "-b", subject.cluster.address]))
            controller = next(row["node"] for row in found if row["leads"])
        else:
            jars = subject.cluster.nodes[0].base()
            said = run(jars + ["org.apache.kafka.tools.MetadataQuorumCommand", "--bootstrap-server", subject.cluster.address, "describe", "--status"])
            controller = int(said.split("LeaderId:")[1].split()[0])
        node = subject.node(controller)
        others = ",".join(n.address for n in subject.cluster.nodes if n is not node)
        killed = time.monotonic()
        node.process.kill()
        tries = 0
        while True:
            tries += 1
            made = subprocess.run([BINARY, "topic", "create", f"after-{number}-{tries}", "-p", "1", "-r", "2", "-b", others], capture_output=True)
            if made.returncode == 0:
                break
        waits.append(1000 * (time.monotonic() - killed))
        node.process.wait()
        subject.restart(node)
        time.sleep(3)
        subject.wait_in_sync([])
    return {"controller killed, ms to the next created topic": waits}


def restart(subject, times):
    """A thousand partitions of ten gigabytes on three nodes: one is killed and started."""
    topic = "many"
    subject.create(topic, 1000)
    for _ in range(3):
        run([str(KIT / "kload"), "-brokers", subject.cluster.address, "-topic", topic, "-mode", "produce", "-acks", "1", "-size", "10240", "-rf", "3",
             "-batch-bytes", "65536", "-partitions", "1000", "-records", "110000", "-seconds", "120"])
    subject.wait_in_sync([topic])
    waits = []
    for _ in range(times):
        node = subject.cluster.nodes[0]
        node.process.kill()
        node.process.wait()
        begun = time.monotonic()
        subject.restart(node)
        while not node.is_ready():
            time.sleep(0.005)
        waits.append(1000 * (time.monotonic() - begun))
        subject.wait_in_sync([topic])
    return {"restart after kill -9, ms until it serves": waits}


ROWS = {"leader": leader_killed, "planned": planned_moves, "rolling": rolling_restart, "controller": controller_killed, "restart": restart}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="strandline,kafka")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--times", type=int, default=9)
    options = parser.parse_args()
    if not str(sys.executable).startswith(str(KIT)):
        os.execv(str(clients()), [str(clients()), *sys.argv])
    kinds = {"strandline": StrandlineNode, "kafka": KafkaNode}
    for name in options.peers.split(","):
        folder = tempfile.mkdtemp(prefix="failover-")
        subject = Subject(kinds[name], folder)
        try:
            for row in options.rows.split(","):
                times = min(options.times, 3) if row in ("rolling", "restart") else options.times
                for what, found in ROWS[row](subject, times).items():
                    if isinstance(found, list) and found:
                        found.sort()
                        p99 = found[min(len(found) - 1, round(0.99 * len(found)))]
                        print(f"{name:11} {what:48} p50 {statistics.median(found):8.0f}  p99 {p99:8.0f}  of {len(found)}", flush=True)
                    elif isinstance(found, int):
                        print(f"{name:11} {what:48} {found}", flush=True)
        finally:
            subject.cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
