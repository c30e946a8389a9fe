//! Questions: Fetch and ListOffsets.

use anyhow::Result;
use kafka_protocol::messages::*;

use super::OUT;
use super::client::*;

pub(super) fn fetches(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, t3, tid, .. } = asking;
    show(
        "Fetch v12 offset 1 (mid batch) (err, session, topics, (err, hw, lso, start, replica, aborted, (len, base)))",
        c.call(12, fetch(Some(t1), Z, 1, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 max_bytes 1, partition max 1",
        c.call(12, fetch(Some(t1), Z, 0, 1, 1, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 read committed",
        c.call(12, fetch(Some(t1), Z, 0, 1 << 20, 1 << 20, 0, -1, 1)).map(fp),
    );
    let end = one(c.call(10, lo(t1, -1, -1))?).2;
    show(
        "Fetch v12 at the end",
        c.call(12, fetch(Some(t1), Z, end, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 beyond the end",
        c.call(12, fetch(Some(t1), Z, 9999, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 offset -1",
        c.call(12, fetch(Some(t1), Z, -1, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 unknown topic",
        c.call(12, fetch(Some("nope"), Z, 0, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v16 unknown id",
        c.call(16, fetch(None, uuid::Uuid::from_u128(9), 0, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    let r = c.call(16, fetch(None, *tid, 0, 1 << 20, 1 << 20, 0, 0, 0))?;
    let sid = r.session_id;
    show("Fetch v16 new session", Ok(fp(r)));
    let inc = |sid: i32, ep: i32| {
        FetchRequest::default()
            .with_max_wait_ms(200)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(sid)
            .with_session_epoch(ep)
    };
    show("Fetch v16 session epoch 1, no topics (records remain)", c.call(16, inc(sid, 1)).map(fp));
    show(
        "Fetch v16 session: move to end",
        c.call(16, fetch(None, *tid, end, 1 << 20, 1 << 20, sid, 2, 0)).map(fp),
    );
    show("Fetch v16 session: nothing new", c.call(16, inc(sid, 3)).map(fp));
    show("Fetch v16 session: wrong epoch 9", c.call(16, inc(sid, 9)).map(fp));
    show("Fetch v16 session: unknown id", c.call(16, inc(987654, 1)).map(fp));
    show("Fetch v16 session: close (epoch -1)", c.call(16, inc(sid, -1)).map(fp));
    show(
        "Fetch v12 node_endpoints / v16 leader fields on stale epoch",
        c.call(16, {
            let mut f = fetch(None, *tid, 0, 1 << 20, 1 << 20, 0, -1, 0);
            f.topics[0].partitions[0].current_leader_epoch = 99;
            f
        })
        .map(|r| {
            (
                r.node_endpoints.len(),
                r.responses[0].partitions[0].error_code,
                r.responses[0].partitions[0].current_leader.clone(),
            )
        }),
    );
    // LogAppendTime
    let r = c.call(12, fetch(Some(t3), Z, 0, 1 << 20, 1 << 20, 0, -1, 0))?;
    let b = r.responses[0].partitions[0].records.clone().unwrap();
    say!(
        "## LogAppendTime batch as stored: attributes {:#x} baseTs {} maxTs {} leaderEpoch {}",
        i16::from_be_bytes(b[21..23].try_into()?),
        i64::from_be_bytes(b[27..35].try_into()?),
        i64::from_be_bytes(b[35..43].try_into()?),
        i32::from_be_bytes(b[12..16].try_into()?)
    );
    Ok(())
}
