"""Reads a topic as a consumer of a follower's rack, and says which broker sent how many bytes."""
import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address = sys.argv[1]
# With a bucket: what is read first is there only.
tiered = len(sys.argv) > 2
config = {"remote.storage.enable": "true", "segment.ms": "1000", "local.retention.ms": "1", "file.delete.delay.ms": "100"} if tiered else {}
admin = AdminClient({"bootstrap.servers": address})
for future in admin.create_topics([NewTopic("racks", 1, 3, config=config)]).values():
    future.result(20)
received = {}


def statistics(text):
    for broker in json.loads(text)["brokers"].values():
        if broker["nodeid"] > 0:
            received[broker["nodeid"]] = broker["req"].get("Fetch", 0)


producer = Producer({"bootstrap.servers": address, "acks": "all"})
for number in range(200):
    producer.produce("racks", str(number))
assert producer.flush(30) == 0
if tiered:
    time.sleep(6)
leader = admin.list_topics("racks", timeout=10).topics["racks"].partitions[0].leader
follower = leader % 3 + 1
consumer = Consumer({"bootstrap.servers": address, "group.id": "racks", "client.rack": f"rack{follower}",
                     "statistics.interval.ms": 200, "stats_cb": statistics})
consumer.assign([TopicPartition("racks", 0, 0)])
seen, until = [], time.time() + 30
sent = 200
while len(seen) < 600 and time.time() < until:
    for message in consumer.consume(100, 0.2):
        assert not message.error(), message.error()
        seen.append(int(message.value()))
    if sent < 600:
        for number in range(sent, sent + 20):
            producer.produce("racks", str(number))
        sent += 20
        producer.flush(10)
consumer.poll(0.5)
consumer.close()
assert seen == list(range(600)), f"{len(seen)} records, {seen[:5]}"
print(json.dumps({"leader": leader, "follower": follower, "fetches": received}))
