//! Questions: Transactions.

use std::time::Duration;

use anyhow::Result;
use bytes::BytesMut;
use kafka_protocol::messages::*;

use super::client::*;

pub(super) fn transactions(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, .. } = asking;
    show(
        "InitProducerId empty transactional id",
        c.call(
            4,
            InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(s(""))))
                .with_transaction_timeout_ms(1000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )
        .map(|r| r.error_code),
    );
    show(
        "InitProducerId timeout too large",
        c.call(
            4,
            InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(s("tx1"))))
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )
        .map(|r| r.error_code),
    );
    std::thread::sleep(Duration::from_secs(2));
    let p = c.call(
        5,
        InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(s("tx1"))))
            .with_transaction_timeout_ms(60000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    );
    show(
        "InitProducerId v5 tx1",
        p.as_ref()
            .map(|p| (p.error_code, p.producer_id, p.producer_epoch))
            .map_err(|e| anyhow::anyhow!("{e}")),
    );
    if let Ok(p) = p {
        let txb = |ep: i16, sq: i32| {
            let mut b = BytesMut::from(&recs(1, true, 5)[..]);
            b[22] |= 0x10;
            b[43..51].copy_from_slice(&p.producer_id.0.to_be_bytes());
            b[51..53].copy_from_slice(&ep.to_be_bytes());
            b[53..57].copy_from_slice(&sq.to_be_bytes());
            fix_crc(&mut b);
            b.freeze()
        };
        let e = p.producer_epoch;
        for version in [11, 12] {
            show(
                &format!("Produce v{version} transactional without AddPartitionsToTxn"),
                c.call(
                    version,
                    produce(t1, Some(txb(e, 0)), -1)
                        .with_transactional_id(Some(TransactionalId(s("tx1")))),
                )
                .map(pr),
            );
        }
        show(
            "Fetch read committed while open (hw vs lso)",
            c.call(12, fetch(Some(t1), Z, 0, 1 << 20, 1 << 20, 0, -1, 1)).map(fp),
        );
        show(
            "EndTxn v5 commit: epoch in the answer",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e)
                    .with_committed(true),
            ),
        );
        std::thread::sleep(Duration::from_millis(300));
        show(
            "EndTxn v5 again with the old epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e)
                    .with_committed(true),
            ),
        );
        show(
            "EndTxn v5 empty transaction, abort, new epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e + 1)
                    .with_committed(false),
            ),
        );
        show(
            "EndTxn v5 empty transaction, commit, newer epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e + 2)
                    .with_committed(true),
            ),
        );
        show(
            "AddPartitionsToTxn v3 stale epoch",
            c.call(3, {
                use add_partitions_to_txn_request::*;
                AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(TransactionalId(s("tx1")))
                    .with_v3_and_below_producer_id(p.producer_id)
                    .with_v3_and_below_producer_epoch(e)
                    .with_v3_and_below_topics(vec![
                        AddPartitionsToTxnTopic::default()
                            .with_name(topic(t1))
                            .with_partitions(vec![0]),
                    ])
            })
            .map(|r| r.results_by_topic_v3_and_below),
        );
    }
    show(
        "DescribeTransactions unknown",
        c.call(
            0,
            DescribeTransactionsRequest::default()
                .with_transactional_ids(vec![TransactionalId(s("nope"))]),
        ),
    );
    show(
        "DescribeProducers",
        c.call(0, {
            use describe_producers_request::*;
            DescribeProducersRequest::default().with_topics(vec![
                TopicRequest::default().with_name(topic(t1)).with_partition_indexes(vec![0]),
            ])
        })
        .map(|r| r.topics[0].partitions[0].active_producers.clone()),
    );
    Ok(())
}
