//! Questions: Produce.

use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::records::*;

use super::OUT;
use super::client::*;

pub(super) fn empty_partition(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, .. } = asking;
    for ts in [-1i64, -2, -3, -4, -5, -6, -7, 1] {
        show(
            &format!("ListOffsets v10 empty partition ts {ts}: (err, ts, offset, epoch)"),
            c.call(10, lo(t1, ts, -1)).map(one),
        );
    }
    Ok(())
}

pub(super) fn produces(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, t2, t3, tid, .. } = asking;
    show(
        "Produce v12 3 records (err, base, append ts, start, n record errors, msg, first)",
        c.call(12, produce(t1, Some(recs(3, true, 10)), -1)).map(pr),
    );
    show("Produce v12 5 records", c.call(12, produce(t1, Some(recs(5, true, 10)), 1)).map(pr));
    show(
        "Produce v9 LogAppendTime topic",
        c.call(9, produce(t3, Some(recs(2, true, 10)), -1)).map(pr),
    );
    show("Produce acks 2", c.call(12, produce(t1, Some(recs(1, true, 10)), 2)).map(pr));
    show("Produce null records", C::new().call(12, produce(t1, None, -1)).map(pr));
    show("Produce empty records", C::new().call(12, produce(t1, Some(Bytes::new()), -1)).map(pr));
    let two = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b.extend_from_slice(&recs(1, true, 5));
        b.freeze()
    };
    show(
        "Produce two batches in one partition",
        C::new().call(12, produce(t1, Some(two), -1)).map(pr),
    );
    let bad = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[20] ^= 1;
        b.freeze()
    };
    show("Produce bad CRC", C::new().call(12, produce(t1, Some(bad), -1)).map(pr));
    let cnt = {
        let mut b = BytesMut::from(&recs(3, true, 5)[..]);
        b[57..61].copy_from_slice(&2i32.to_be_bytes());
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce record count not lastOffsetDelta+1",
        C::new().call(12, produce(t1, Some(cnt), -1)).map(pr),
    );
    let base = {
        let mut b = BytesMut::from(&recs(3, true, 5)[..]);
        b[0..8].copy_from_slice(&500i64.to_be_bytes());
        b.freeze()
    };
    show("Produce base offset 500", C::new().call(12, produce(t1, Some(base), -1)).map(pr));
    let m1 = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[16] = 1;
        b.freeze()
    };
    show("Produce magic 1", C::new().call(12, produce(t1, Some(m1), -1)).map(pr));
    let ctl = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[22] |= 0x20;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce control batch from a client",
        C::new().call(12, produce(t1, Some(ctl), -1)).map(pr),
    );
    let unused = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[21] |= 0x02;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce with an unused attribute bit",
        C::new().call(12, produce(t1, Some(unused), -1)).map(pr),
    );
    let cut = {
        let b = recs(3, true, 50);
        b.slice(..b.len() - 10)
    };
    show("Produce truncated batch", C::new().call(12, produce(t1, Some(cut), -1)).map(pr));
    let lat = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[22] |= 0x08;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce with LogAppendTime bit set by the client, CreateTime topic",
        C::new().call(12, produce(t1, Some(lat), -1)).map(pr),
    );
    show(
        "Produce 2 MB to default topic",
        C::new().call(12, produce(t1, Some(recs(1, true, 2_000_000)), -1)).map(pr),
    );
    show(
        "Encoder: 3 records all with NO_SEQUENCE make how many batches",
        Ok({
            let r: Vec<Record> = (0..3)
                .map(|i| Record {
                    transactional: false,
                    control: false,
                    delete_horizon: false,
                    partition_leader_epoch: -1,
                    producer_id: -1,
                    producer_epoch: -1,
                    timestamp_type: TimestampType::Creation,
                    offset: i,
                    sequence: NO_SEQUENCE,
                    timestamp: 5,
                    key: None,
                    value: None,
                    headers: Default::default(),
                })
                .collect();
            RecordBatchDecoder::decode_all(&mut encoded(&r)).unwrap().len()
        }),
    );
    show(
        "Produce keyless to compacted",
        C::new().call(12, produce(t2, Some(recs(2, false, 10)), -1)).map(pr),
    );
    show("Produce unknown topic", c.call(12, produce("nope", Some(recs(1, true, 5)), -1)).map(pr));
    show(
        "Produce v13 unknown id",
        c.call(13, {
            let mut p = produce("x", Some(recs(1, true, 5)), -1);
            p.topic_data[0].name = Default::default();
            p.topic_data[0].topic_id = uuid::Uuid::from_u128(5);
            p
        })
        .map(pr),
    );
    show(
        "Produce v13 by id",
        c.call(13, {
            let mut p = produce("x", Some(recs(1, true, 5)), -1);
            p.topic_data[0].name = Default::default();
            p.topic_data[0].topic_id = *tid;
            p
        }),
    );
    show(
        "Produce idempotent pid never handed out, seq 7",
        c.call(
            12,
            produce(
                t1,
                Some({
                    let mut b = BytesMut::from(&recs(1, true, 5)[..]);
                    b[43..51].copy_from_slice(&4242i64.to_be_bytes());
                    b[51..53].copy_from_slice(&0i16.to_be_bytes());
                    b[53..57].copy_from_slice(&7i32.to_be_bytes());
                    fix_crc(&mut b);
                    b.freeze()
                }),
                -1,
            ),
        )
        .map(pr),
    );
    let seq = |pid: i64, ep: i16, sq: i32| {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[43..51].copy_from_slice(&pid.to_be_bytes());
        b[51..53].copy_from_slice(&ep.to_be_bytes());
        b[53..57].copy_from_slice(&sq.to_be_bytes());
        fix_crc(&mut b);
        b.freeze()
    };
    let pid = loop {
        let p = c.call(
            4,
            InitProducerIdRequest::default()
                .with_transaction_timeout_ms(60000)
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )?;
        if p.error_code != 14 && p.error_code != 15 {
            break p;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    say!(
        "## InitProducerId: err {} pid {:?} epoch {}",
        pid.error_code,
        pid.producer_id,
        pid.producer_epoch
    );
    for sq in [0, 1, 2, 3, 4, 5, 6] {
        c.call(12, produce(t1, Some(seq(pid.producer_id.0, 0, sq)), -1)).map(pr)?;
    }
    for (what, epoch, sq) in [
        ("repeat seq 6 (last)", 0, 6),
        ("repeat seq 2 (5th from last)", 0, 2),
        ("repeat seq 1 (6th from last)", 0, 1),
        ("gap seq 9", 0, 9),
        ("epoch 1 with seq 3", 1, 3),
        ("epoch 1 with seq 0", 1, 0),
        ("old epoch 0 seq 7", 0, 7),
    ] {
        show(
            &format!("idempotent: {what}"),
            c.call(12, produce(t1, Some(seq(pid.producer_id.0, epoch, sq)), -1)).map(pr),
        );
    }
    for ts in [-1i64, -2, -3, -4, -5, 1_700_000_000_001, 1_900_000_000_000] {
        show(
            &format!("ListOffsets v10 filled partition ts {ts}"),
            c.call(10, lo(t1, ts, -1)).map(one),
        );
    }
    show("ListOffsets current epoch 99", c.call(10, lo(t1, -1, 99)).map(one));
    show("ListOffsets unknown topic", c.call(10, lo("nope", -1, -1)).map(one));
    Ok(())
}
