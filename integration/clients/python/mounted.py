"""A topic that is mounted from another cluster's bucket is read by librdkafka, and refuses whatever would change it.

    mounted.py BOOTSTRAP TOPIC
"""
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

bootstrap, topic = sys.argv[1:3]
errors = []
producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 10_000})
producer.produce(topic, b"mine", on_delivery=lambda error, _: errors.append(error))
producer.flush(15)
assert [error.code() for error in errors] == [KafkaError.POLICY_VIOLATION], errors

admin = AdminClient({"bootstrap.servers": bootstrap})
[deleted] = admin.delete_records([TopicPartition(topic, 0, 100)]).values()
try:
    deleted.result(15)
    raise SystemExit("records of another cluster were deleted")
except KafkaException as error:
    assert error.args[0].code() == KafkaError.POLICY_VIOLATION, error

consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "any", "enable.auto.commit": False})
low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 15)
consumer.assign([TopicPartition(topic, 0, 100)])
message = consumer.poll(15)
assert (low, message.offset(), message.value()) == (0, 100, b"000100"), (low, message.value())
[found] = consumer.offsets_for_times([TopicPartition(topic, 0, message.timestamp()[1])], 15)
assert 0 <= found.offset <= 100, found
consumer.close()
print(f"read only, from {low} to {high}")
