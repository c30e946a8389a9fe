"""A faust application: adds up each shop's sales in a table, whose local copy is RocksDB and whose log is a topic."""

import os
import sys

import faust

ADDRESS, FOLDER = os.environ["ADDRESS"], os.environ["FOLDER"]

app = faust.App(
    "totals",
    broker=f"kafka://{ADDRESS}",
    store="rocksdb://?driver=rocksdict",
    datadir=FOLDER,
    web_enabled=False,
    topic_partitions=3,
    topic_replication_factor=1,
    topic_allow_declare=True,
    producer_acks=-1,
    broker_commit_interval=0.5,
    broker_session_timeout=6.0,
    broker_heartbeat_interval=1.0,
    broker_request_timeout=10.0,
    stream_wait_empty=False,
)


class Sale(faust.Record, serializer="json"):
    shop: str
    number: int
    amount: int


sales = app.topic("sales", key_type=str, value_type=Sale)
results = app.topic("results", key_type=str, value_serializer="json")
totals = app.Table("totals", default=list, partitions=3)


@app.agent(sales)
async def add_up(stream):
    async for sale in stream:
        last, amount = totals[sale.shop] or [-1, 0]
        if sale.number > last + 1:
            # A sale is missing, or the table forgot what it knew.
            await results.send(key=sale.shop, value={"after": last, "came": sale.number})
            await results.send(key=sale.shop, value="gap")
        elif sale.number == last + 1:
            # Others came before: at least once.
            totals[sale.shop] = [sale.number, amount + sale.amount]
            await results.send(key=sale.shop, value=[sale.number, amount + sale.amount])


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "info", "--without-web"]
    app.main()
