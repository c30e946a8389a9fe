"""What is measured of each broker, row by row, and how a row's figures are told."""
import json
import statistics
import subprocess
import time

from .machine import KIT, ROOT, cpu_seconds, run


def produce(size, batch, *more, partitions=6, clients=1):
    load = ["-mode", "produce", "-acks", "ACKS", "-size", str(size), "-batch-bytes", str(batch)]
    return load + ["-partitions", str(partitions), "-clients", str(clients), *more]


def end_to_end(rate, *more, partitions=6, clients=1):
    load = ["-mode", "e2e", "-acks", "ACKS", "-size", "1024", "-rate", str(rate)]
    return load + ["-partitions", str(partitions), "-clients", str(clients), *more]


# The names in brackets are the workloads' usual ones.
ROWS = {
    "produce-100b": produce(100, 16384),  # P1
    "produce-16k": produce(1024, 16384),  # P2
    "produce-1m": produce(1024, 1_000_000),  # P3
    "produce-10k": produce(10240, 65536),  # P4
    # One record a request, five in flight and one.
    "single-5": produce(1024, 1200, partitions=1),  # P5
    "single-1": produce(1024, 1200, "-inflight", "1", partitions=1),
    "connections-100": end_to_end(20000, "-consumers", "1", clients=100),  # P6
    "produce-zstd": produce(1024, 16384, "-compression", "zstd", "-payload", "json"),  # P7
    "produce-lz4": produce(1024, 16384, "-compression", "lz4", "-payload", "json"),
    "produce-16k-1p": produce(1024, 16384, partitions=1),
    "produce-16k-100p": produce(1024, 16384, partitions=100),
    "produce-16k-1000p": produce(1024, 16384, partitions=1000),
    # The binary's own client sends batches that were built once: it costs little beside the broker.
    "replay-16k": ["replay", "16384"],
    "replay-1m": ["replay", "1000000"],
    "consume": ["-mode", "consume", "-size", "1024", "-partitions", "6"],  # C1
    "fan-out-5": ["fan-out", "5"],  # C2
    "e2e-1000": end_to_end(1000),  # E1
    "e2e-5000": end_to_end(5000),
    "e2e-20000": end_to_end(20000),
    "e2e-20000-linger": end_to_end(20000, "-linger", "5ms"),
    "e2e-10000-1000p": end_to_end(10000, "-partitioner", "rr", partitions=1000),  # M1
}
SHOWN = ("mb_per_s", "msgs_per_s", "cpu_s_per_gb", "cpu_us_per_msg", "p50", "p99", "p99.9", "rss_after")


def kload():
    binary = KIT / "kload"
    KIT.mkdir(parents=True, exist_ok=True)
    run(["go", "build", "-o", str(binary), "."], cwd=ROOT / "benches" / "kload")
    return str(binary)


def measure(broker, row, seconds, number, acks):
    """One run of one row."""
    topic, load = f"{row}-{number}", ROWS[row]
    if load[0] == "replay":
        return replay(broker, topic, load[1], acks, seconds)
    client = [str(KIT / "kload"), "-brokers", broker.address, "-topic", topic, *broker.client_flags]
    if load[0] == "fan-out":
        return fan_out(broker, client, int(load[1]), acks, seconds)
    arguments = [acks if word == "ACKS" else word for word in load]
    if row == "consume":
        run(client + ["-mode", "produce", "-acks", "1", "-partitions", "6", "-size", "1024", "-seconds", str(min(seconds, 3))])
        arguments += ["-seconds", "60", "-idle", "1s"]
    else:
        arguments += ["-seconds", str(seconds + 1), "-warmup", "1"]
    out = run(client + ["-pid", str(broker.pid), "-delete"] + arguments)
    return json.loads(out.strip().splitlines()[-1])


def replay(broker, topic, batch_bytes, acks, seconds):
    binary, remote = str(ROOT / "target/release/strandline"), ["-b", broker.address]
    run([binary, "topic", "create", topic, "-p", "6", "-r", str(broker.replicas)] + remote)
    time.sleep(broker.settle_s)
    before = cpu_seconds(broker.pid)
    load = ["--seconds", str(seconds), "--record-bytes", "1024", "--batch-bytes", batch_bytes, "--clients", "2", "--acks", acks]
    out = run([binary, "bench", "produce", topic] + load + remote)
    used = cpu_seconds(broker.pid) - before
    rate, took = float(out.split("sent: ")[1].split(" MB/s")[0]), float(out.split(" over ")[1].split(" s")[0])
    latency = {f"p{q}": float(out.split(f"p{q} ")[1].split(",")[0]) for q in ("50", "99", "99.9")}
    run([binary, "topic", "rm", topic] + remote)
    return {"mb_per_s": rate, "broker": {"cpu_s_per_gb": used / (rate * took / 1000)}, "latency_ms": latency}


def fan_out(broker, client, groups, acks, seconds):
    """20,000 records a second in, read by one consumer that also times them and by others beside it."""
    others = [
        subprocess.Popen(client + ["-mode", "consume", "-size", "1024", "-partitions", "6", "-group", f"g{n}", "-seconds", str(seconds + 2)],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for n in range(groups - 1)
    ]
    out = run(client + ["-pid", str(broker.pid), "-mode", "e2e", "-acks", acks, "-size", "1024", "-rate", "20000", "-partitions", "6",
                        "-seconds", str(seconds + 1), "-warmup", "1"])
    for other in others:
        other.wait(60)
    run(client + ["-delete", "-mode", "produce", "-records", "1", "-acks", "1", "-size", "1024"])
    return json.loads(out.strip().splitlines()[-1])


def figures(result):
    """The numbers of a run by their dotted names."""
    flat = {}

    def walk(prefix, value):
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            walk(f"{prefix}{key}.", inner)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix[:-1]] = float(value)

    walk("", result)
    return flat


def report(row, ours, others):
    """Medians side by side; a ratio is ours by theirs, taken pair by pair, with its smallest and largest."""
    mine = [figures(r) for r in ours]
    for key in mine[0]:
        # What a closed loop waits for is its own buffer: there the request's time says more than the record's.
        is_closed = any("produce_request_ms" in k for k in mine[0]) and mine[0].get("rate", 0) == 0
        if not key.endswith(SHOWN) or "client" in key or (is_closed and "latency" in key and row[:6] != "replay"):
            continue
        line = f"{row:18} {key[-24:]:24} {statistics.median(r[key] for r in mine if key in r):12.3f}"
        for name, results in others.items():
            theirs = [figures(r) for r in results]
            pairs = [(a[key], b[key]) for a, b in zip(mine, theirs) if key in a and b.get(key)]
            if pairs:
                ratios = [a / b for a, b in pairs]
                middle = statistics.median(b for _, b in pairs)
                line += f" | {name} {middle:10.3f} {statistics.median(ratios):6.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
        print(line, flush=True)
