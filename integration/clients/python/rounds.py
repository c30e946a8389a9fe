"""Records that say which round they are of, and who reads which of them.

    rounds.py BOOTSTRAP TOPIC write WORD COUNT BYTES [KEY]    COUNT records of BYTES bytes, a batch each
    rounds.py BOOTSTRAP TOPIC read                            what librdkafka, kafka-python and aiokafka each read from the start

The topic has one partition. What is read is told as JSON: of each client the words in their order, with how many there were of each.
"""
import asyncio
import itertools
import json
import sys

import aiokafka
import kafka
from confluent_kafka import Consumer, Producer, TopicPartition

bootstrap, topic, task = sys.argv[1:4]


def write(word, count, size, key=None):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "batch.num.messages": 1, "message.max.bytes": 20_000_000})
    failed = []
    for number in range(count):
        value = f"{word} {number} ".ljust(size, "x")
        producer.produce(topic, key=key, value=value, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
        if len(producer) > 500:
            producer.flush(10)
    assert producer.flush(60) == 0 and not failed, failed[:3]


def librdkafka():
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "rounds", "enable.auto.commit": False, "enable.partition.eof": True})
    client.assign([TopicPartition(topic, 0, 0)])
    while True:
        message = client.poll(30)
        assert message is not None, "nothing for half a minute"
        if message.error() is not None:
            assert message.error().code() == -191, message.error()
            return client.close()
        yield message.value()


def kafka_python():
    client = kafka.KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=30_000)
    partition = kafka.TopicPartition(topic, 0)
    client.assign([partition])
    client.seek_to_beginning(partition)
    end = client.end_offsets([partition])[partition]
    while client.position(partition) < end:
        for message in itertools.chain(*client.poll(1_000).values()):
            yield message.value
    client.close()


async def read_aiokafka():
    partition = aiokafka.TopicPartition(topic, 0)
    async with aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap) as client:
        client.assign([partition])
        await client.seek_to_beginning(partition)
        end, values = (await client.end_offsets([partition]))[partition], []
        while await client.position(partition) < end:
            batches = await asyncio.wait_for(client.getmany(timeout_ms=1_000), 30)
            values += [message.value for message in itertools.chain(*batches.values())]
        return values


def words(values):
    found = (value.decode().split(" ", 1)[0] for value in values)
    return [[word, len(list(group))] for word, group in itertools.groupby(found)]


if task == "write":
    word, count, size = sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
    write(word, count, size, sys.argv[7] if len(sys.argv) > 7 else None)
else:
    print(json.dumps([words(librdkafka()), words(kafka_python()), words(asyncio.run(read_aiokafka()))]))
