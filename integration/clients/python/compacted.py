"""A table in a compacted topic: written, and read to its end.

    compacted.py BOOTSTRAP TOPIC write FILE ROUNDS    changes and deletes keys of what FILE says, and notes there what is left
    compacted.py BOOTSTRAP TOPIC one COUNT SECONDS    changes one key so often, with a pause after each
    compacted.py BOOTSTRAP TOPIC check FILE           reads everything; prints how many records that were

The topic has one partition.
"""
import json
import os
import random
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

bootstrap, topic, task, path = sys.argv[1:5]
KEYS = 200


def read_table():
    with open(path) as file:
        return json.load(file)


def write(rounds):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
    def told(error, _message):
        assert error is None, error

    table = read_table() if os.path.exists(path) else {}
    choice = random.Random(rounds)
    for number in range(rounds * KEYS):
        key = f"key-{choice.randrange(KEYS)}"
        value = None if choice.randrange(10) == 0 else f"{number} {'v' * 200}"
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.1)
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    assert producer.flush(60) == 0
    with open(path, "w") as file:
        json.dump(table, file)


def check():
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "table", "enable.auto.commit": False, "enable.partition.eof": True})
    client.assign([TopicPartition(topic, 0, 0)])
    table, count, at_end, until = {}, 0, False, time.time() + 30
    while not at_end:
        assert time.time() < until, f"the end is not reached after {count} records"
        for message in client.consume(1000, 0.3):
            if message.error() is not None:
                assert message.error().code() == -191, message.error()
                at_end = True
                continue
            count += 1
            if message.value() is None:
                table.pop(message.key().decode(), None)
            else:
                table[message.key().decode()] = message.value().decode()
    client.close()
    expected = read_table()
    assert table == expected, f"{len(table)} keys, not {len(expected)}"
    print(count)


def one(count, pause):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
    for number in range(count):
        producer.produce(topic, key="one", value=f"{number}")
        assert producer.flush(30) == 0
        time.sleep(pause)


if task == "write":
    write(int(sys.argv[5]))
elif task == "one":
    one(int(path), float(sys.argv[5]))
else:
    check()
