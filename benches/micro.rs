//! Micro-benchmarks of the hot path's steps: `cargo bench --features internals`.
//!
//! Estimates, written before the first run (of the machine that `docs/operating/performance.md` names): decoding a
//! produce request of six partitions 1 µs (no record is looked at); checking a batch of 16 KiB 0.5 µs and of 1 MB 20 µs
//! (the checksum at 50 GB/s); appending 16 KiB 5 µs and 1 MB 170 µs (the copy into the page cache); finding a tail
//! batch 1 µs (one read of headers); encoding a fetch answer 0.3 µs. A member of a rebalance and a group's commit 10 µs
//! each, and the same for one of ten thousand as for one of a thousand: nothing in the coordinator is quadratic.

use std::path::PathBuf;

use criterion::{Criterion, Throughput};
use strandline::internals::micro::{
    MeasuredGroups, MeasuredLog, batch, decode_produce, encode_fetch_answer, guessed_effort,
    produce_frame, typical_batch, validate_batch,
};

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("strandline-micro-{}-{name}", std::process::id()))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let small = batch(15);
    let large = batch(950);
    let frame = produce_frame(&small);
    criterion.bench_function("decode a produce request of 6 x 16 KiB", |b| {
        b.iter(|| decode_produce(&frame));
    });
    criterion.bench_function("encode a fetch answer of 6 partitions", |b| {
        b.iter(|| encode_fetch_answer(&frame));
    });
    for (name, batch) in [("16 KiB", &small), ("1 MB", &large)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(batch.len().try_into().expect("small")));
        group.bench_function("validate", |b| b.iter(|| validate_batch(batch, false)));
        let folder = folder(&name.replace(' ', "-"));
        let mut log = MeasuredLog::open(folder.clone());
        group.bench_function("append", |b| b.iter(|| log.append(batch)));
        group.bench_function("read at the tail", |b| b.iter(|| log.read_tail(1 << 20)));
        group.finish();
        drop(log);
        let _ = std::fs::remove_dir_all(folder);
    }
    walks(&mut criterion);
    groups(&mut criterion);
    criterion.final_summary();
}

/// What `record.validation=records` adds to the checks of a batch.
fn walks(criterion: &mut Criterion) {
    for codec in ["none", "snappy", "lz4", "zstd", "gzip"] {
        for (size, bytes) in [("16 KiB", 16 << 10), ("1 MB", 1_000_000)] {
            let mut group = criterion.benchmark_group(format!("{codec} {size}"));
            for record_bytes in [100, 1024] {
                let batch = typical_batch(bytes, record_bytes, codec);
                let name = format!("records of {record_bytes} bytes");
                println!("{codec} {size}, {name}: guessed {:?}", guessed_effort(&batch));
                for (how, walks) in [("headers", false), ("records", true)] {
                    group.bench_function(format!("{how}, {name}"), |b| {
                        b.iter(|| validate_batch(&batch, walks));
                    });
                }
            }
            group.finish();
        }
    }
}

fn groups(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("groups");
    group.sample_size(10);
    for count in [1_000_u32, 10_000] {
        group.throughput(Throughput::Elements(count.into()));
        let folder = folder(&count.to_string());
        let members = usize::try_from(count).expect("small");
        let mut measured = runtime.block_on(MeasuredGroups::open(&folder));
        // The first one waits for `group.initial.rebalance.delay.ms`.
        runtime.block_on(measured.rebalance(members));
        group.bench_function(format!("rebalance of {count} members"), |b| {
            b.iter(|| runtime.block_on(measured.rebalance(members)));
        });
        group.bench_function(format!("heartbeats of {count} members"), |b| {
            b.iter(|| runtime.block_on(async { measured.heartbeats() }));
        });
        group.bench_function(format!("commits of {count} groups"), |b| {
            b.iter(|| runtime.block_on(measured.commits(members)));
        });
        drop(measured);
        let _ = std::fs::remove_dir_all(folder);
    }
}
