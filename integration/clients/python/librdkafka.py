"""librdkafka (confluent-kafka): every codec, idempotence, groups, admin, compaction, times, headers."""
import sys
import threading
import time

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

address = sys.argv[1]
admin = AdminClient({"bootstrap.servers": address})


def wait(futures):
    return {key: future.result(20) for key, future in futures.items()}


def produce(topic, messages, **config):
    failed = []
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, **config})
    for message in messages:
        producer.produce(topic, on_delivery=lambda error, _: failed.append(error) if error else None, **message)
        producer.poll(0)
    assert producer.flush(30) == 0 and not failed, failed[:3]


def consume(topic, count, group, **config):
    consumer = Consumer({"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest", **config})
    consumer.subscribe([topic])
    found, deadline = [], time.time() + 40
    while len(found) < count and time.time() < deadline:
        message = consumer.poll(0.5)
        if message is not None:
            assert not message.error(), message.error()
            found.append(message)
    assert len(found) == count, f"{topic}: {len(found)} of {count}"
    return consumer, found


wait(admin.create_topics([NewTopic("codecs", 3, 1)]))
assert "codecs" in admin.list_topics(timeout=10).topics
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    messages = [{"key": f"{codec}{i}", "value": codec * 20 + str(i), "headers": [("h", b"1"), ("h", None)]} for i in range(500)]
    produce("codecs", messages, **{"compression.type": codec, "enable.idempotence": True})
consumer, found = consume("codecs", 2500, "codecs")
assert {m.value().decode() for m in found} == {c * 20 + str(i) for c in ["none", "gzip", "snappy", "lz4", "zstd"] for i in range(500)}
assert found[0].headers() == [("h", b"1"), ("h", None)]
consumer.commit(asynchronous=False)
committed = consumer.committed([TopicPartition("codecs", p) for p in range(3)], timeout=10)
assert sum(p.offset for p in committed) == 2500, committed
low, high = consumer.get_watermark_offsets(TopicPartition("codecs", 0), timeout=10)
assert low == 0 and high > 0
consumer.close()

# A second member takes part of the partitions, and gives them back when it leaves.
seen, stop = [[], []], [threading.Event(), threading.Event()]


def member(index):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "shared", "session.timeout.ms": 6000, "auto.offset.reset": "earliest", "partition.assignment.strategy": "cooperative-sticky"})
    consumer.subscribe(["codecs"])
    while not stop[index].is_set():
        consumer.poll(0.1)
        seen[index] = [p.partition for p in consumer.assignment()]
    consumer.close()


def until(what, is_true):
    deadline = time.time() + 40
    while not is_true():
        assert time.time() < deadline, f"{what}: {seen}"
        time.sleep(0.1)


threads = [threading.Thread(target=member, args=(i,)) for i in range(2)]
threads[0].start()
until("the first member has everything", lambda: len(seen[0]) == 3)
threads[1].start()
until("the second member has a part", lambda: len(seen[1]) >= 1 and len(seen[0]) + len(seen[1]) == 3)
group = wait(admin.describe_consumer_groups(["shared"]))["shared"]
assert group.state.name == "STABLE" and len(group.members) == 2, group.state
stop[0].set()
threads[0].join()
until("the second member has everything", lambda: len(seen[1]) == 3)
stop[1].set()
threads[1].join()

# Times and offsets.
wait(admin.create_topics([NewTopic("times", 1, 1)]))
produce("times", [{"value": str(i), "timestamp": 1_700_000_000_000 + i * 1000} for i in range(100)])
consumer = Consumer({"bootstrap.servers": address, "group.id": "times"})
offsets = consumer.offsets_for_times([TopicPartition("times", 0, 1_700_000_050_500)], timeout=10)
assert offsets[0].offset == 51, offsets
consumer.close()
newest = list(wait(admin.list_offsets({TopicPartition("times", 0): OffsetSpec.max_timestamp()})).values())[0]
assert newest.offset == 99, newest.offset

# Admin: settings, partitions, deleting records, groups, offsets, topics.
resource = ConfigResource(ResourceType.TOPIC, "times", incremental_configs=[ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)])
wait(admin.incremental_alter_configs([resource]))
values = wait(admin.describe_configs([ConfigResource(ResourceType.TOPIC, "times")]))
assert list(values.values())[0]["retention.ms"].value == "-1"
wait(admin.create_partitions([NewPartitions("times", 4)]))
deleted = list(wait(admin.delete_records([TopicPartition("times", 0, 60)])).values())[0]
assert deleted.low_watermark == 60
offsets = ConsumerGroupTopicPartitions("codecs", [TopicPartition("codecs", 0, 7)])
wait(admin.alter_consumer_group_offsets([offsets]))
wait(admin.delete_consumer_groups(["codecs"]))
listed = [g.group_id for g in admin.list_consumer_groups().result(20).valid]
assert "codecs" not in listed and "shared" in listed, listed
wait(admin.delete_topics(["times"]))
try:
    wait(admin.create_topics([NewTopic("codecs", 1, 1)]))
    raise SystemExit("a topic was made twice")
except KafkaException as error:
    assert error.args[0].name() == "TOPIC_ALREADY_EXISTS", error

# A compacted topic refuses records without a key.
wait(admin.create_topics([NewTopic("compacted", 1, 1, config={"cleanup.policy": "compact"})]))
produce("compacted", [{"key": "k", "value": "v"}])
failed = []
producer = Producer({"bootstrap.servers": address})
producer.produce("compacted", value="no key", on_delivery=lambda error, _: failed.append(error.name()))
producer.flush(20)
assert failed == ["INVALID_RECORD"], failed

# Topics whose batches the broker writes anew: its own time, its own codec. Every codec in, every codec out.
kinds = ["gzip", "snappy", "lz4", "zstd", "uncompressed"]
wait(admin.create_topics([NewTopic(f"as-{kind}", 1, 1, config={"compression.type": kind, "message.timestamp.type": "LogAppendTime"}) for kind in kinds]))
begun = int(time.time() * 1000)
for kind in kinds:
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        produce(f"as-{kind}", [{"key": f"{i}", "value": codec * 20 + str(i), "timestamp": 1_000} for i in range(50)], **{"compression.type": codec, "enable.idempotence": True})
    consumer, found = consume(f"as-{kind}", 250, f"as-{kind}")
    consumer.close()
    assert {m.value().decode() for m in found} == {c * 20 + str(i) for c in ["none", "gzip", "snappy", "lz4", "zstd"] for i in range(50)}
    assert all(m.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME and m.timestamp()[1] >= begun for m in found), found[0].timestamp()

# A record that is too old for its topic is refused, and says so.
wait(admin.create_topics([NewTopic("fresh", 1, 1, config={"message.timestamp.before.max.ms": "60000"})]))
failed = []
producer.produce("fresh", value="old", timestamp=1_000, on_delivery=lambda error, _: failed.append(error.name()))
producer.flush(20)
assert failed == ["INVALID_TIMESTAMP"], failed
produce("fresh", [{"value": "new"}])
print("good")
