"""Figures of a broker at rest: start, memory, recovery, idle partitions and connections."""
import json
import resource
import signal
import socket
import time

from .machine import KIT, ROOT, cpu_seconds, rss_megabytes, run

BINARY = str(ROOT / "target/release/strandline")


def at_rest(make):
    """Start and memory, empty, with 1,000 partitions and (ours only) 10,000."""
    broker = make("rest")
    print(f"{broker.name}: ready on an empty folder {broker.ready_ms:.0f} ms, {rss_megabytes(broker.pid):.1f} MB")
    counts = [1000, 10000] if broker.name == "strandline" else [1000]
    made = 0
    for count in counts:
        begun = time.time()
        while made < count:
            run([BINARY, "topic", "create", f"many-{made}", "-p", "500", "-r", "1", "-b", broker.address])
            made += 500
        took = time.time() - begun
        time.sleep(2)
        before = cpu_seconds(broker.pid)
        time.sleep(5)
        idle = (cpu_seconds(broker.pid) - before) / 5 * 100
        resting = rss_megabytes(broker.pid)
        broker.stop(signal.SIGKILL)
        broker.start()
        print(f"{broker.name}: {count} partitions made in {took:.1f} s, {resting:.1f} MB, {idle:.1f} % of a core idle, "
              f"ready after kill -9 in {broker.ready_ms:.0f} ms")
    broker.stop()


def recovery(make, gigabytes):
    """Time from start to the first answer after kill -9 in the middle of a load."""
    broker = make(f"recovery-{gigabytes}")
    client = [str(KIT / "kload"), "-brokers", broker.address, *broker.client_flags, "-topic", "t", "-mode", "produce", "-acks", "1", "-partitions", "6"]
    out = run(client + ["-size", "1024", "-records", str(int(gigabytes * 1e9 / 1024))])
    sent = json.loads(out.strip().splitlines()[-1])
    broker.stop(signal.SIGKILL)
    broker.start()
    print(f"{broker.name}: {gigabytes} GB at {sent['mb_per_s']:.0f} MB/s, ready after kill -9 in {broker.ready_ms:.0f} ms")
    broker.stop()


def idle_connections(make, count):
    """Memory of connections that asked once and wait, and what they do to one that works."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    # A broker keeps half of its descriptors for its logs.
    count = min(count, limit[1] // 2 - 100)
    broker = make("connections")
    run([BINARY, "topic", "create", "t", "-r", "1", "-b", broker.address])
    time.sleep(broker.settle_s)

    def work():
        out = run([BINARY, "bench", "e2e", "t", "--seconds", "4", "--rate", "1000", "-b", broker.address])
        return float(out.split("p99 ")[1].split(",")[0])

    alone, before = work(), rss_megabytes(broker.pid)
    held = []
    for number in range(count):
        # One address takes no more than its ports.
        s = socket.socket()
        s.bind((f"127.0.0.{2 + number // 20000}", 0))
        s.connect(tuple([broker.address.split(":")[0], int(broker.address.split(":")[1])]))
        s.sendall(bytes.fromhex("0000000a" "0012" "0000" "00000001" "ffff"))
        assert len(s.recv(4)) == 4
        held.append(s)
    time.sleep(2)
    with_them = rss_megabytes(broker.pid)
    cpu = cpu_seconds(broker.pid)
    time.sleep(5)
    idle = (cpu_seconds(broker.pid) - cpu) / 5 * 100
    print(f"{broker.name}: {count} idle connections {before:.1f} -> {with_them:.1f} MB = {(with_them - before) * 1000 / count:.1f} KB each, "
          f"{idle:.1f} % of a core; e2e p99 at 1,000/s {alone:.2f} -> {work():.2f} ms")
    for s in held:
        s.close()
    broker.stop()
