"""Asks for what this broker does not do: each client is told soon, and librdkafka's user in our words."""
import asyncio
import os
import sys
import time

import aiokafka
import confluent_kafka
import kafka
from confluent_kafka.admin import (AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType,
                                   ResourceType)

address = sys.argv[1]


def told(what, question):
    begun, answer = time.time(), "nothing"
    try:
        answer = str(question())
    except Exception as error:
        answer = f"{type(error).__name__} {error}"
    took = time.time() - begun
    print(what, answer)
    assert took < 10, (what, took, answer)
    return answer


def begin():
    confluent_kafka.Producer({"bootstrap.servers": address, "transactional.id": "rd"}).init_transactions(20)


def create_acl():
    acl = AclBinding(ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, "User:a", "*", AclOperation.READ,
                     AclPermissionType.ALLOW)
    admin = AdminClient({"bootstrap.servers": address})
    return list(admin.create_acls([acl]).values())[0].result(20)


async def aio_begin():
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=address, transactional_id="aio")
    try:
        await asyncio.wait_for(producer.start(), 20)
    finally:
        await producer.stop()


def python_begin():
    producer = kafka.KafkaProducer(bootstrap_servers=address, transactional_id="kp", max_block_ms=20000)
    producer.init_transactions()


assert "Transactions are not supported by this broker" in told("librdkafka, a transaction:", begin)
assert "SECURITY_DISABLED" in told("librdkafka, an ACL:", create_acl)
assert "ClusterAuthorizationFailed" in told("kafka-python, a transaction:", python_begin)
assert "ClusterAuthorizationFailed" in told("aiokafka, a transaction:", lambda: asyncio.run(aio_begin()))
print("good")
sys.stdout.flush()
os._exit(0)
