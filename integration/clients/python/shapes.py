"""What compaction leaves of batches of every kind: written, found by raw fetches, and read by the client libraries of Python.

    shapes.py BOOTSTRAP write TOPICS           writes to all topics, in turns; a topic's name ends with the codec that it is sent with
    shapes.py BOOTSTRAP raw TOPIC              reads by raw fetches from every offset on; prints offset and key of each record
    shapes.py BOOTSTRAP FAMILY TOPIC LAST      the same by a client library, up to a last offset
    shapes.py - ill FILE BASE                  writes a log as earlier releases compacted it; prints the first offset past it
    shapes.py - sound FILE                     fails if a log has a batch with a codec and no records
"""
import asyncio
import gzip
import socket
import struct
import sys
import time

import cramjam
import lz4.frame
import zstandard

from records import sealed, varint

bootstrap, task = sys.argv[1:3]
HEADER = struct.Struct(">qiibIhiqqqhii")


def batches(data):
    at = 0
    while at + HEADER.size <= len(data):
        header = HEADER.unpack_from(data, at)
        end = at + 12 + header[1]
        if end > len(data):
            return
        yield header, data[at:end]
        at = end


def is_ill(header, batch):
    return header[12] == 0 and (header[5] & 7 != 0 or len(batch) != HEADER.size)


def batch(base, last, attributes, body, count):
    rest = struct.pack(">hiqqqhii", attributes, last - base, 1_000 if count else -1, 1_000 if count else -1, -1, -1, -1, count) + body
    return sealed(base, rest)


def record(key, value):
    body = b"\0\0\0" + varint(len(key)) + key + varint(len(value)) + value + b"\0"
    return varint(len(body)) + body


def write_ill(path, base):
    nothing = [gzip.compress(b""), bytes(cramjam.snappy.compress_raw(b"")), lz4.frame.compress(b""), zstandard.compress(b"")]
    at, out = base, b""
    for turn in range(3):
        for codec, body in enumerate(nothing, 1):
            out += batch(at, at + codec, codec, body, 0)
            at += codec + 1
            if (turn + codec) % 3 == 0:
                out += batch(at, at, 0, record(f"{base}-{turn}-{codec}".encode(), b"v" * 100 * (1 + 100 * turn)), 1)
                at += 1
    with open(path, "wb") as file:
        file.write(out)
    print(at)


def write(topics):
    from confluent_kafka import Producer

    def producer(topic, is_idempotent):
        codec = topic.rsplit("-", 1)[1]
        return Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": is_idempotent, "linger.ms": 20})

    def burst(topic, client, keys, value):
        for key in keys:
            client.produce(topic, key=key, value=None if value is None else f"{value} {'v' * 300}")

    plain = {topic: producer(topic, False) for topic in topics}
    # Of three producers one after the other nothing stays but three batches without records.
    for clients in [plain] + 3 * [None]:
        for topic in topics:
            client = clients[topic] if clients else producer(topic, True)
            burst(topic, client, ["idle"] if clients is None else ["first"], "early")
            assert client.flush(30) == 0
    for topic, client in plain.items():
        burst(topic, client, ["idle"], "late")
        assert client.flush(30) == 0
    for turn in range(6):
        # Each turn another idempotent producer, whose last batch stays as long as it is known.
        clients = {topic: producer(topic, True) if turn % 2 else plain[topic] for topic in topics}
        for topic, client in clients.items():
            burst(topic, client, ["one", "two"] * 5, turn)
        for client in clients.values():
            assert client.flush(30) == 0
        for topic, client in clients.items():
            burst(topic, client, [f"turn-{turn}", "often", f"gone-{turn - 1}"], turn)
            burst(topic, client, [f"gone-{turn - 2}"], None)
        for client in clients.values():
            assert client.flush(30) == 0
        time.sleep(1.6)
    for topic, client in plain.items():
        burst(topic, client, ["last"], "last")
        assert client.flush(30) == 0


def receive(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "the connection was closed"
        data += more
    return data


def fetch(connection, topic, offset, bytes_max):
    name = struct.pack(">h", len(topic)) + topic.encode()
    body = struct.pack(">iiiib", -1, 300, 1, 1 << 25, 0) + struct.pack(">i", 1) + name + struct.pack(">iiqi", 1, 0, offset, bytes_max)
    frame = struct.pack(">hhih", 1, 4, 7, -1) + body
    connection.sendall(struct.pack(">i", len(frame)) + frame)
    size = struct.unpack(">i", receive(connection, 4))[0]
    answer = receive(connection, size)
    at = 4 + 4 + 4 + 2 + len(topic) + 4
    _, error, high_watermark, _, aborted = struct.unpack_from(">ihqqi", answer, at)
    at += 26 + 16 * max(aborted, 0)
    assert error == 0, error
    return high_watermark, answer[at + 4 :]


def raw(topic):
    host, port = bootstrap.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), 10)
    high_watermark, _ = fetch(connection, topic, 0, 1)
    offset, last = 0, -1
    for bytes_max in (1, 200, 1 << 20):
        for offset in range(high_watermark):
            _, data = fetch(connection, topic, offset, bytes_max)
            found = list(batches(data))
            assert found, f"nothing whole at {offset}"
            assert not any(is_ill(*one) for one in found), f"a codec without records at {offset}"
            assert found[0][0][12] > 0, f"no records at {offset}"
            assert found[0][0][0] + found[0][0][6] >= offset, f"what is sent at {offset} lies before it"
            last = max(last, *(one[0][0] + one[0][6] for one in found))
    assert last == high_watermark - 1, f"{last} is not the last of {high_watermark}"
    print(last)


def librdkafka(topic, last):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    errors = []
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "shapes", "enable.auto.commit": False, "error_cb": errors.append})
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    at = -1
    while at < last:
        message = client.poll(10)
        assert message is not None, f"nothing after {at}"
        assert message.error() is None, message.error()
        at = message.offset()
        print(at, message.key().decode())
    client.close()
    assert not errors, errors


def kafka_python(topic, last):
    from kafka import KafkaConsumer, TopicPartition

    client = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=20_000)
    client.assign([TopicPartition(topic, 0)])
    client.seek_to_beginning()
    for message in client:
        print(message.offset, message.key.decode())
        if message.offset >= last:
            return
    raise AssertionError("the last record did not come")


async def aiokafka(topic, last):
    from aiokafka import AIOKafkaConsumer, TopicPartition

    client = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await client.start()
    client.assign([TopicPartition(topic, 0)])
    await client.seek_to_beginning()
    at = -1
    while at < last:
        message = await asyncio.wait_for(client.getone(), 20)
        at = message.offset
        print(at, message.key.decode())
    await client.stop()


if task == "write":
    write(sys.argv[3:])
elif task == "raw":
    raw(sys.argv[3])
elif task == "ill":
    write_ill(sys.argv[3], int(sys.argv[4]))
elif task == "sound":
    with open(sys.argv[3], "rb") as file:
        assert not any(is_ill(*one) for one in batches(file.read())), sys.argv[3]
elif task == "librdkafka":
    librdkafka(sys.argv[3], int(sys.argv[4]))
elif task == "kafka-python":
    kafka_python(sys.argv[3], int(sys.argv[4]))
elif task == "aiokafka":
    asyncio.run(aiokafka(sys.argv[3], int(sys.argv[4])))
