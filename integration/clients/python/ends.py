"""After each acknowledgement with acks=1 aiokafka, kafka-python and librdkafka are told that the partition ends behind the record."""
import asyncio
import sys

import confluent_kafka
import kafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

address = sys.argv[1]
ROUNDS = 150

producer = kafka.KafkaProducer(bootstrap_servers=address, acks=1)
consumer = kafka.KafkaConsumer(bootstrap_servers=address)
partition = kafka.TopicPartition("ends-python", 0)
for number in range(ROUNDS):
    offset = producer.send("ends-python", b"v" * 50, partition=0).get(30).offset
    end = consumer.end_offsets([partition])[partition]
    assert offset == number and end == number + 1, (offset, end)

producer = confluent_kafka.Producer({"bootstrap.servers": address, "acks": "1", "linger.ms": 0})
consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": "ends"})
partition = confluent_kafka.TopicPartition("ends-librdkafka", 0)
for number in range(ROUNDS):
    producer.produce("ends-librdkafka", b"v" * 50, partition=0)
    assert producer.flush(30) == 0
    _, end = consumer.get_watermark_offsets(partition, timeout=30, cached=False)
    assert end == number + 1, (number, end)


async def aio():
    producer = AIOKafkaProducer(bootstrap_servers=address, acks=1)
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await producer.start()
    await consumer.start()
    partition = TopicPartition("ends-aio", 0)
    for number in range(ROUNDS):
        offset = (await producer.send_and_wait("ends-aio", b"v" * 50, partition=0)).offset
        end = (await consumer.end_offsets([partition]))[partition]
        assert offset == number and end == number + 1, (offset, end)
    await producer.stop()
    await consumer.stop()

asyncio.run(aio())
print("good")
