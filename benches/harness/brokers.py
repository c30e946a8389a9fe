"""The brokers that are compared: each starts on a free port in a folder of its own, and stops when told."""
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from .machine import KIT, ROOT, run


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """One process. `settle_s`: how long after a topic was made its leader is sure to know."""

    settle_s = 0.0
    replicas = 1
    # What a client has to be told beyond the address.
    client_flags = []

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self):
        begun = time.time()
        log = open(self.folder / "broker.log", "a")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env={**os.environ, **self.environment()})
        while not self.is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} did not start: " + (self.folder / "broker.log").read_text()[-2000:])
            time.sleep(0.001)
        self.ready_ms = (time.time() - begun) * 1000

    def environment(self):
        return {}

    def is_ready(self):
        """Whether an ApiVersions request is answered."""
        try:
            with socket.create_connection(tuple(self.address.split(":")), timeout=1) as s:
                s.settimeout(5)
                s.sendall(bytes.fromhex("0000000a" "0012" "0000" "00000001" "ffff"))
                return len(s.recv(4)) == 4
        except OSError:
            return False

    @property
    def pid(self):
        return self.process.pid

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Strandline(Broker):
    name = "strandline"

    def __init__(self, folder, flush, binary=ROOT / "target/release/strandline", name="strandline"):
        self.binary, self.flush, self.name = binary, flush, name
        super().__init__(folder)

    def command(self):
        settings = [f"log.dirs={self.folder}/data", f"listeners=PLAINTEXT://{self.address}", "http.listen="]
        settings.append(f"write.caching={str(not self.flush).lower()}")
        return [str(self.binary), "serve"] + [word for setting in settings for word in ("--set", setting)]


class Kafka(Broker):
    name = "kafka"
    settle_s = 1.0

    def __init__(self, folder, flush):
        self.flush, self.controller = flush, free_port()
        self.java = KIT / "java"
        self.java.mkdir(parents=True, exist_ok=True)
        for name in ("pom.xml", "log4j2.xml"):
            shutil.copy(ROOT / "integration/clients/java" / name, self.java)
        if not (self.java / "libs").exists():
            run(["mvn", "-B", "-q", "dependency:copy-dependencies"], cwd=self.java)
        super().__init__(folder)

    def start(self):
        properties = self.folder / "kafka.properties"
        if not properties.exists():
            properties.write_text("\n".join(self.properties()) + "\n")
            run(self.base() + ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties)])
        super().start()

    def properties(self):
        return [
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{self.controller}",
            "controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
            f"listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.controller}",
            f"advertised.listeners=PLAINTEXT://{self.address}",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={self.folder}/data", "offsets.topic.replication.factor=1", "group.initial.rebalance.delay.ms=0",
        ] + (["log.flush.interval.messages=1"] if self.flush else [])

    def base(self, *flags):
        return ["java", *flags, "-cp", f"{self.java}/libs/*", f"-Dlog4j2.configurationFile={self.java}/log4j2.xml"]

    def command(self):
        heap = ["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
        return self.base(*heap) + ["kafka.Kafka", str(self.folder / "kafka.properties")]


class Node:
    """What a broker of a cluster has beside one that is alone: its id, and where the voters are."""

    def __init__(self, node, voters, *arguments):
        self.node, self.voters = node, voters
        super().__init__(*arguments)

    def start(self):
        """Does not wait: one node alone waits for the others."""
        if isinstance(self, Kafka):
            properties = self.folder / "kafka.properties"
            properties.write_text("\n".join(self.properties()) + "\n")
            run(self.base() + ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties)])
        log = open(self.folder / "broker.log", "a")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)


class StrandlineNode(Node, Strandline):
    def command(self):
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in self.voters.items())
        listeners = f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.voters[self.node]}"
        more = [f"node.id={self.node}", f"controller.quorum.voters={voters}", f"listeners={listeners}"]
        command = [word for word in super().command()]
        return command + [word for setting in more for word in ("--set", setting)]


class KafkaNode(Node, Kafka):
    def properties(self):
        self.controller = self.voters[self.node]
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in self.voters.items())
        other = {"node.id": self.node, "controller.quorum.voters": voters, "offsets.topic.replication.factor": 3,
                 "default.replication.factor": 3, "min.insync.replicas": 2}
        kept = [line for line in super().properties() if line.split("=")[0] not in other]
        return kept + [f"{key}={value}" for key, value in other.items()]


class Cluster:
    """Three nodes of one kind, told as one broker: their addresses, and the sum of their CPU."""

    client_flags = ["-rf", "3"]
    replicas = 3

    def __init__(self, kind, folder, flush):
        voters = {node: free_port() for node in (1, 2, 3)}
        self.nodes = [kind(node, voters, f"{folder}/{node}", flush) for node in voters]
        self.name, self.settle_s = self.nodes[0].name, self.nodes[0].settle_s
        while not all(node.is_ready() for node in self.nodes):
            time.sleep(0.05)
        time.sleep(3)

    @property
    def address(self):
        return ",".join(node.address for node in self.nodes)

    @property
    def pid(self):
        return ",".join(str(node.pid) for node in self.nodes)

    def stop(self):
        for node in self.nodes:
            node.stop(signal.SIGKILL)


class Crabka(Broker):
    """A broker in Rust. Its crate is withdrawn, so the folder of its binaries (crabka, crabka-broker) is named by the caller."""

    name = "crabka"
    settle_s = 1.0
    # It closes the connection of a client that asks for a newer ApiVersions.
    client_flags = ["-max-version", "3.9"]

    def __init__(self, folder, binaries):
        self.binaries = Path(binaries)
        super().__init__(folder)

    def start(self):
        data = self.folder / "data"
        if not data.exists():
            command = [str(self.binaries / "crabka"), "format", "--log-dir", str(data), "--standalone", "--node-id", "1"]
            run(command + ["--controller-listener", f"127.0.0.1:{free_port()}"])
        super().start()

    def command(self):
        flags = ["--listen-addr", self.address, "--log-dir", str(self.folder / "data"), "--metrics-listen-addr", "none"]
        return [str(self.binaries / "crabka-broker")] + flags + ["--partition-disk-scan-interval-secs", "0"]

    def environment(self):
        return {"RUST_LOG": "warn"}
