"""Produces numbered records for some seconds, whatever happens to the broker; then reads everything back and says
what was lost, doubled or out of order."""
import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address, seconds = sys.argv[1], float(sys.argv[2])
replicas = int(sys.argv[3]) if len(sys.argv) > 3 else 1
partitions = 3
admin = AdminClient({"bootstrap.servers": address})
for future in admin.create_topics([NewTopic("all", partitions, replicas), NewTopic("one", partitions, replicas)]).values():
    future.result(20)
acked = {"all": {}, "one": {}}
common = {"bootstrap.servers": address, "message.timeout.ms": 180000, "topic.metadata.refresh.interval.ms": 2000, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "linger.ms": 2, "log_level": 0}
producers = {
    "all": Producer({**common, "enable.idempotence": True, "acks": "all"}),
    "one": Producer({**common, "acks": "1", "max.in.flight": 1}),
}


def delivered(topic):
    def note(error, message):
        assert error is None, error
        acked[topic][int(message.value())] = (message.partition(), message.offset())
    return note


number, end = 0, time.time() + seconds
while time.time() < end:
    for topic, producer in producers.items():
        producer.produce(topic, value=str(number), partition=number % partitions, on_delivery=delivered(topic))
        producer.poll(0)
    number += 1
    time.sleep(0.0005)
for producer in producers.values():
    assert producer.flush(120) == 0

result = {}
for topic in producers:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "crash", "enable.auto.commit": False, "log_level": 0})
    stored = []
    for partition in range(partitions):
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        consumer.assign([TopicPartition(topic, partition, 0)])
        at, deadline = 0, time.time() + 120
        while at < high and time.time() < deadline:
            for message in consumer.consume(1000, 0.5):
                assert not message.error(), message.error()
                stored.append((int(message.value()), partition, message.offset()))
                at = message.offset() + 1
    consumer.close()
    values = [value for value, _, _ in stored]
    places = {(partition, offset): value for value, partition, offset in stored}
    order = [[v for v, p, _ in stored if p == partition] for partition in range(partitions)]
    result[topic] = {
        "acked": len(acked[topic]),
        "lost": len(set(acked[topic]) - set(values)),
        "moved": sum(1 for value, place in acked[topic].items() if places.get(place) != value),
        "doubled": len(values) - len(set(values)),
        "reordered": sum(1 for line in order for a, b in zip(line, line[1:]) if b <= a),
    }
print(json.dumps(result))
