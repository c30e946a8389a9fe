"""Commits offsets of a topic with one replica in many groups, whose coordinators are on all brokers; reads them back."""
import sys

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address = sys.argv[1]
admin = AdminClient({"bootstrap.servers": address})
for future in admin.create_topics([NewTopic("alone", 1, 1)]).values():
    future.result(20)
for number in range(12):
    consumer = Consumer({"bootstrap.servers": address, "group.id": f"group{number}", "enable.auto.commit": False})
    consumer.assign([TopicPartition("alone", 0, 0)])
    told = consumer.commit(offsets=[TopicPartition("alone", 0, number)], asynchronous=False)
    assert told[0].error is None, told
    found = consumer.committed([TopicPartition("alone", 0)], timeout=20)
    assert found[0].offset == number, found
    consumer.close()
