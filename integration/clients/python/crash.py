"""Produces numbered records for some seconds, whatever happens to the broker, while a consumer reads along; then reads
everything back and says what was lost, doubled, out of order, or read differently before.

Usage: crash.py ADDRESS SECONDS [REPLICAS [RECORDS A SECOND AND TOPIC [CLIENT'S SETTINGS IN JSON [TOPICS' SETTINGS IN JSON]]]]
"""
import json
import sys
import threading
import time
from array import array

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address, seconds = sys.argv[1], float(sys.argv[2])
replicas = int(sys.argv[3]) if len(sys.argv) > 3 else 1
rate = int(sys.argv[4]) if len(sys.argv) > 4 else 1000
client = {"bootstrap.servers": address, "log_level": 0, **(json.loads(sys.argv[5]) if len(sys.argv) > 5 else {})}
topic_settings = json.loads(sys.argv[6]) if len(sys.argv) > 6 else {}
PARTITIONS = 3
TICK = 0.005
admin = AdminClient(client)
for future in admin.create_topics([NewTopic(name, PARTITIONS, replicas, config=topic_settings) for name in ("all", "one")]).values():
    future.result(20)
common = {**client, "message.timeout.ms": 180000, "topic.metadata.refresh.interval.ms": 2000, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "linger.ms": 2}
producers = {
    "all": Producer({**common, "enable.idempotence": True, "acks": "all"}),
    "one": Producer({**common, "acks": "1", "max.in.flight": 1}),
}
# The offset of each acknowledged record by its number; the partition is the number's remainder.
acked = {"all": array("q"), "one": array("q")}


# What producers were told instead of an acknowledgement: none of it may come before the time for a record is over.
errors = []


def delivered(topic):
    def note(error, message):
        if error is not None:
            # An exception here would end the client without a word.
            at = time.strftime("%H:%M:%S", time.gmtime())
            errors.append(f"{at} {topic}-{message.partition()} record {message.value().decode()}: {error.name()}: {error.str()}")
            return
        acked[topic][int(message.value())] = message.offset()
    return note


class Reader(threading.Thread):
    """Reads along from the start, and remembers what stood where."""

    def __init__(self, topic):
        super().__init__(daemon=True)
        self.topic, self.stopping, self.resets, self.read = topic, False, 0, 0
        self.seen = [array("q") for _ in range(PARTITIONS)]

    def run(self):
        settings = {**client, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "error"}
        consumer = Consumer(settings)
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        while not self.stopping:
            for message in consumer.consume(2000, 0.2):
                if message.error():
                    self.resets += message.error().code() == KafkaError._AUTO_OFFSET_RESET
                    continue
                seen = self.seen[message.partition()]
                seen.extend([-1] * (message.offset() + 1 - len(seen)))
                seen[message.offset()] = int(message.value())
                self.read += 1
        consumer.close()


def produce(end):
    """Sends each topic its numbers at the wanted rate; returns how many."""
    number, begun = 0, time.time()
    while time.time() < end:
        due = int((time.time() - begun) * rate)
        for topic, producer in producers.items():
            acked[topic].extend([-1] * (due - len(acked[topic])))
            for value in range(number, due):
                while True:
                    try:
                        producer.produce(topic, value=str(value), partition=value % PARTITIONS, on_delivery=delivered(topic))
                        break
                    except BufferError:
                        producer.poll(0.05)
                    except KafkaException:
                        # A fatal error; what led to it is among the errors.
                        return number
            producer.poll(0)
        number = max(number, due)
        time.sleep(TICK)
    return number


def end_of(consumer, partition):
    """The end offset of a partition. The call does not try again by itself where the leader has just moved or
    librdkafka has let go of a broker (_DESTROY_BROKER), which is no finding."""
    passing = (KafkaError.NOT_LEADER_FOR_PARTITION, -137)
    deadline = time.time() + 60
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=20)[1]
        except KafkaException as error:
            may_pass = error.args[0].retriable() or error.args[0].code() in passing
            if not may_pass or time.time() > deadline:
                raise
            time.sleep(0.2)


def scan(topic, number, live):
    """Reads a topic back and compares it with what was acknowledged, and with what was read before."""
    consumer = Consumer({**client, "group.id": "crash", "enable.auto.commit": False})
    seen, there = bytearray(number), bytearray(number)
    doubled = reordered = inconsistent = 0
    for partition in range(PARTITIONS):
        high = end_of(consumer, TopicPartition(topic, partition))
        consumer.assign([TopicPartition(topic, partition, 0)])
        before = live.seen[partition] if live else ()
        at, last, deadline = 0, -1, time.time() + 240
        while at < high and time.time() < deadline:
            for message in consumer.consume(10000, 0.5):
                assert not message.error(), message.error()
                value, offset = int(message.value()), message.offset()
                doubled += seen[value]
                seen[value] = 1
                there[value] |= acked[topic][value] == offset and value % PARTITIONS == partition
                reordered += value <= last
                inconsistent += offset < len(before) and before[offset] not in (-1, value)
                last, at = value, offset + 1
        inconsistent += max(0, len(before) - at)
    consumer.close()
    known = [value for value in range(number) if acked[topic][value] >= 0]
    return {
        "acked": len(known),
        "lost": sum(1 for value in known if not seen[value]),
        "moved": sum(1 for value in known if not there[value]),
        "doubled": doubled,
        "reordered": reordered,
        "inconsistent": inconsistent,
    }


reader = Reader("all")
reader.start()
number = produce(time.time() + seconds)
left = sum(producer.flush(120) for producer in producers.values())
if errors or left:
    sys.exit(f"{left} records without an answer, {len(errors)} errors: " + "; ".join(errors[:5] + errors[-5:]))
time.sleep(1)
reader.stopping = True
reader.join()
result = {topic: scan(topic, number, reader if topic == "all" else None) for topic in producers}
result["all"].update(read_along=reader.read, resets=reader.resets)
print(json.dumps(result))
