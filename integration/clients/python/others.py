"""kafka-python and aiokafka: every codec, groups, admin."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

address = sys.argv[1]
codecs = [None, "gzip", "snappy", "lz4", "zstd"]

admin = KafkaAdminClient(bootstrap_servers=address)
admin.create_topics([NewTopic("python", 2, 1), NewTopic("aio", 2, 1)])
for codec in codecs:
    producer = KafkaProducer(bootstrap_servers=address, compression_type=codec, acks="all")
    for i in range(100):
        producer.send("python", key=str(i).encode(), value=f"{codec}{i}".encode() * 30)
    producer.flush(30)
    producer.close()
consumer = KafkaConsumer("python", bootstrap_servers=address, group_id="python", auto_offset_reset="earliest", consumer_timeout_ms=15000)
found = set()
for message in consumer:
    found.add(message.value)
    if len(found) == 500:
        break
assert found == {f"{c}{i}".encode() * 30 for c in codecs for i in range(100)}, len(found)
consumer.commit()
consumer.close()
offsets = admin.list_consumer_group_offsets("python") if hasattr(admin, "list_consumer_group_offsets") else admin.list_group_offsets("python")
assert sum(value.offset for value in (offsets.values() if "python" not in offsets else offsets["python"].values())) == 500, offsets

# A topic whose batches the broker writes anew, as both libraries read it.
admin.create_topics([NewTopic("rewritten", 1, 1, topic_configs={"compression.type": "zstd", "message.timestamp.type": "LogAppendTime"})])
for codec in codecs:
    producer = KafkaProducer(bootstrap_servers=address, compression_type=codec, acks="all")
    sent = [producer.send("rewritten", value=f"{codec}{i}".encode() * 30, timestamp_ms=1_000) for i in range(20)]
    assert all(future.get(30).timestamp > 1_000 for future in sent), sent[0].get(30)
    producer.close()
consumer = KafkaConsumer("rewritten", bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=15000)
for count, message in enumerate(consumer, 1):
    assert message.timestamp_type == 1 and message.timestamp > 1_000, message
    if count == 100:
        break
assert count == 100, count
consumer.close()
admin.close()


async def aio():
    for codec in codecs:
        producer = AIOKafkaProducer(bootstrap_servers=address, compression_type=codec, enable_idempotence=True)
        await producer.start()
        for i in range(100):
            await producer.send("aio", f"{codec}{i}".encode() * 30, key=str(i).encode())
        await producer.stop()
    consumer = AIOKafkaConsumer("aio", bootstrap_servers=address, group_id="aio", auto_offset_reset="earliest")
    await consumer.start()
    found = set()
    while len(found) < 500:
        batch = await asyncio.wait_for(consumer.getmany(timeout_ms=1000), 30)
        found.update(m.value for messages in batch.values() for m in messages)
    assert found == {f"{c}{i}".encode() * 30 for c in codecs for i in range(100)}
    await consumer.commit()
    await consumer.stop()
    consumer = AIOKafkaConsumer("rewritten", bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    for _ in range(100):
        message = await asyncio.wait_for(consumer.getone(), 30)
        assert message.timestamp_type == 1, message
    await consumer.stop()


asyncio.run(aio())
print("good")
