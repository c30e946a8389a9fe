"""Reads a topic's only partition with librdkafka from its start to its end; prints the offset of each record.

    whole.py BOOTSTRAP TOPIC
"""
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

bootstrap, topic = sys.argv[1:3]
errors = []
settings = {"bootstrap.servers": bootstrap, "group.id": "whole", "enable.auto.commit": False, "check.crcs": True, "error_cb": errors.append}
client = Consumer(settings)
start, end = client.get_watermark_offsets(TopicPartition(topic, 0), timeout=30, cached=False)
client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
at = start
while at < end:
    message = client.poll(20)
    assert message is not None, f"nothing from {at} on, of {end}"
    assert message.error() is None, message.error()
    # What it can't read of a record it says when it is asked for.
    assert len(message.headers() or []) >= 0 and len(message.value() or b"") >= 0
    at = message.offset() + 1
    print(message.offset())
client.close()
assert not errors, errors
