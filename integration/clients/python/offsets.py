"""Commits offsets of several groups, one after the other, for some seconds; then every group must have what was acknowledged last.

Prints {"commits": acknowledged, "wrong": [[group, acknowledged, found]]}. What was sent and not acknowledged may be found, too.
"""
import faulthandler
import json
import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

address, seconds = sys.argv[1], float(sys.argv[2])
# Whatever hangs says where.
faulthandler.dump_traceback_later(seconds + 90, exit=True)
GROUPS = [f"group{number}" for number in range(6)]


def consumer(group):
    return Consumer({"bootstrap.servers": address, "group.id": group, "enable.auto.commit": False, "log_level": 0})


def done(ask):
    """Asks again while the coordinator moves, for half a minute."""
    until = time.monotonic() + 30
    while True:
        try:
            found = ask()[0]
            if found.error is None:
                return found.offset
            why = found.error
        except KafkaException as error:
            why = error.args[0]
        if time.monotonic() > until:
            raise SystemExit(f"not answered: {why}")
        time.sleep(0.05)


members = {group: consumer(group) for group in GROUPS}
acknowledged, sent, commits = dict.fromkeys(GROUPS, -1), dict.fromkeys(GROUPS, -1), 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    for group, member in members.items():
        sent[group] += 1
        try:
            told = member.commit(offsets=[TopicPartition("t", 0, sent[group])], asynchronous=False)
        except KafkaException:
            continue
        if told[0].error is None:
            acknowledged[group] = sent[group]
            commits += 1
wrong = []
for group in GROUPS:
    members[group].close()
    reader = consumer(group)
    found = done(lambda: reader.committed([TopicPartition("t", 0)], timeout=5))
    reader.close()
    if not acknowledged[group] <= found <= sent[group]:
        wrong.append([group, acknowledged[group], found])
print(json.dumps({"commits": commits, "wrong": wrong}))
