"""Three clients read a topic of one partition from its beginning, and see the lines of a file, in order, and nothing else.

    exactly.py BOOTSTRAP TOPIC FILE
"""
import asyncio
import sys
import time

import aiokafka
import confluent_kafka
import kafka

bootstrap, topic, path = sys.argv[1:]
with open(path, "rb") as file:
    wanted = file.read().splitlines()
# Whatever comes too much comes within this time.
MORE = 1.5


def check(name, values):
    wrong = next((at for at, (a, b) in enumerate(zip(values, wanted)) if a != b), None)
    assert wrong is None, f"{name}: {values[wrong][:20]} instead of {wanted[wrong][:20]}, record {wrong}"
    assert len(values) == len(wanted), f"{name}: {len(values)} records instead of {len(wanted)}"
    print(f"{name}: {len(values)} records")


def librdkafka():
    client = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "exactly"})
    client.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    values, deadline = [], time.time() + 60
    while time.time() < deadline:
        for message in client.consume(1_000, MORE):
            assert message.error() is None, message.error()
            values.append(message.value())
        if len(values) >= len(wanted):
            deadline = min(deadline, time.time() + MORE)
    client.close()
    check("librdkafka", values)


def kafka_python():
    client = kafka.KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=1000 * MORE)
    client.assign([kafka.TopicPartition(topic, 0)])
    client.seek(kafka.TopicPartition(topic, 0), 0)
    values, deadline = [], time.time() + 60
    while len(values) < len(wanted) and time.time() < deadline:
        values.extend(record.value for record in client)
    client.close()
    check("kafka-python", values)


async def aio():
    client = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await client.start()
    client.assign([aiokafka.TopicPartition(topic, 0)])
    client.seek(aiokafka.TopicPartition(topic, 0), 0)
    values, deadline = [], time.time() + 60
    while time.time() < deadline:
        for records in (await client.getmany(timeout_ms=int(1000 * MORE))).values():
            values.extend(record.value for record in records)
        if len(values) >= len(wanted):
            deadline = min(deadline, time.time() + MORE)
    await client.stop()
    check("aiokafka", values)


librdkafka()
kafka_python()
asyncio.run(aio())
