"""One consumer reads a tiered topic from its beginning while another tails it, and times are found in what is only in the bucket.

    tiered.py BOOTSTRAP TOPIC COUNT

The topic has one partition and COUNT records, whose values begin with their number in six digits.
"""
import sys
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition

bootstrap, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
NEW = 300
DEADLINE = time.time() + 90
seen, late = [], []


def consumer(group):
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})


def tail(ready):
    """Notes how long each new record was on its way."""
    client = consumer("tail")
    client.assign([TopicPartition(topic, 0, count)])
    client.poll(0)
    ready.set()
    while len(late) < NEW and time.time() < DEADLINE:
        message = client.poll(0.2)
        if message is not None and message.error() is None:
            late.append(time.time() - float(message.value().decode().split()[1]))
    client.close()


def read_all():
    client = consumer("all")
    client.assign([TopicPartition(topic, 0, 0)])
    while len(seen) < count and time.time() < DEADLINE:
        for message in client.consume(500, 0.2):
            if message.error() is None and message.offset() < count:
                seen.append((message.offset(), int(message.value()[:6]), message.timestamp()[1]))
    client.close()


ready = threading.Event()
tailing, reading = threading.Thread(target=tail, args=(ready,)), threading.Thread(target=read_all)
tailing.start()
ready.wait(10)
reading.start()
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
for number in range(NEW):
    producer.produce(topic, f"{count + number:06} {time.time()}".encode())
    producer.poll(0.005)
producer.flush(20)
reading.join()
tailing.join()
assert [(offset, number) for offset, number, _ in seen] == [(n, n) for n in range(count)], f"{len(seen)} read"
assert len(late) == NEW, f"{len(late)} tailed"

# The first record at or after a time, of times all over the topic.
client = consumer("times")
for at in range(0, count, count // 7):
    wanted = seen[at][2]
    first = next(offset for offset, _, stamp in seen if stamp >= wanted)
    found = client.offsets_for_times([TopicPartition(topic, 0, wanted)], timeout=20)[0].offset
    assert found == first, f"time {wanted}: {found} is not {first}"
    client.assign([TopicPartition(topic, 0, found)])
    message = None
    while message is None and time.time() < DEADLINE:
        message = client.poll(0.5)
    assert message is not None and message.error() is None and message.offset() == first
client.close()
late.sort()
print(f"{len(seen)} read in order; tailing meanwhile p50 {late[NEW // 2] * 1000:.1f} ms, max {late[-1] * 1000:.1f} ms")
