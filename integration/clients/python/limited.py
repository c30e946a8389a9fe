"""Fetches over many partitions at once obey their limits, wherever the records are.

    limited.py fill BOOTSTRAP PARTITIONS COUNT TOPIC...
    limited.py read BOOTSTRAP PARTITIONS COUNT TOPIC...

Each topic has PARTITIONS partitions, all on one broker, with COUNT records each, in batches of a dozen.
"""
import socket
import struct
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

mode, bootstrap, partitions, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
topics = sys.argv[5:]
if mode == "fill":
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 500, "batch.num.messages": 12})
    for topic in topics:
        for number in range(count):
            for partition in range(partitions):
                producer.produce(topic, b"%06d" % number + b"x" * (700 + 400 * partition), partition=partition)
    assert producer.flush(60) == 0
    sys.exit()
# What stands beside the records: names, offsets, lengths.
BESIDE = 200 + len(topics) * (60 + 60 * partitions)
host, port = bootstrap.rsplit(":", 1)
connection = socket.create_connection((host, int(port)), 30)


def exactly(size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise SystemExit("the connection was closed")
        data += piece
    return data


def name(text):
    return struct.pack(">h", len(text)) + text.encode()


def fetch(wanted, max_bytes, partition_max_bytes):
    """Fetch v4: the size of the answer, and the records of each partition in the order that was asked for."""
    body = struct.pack(">iiiib", -1, 500, 1, max_bytes, 0) + struct.pack(">i", len(wanted))
    for topic, partition, offset in wanted:
        body += name(topic) + struct.pack(">i", 1)
        body += struct.pack(">iqi", partition, offset, partition_max_bytes)
    request = struct.pack(">hhi", 1, 4, 7) + name("limited") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    size = struct.unpack(">i", exactly(4))[0]
    answer, at = exactly(size), 8
    found = []
    (number,) = struct.unpack_from(">i", answer, at)
    at += 4
    for _ in range(number):
        (length,) = struct.unpack_from(">h", answer, at)
        topic = answer[at + 2 : at + 2 + length].decode()
        (inner,) = struct.unpack_from(">i", answer, at + 2 + length)
        at += 6 + length
        for _ in range(inner):
            partition, error, _, _, aborted = struct.unpack_from(">ihqqi", answer, at)
            at += 26 + 16 * max(aborted, 0)
            (length,) = struct.unpack_from(">i", answer, at)
            at += 4
            records = answer[at : at + max(length, 0)]
            at += max(length, 0)
            assert error == 0, (topic, partition, error)
            found.append((topic, partition, records))
    assert at == size, (at, size)
    return size, found


def batches(records):
    """Where each whole batch ends, with the offset after it."""
    at, ends = 0, []
    while at + 61 <= len(records):
        base, length = struct.unpack_from(">qi", records, at)
        (delta,) = struct.unpack_from(">i", records, at + 23)
        at += 12 + length
        if at > len(records):
            break
        ends.append((at, base + delta + 1))
    return ends


def read_all(max_bytes, partition_max_bytes):
    """Reads everything, as clients do: what was answered is asked for last the next time."""
    wanted = [(topic, partition, 0) for partition in range(partitions) for topic in topics]
    answers, most, deadline = 0, 0, time.time() + 120
    while wanted:
        assert time.time() < deadline, (max_bytes, partition_max_bytes, wanted)
        size, found = fetch(wanted, max_bytes, partition_max_bytes)
        offsets = {(topic, partition): offset for topic, partition, offset in wanted}
        full = [(topic, partition, records) for topic, partition, records in found if records]
        assert full, "nothing at all"
        answers, most = answers + 1, max(most, size)
        for number, (topic, partition, records) in enumerate(full):
            ends = batches(records)
            assert ends, ("no whole batch", topic, partition, len(records))
            is_one = number == 0 and len(ends) == 1 and ends[0][0] == len(records)
            assert len(records) <= partition_max_bytes or is_one, (topic, partition, len(records))
            offsets[topic, partition] = ends[-1][1]
        records = sum(len(records) for _, _, records in full)
        assert records <= max_bytes or len(full) == 1, (records, max_bytes, len(full))
        assert size <= max(max_bytes, len(full[0][2])) + BESIDE, (size, max_bytes)
        done = {(topic, partition) for topic, partition, _ in full}
        order = [at for at in offsets if at not in done] + [at for at in offsets if at in done]
        wanted = [(*at, offsets[at]) for at in order if offsets[at] < count]
    print(f"{max_bytes} {partition_max_bytes}: {answers} answers, the largest of {most} bytes")


for limits in [(1, 1 << 20), (70_000, 1 << 20), (100_000, 20_000), (400_000, 90_000), (3_000_000, 1 << 20)]:
    read_all(*limits)

# A client that takes no more than it asked for.
limit = 120_000
client = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": "limited",
    "enable.auto.commit": False,
    "fetch.max.bytes": limit,
    "max.partition.fetch.bytes": limit,
    "message.max.bytes": limit,
    "receive.message.max.bytes": limit + 10_000,
    "fetch.wait.max.ms": 100,
    "error_cb": print,
})
client.assign([TopicPartition(topic, p, 0) for topic in topics for p in range(partitions)])
read, deadline = {}, time.time() + 90
while sum(read.values()) < count * partitions * len(topics) and time.time() < deadline:
    for message in client.consume(500, 0.3):
        assert message.error() is None, message.error()
        at = (message.topic(), message.partition())
        assert message.offset() == read.get(at, 0), (at, message.offset())
        read[at] = message.offset() + 1
client.close()
missing = {(t, p): read.get((t, p)) for t in topics for p in range(partitions) if read.get((t, p)) != count}
assert not missing, missing
print(f"librdkafka read {sum(read.values())} records")
