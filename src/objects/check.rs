//! Proves that a store does what will be asked of it, before the first byte is trusted to it.
//!
//! Invariants: everything that the check makes has a name of its own, and goes again, also after a failure.

use std::time::Duration;

use bytes::Bytes;

use super::store::{PART_BYTES_MIN, Store, StoreError};
use crate::system::clock::monotonic;
use crate::system::{Clock, Random};

/// Stores refuse requests of clocks that are further off (S3: 15 minutes); long before that something is wrong.
/// The check of the clock, which matters less than the others.
pub(crate) const CLOCKS: &str = "clocks agree";
const SKEW_MS_MAX: i64 = 60_000;
const OBJECT_BYTES: usize = 1 << 16;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub what: &'static str,
    pub took: Duration,
    /// What went wrong, and the way out; `None` if nothing did.
    pub wrong: Option<String>,
}

/// Tries everything; the check stops where what follows could not succeed.
pub(crate) async fn check(store: &Store, clock: &Clock, random: &Random) -> Vec<Finding> {
    let folder = format!("strandline-check-{}", random.uuid().simple());
    let mut probe = Probe { store, clock, folder, findings: Vec::new(), made: Vec::new() };
    probe.run().await;
    probe.findings
}

struct Probe<'a> {
    store: &'a Store,
    clock: &'a Clock,
    folder: String,
    findings: Vec<Finding>,
    made: Vec<String>,
}

type Step = Result<(), String>;

fn told(error: StoreError) -> String {
    match &error {
        StoreError::Denied(_) => format!(
            "{error}: the key needs the rights to put, get, list and delete objects, and to abort uploads"
        ),
        StoreError::Unavailable(_) => {
            format!("{error}: look at the address, the region and the network")
        }
        _ => error.to_string(),
    }
}

fn pattern(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 251).unwrap_or(0)).collect()
}

impl Probe<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn step(&mut self, what: &'static str, step: impl Future<Output = Step>) -> bool {
        let begun = monotonic();
        let wrong = step.await.err();
        let is_good = wrong.is_none();
        self.findings.push(Finding { what, took: begun.elapsed(), wrong });
        is_good
    }

    async fn run(&mut self) {
        let (store, folder) = (self.store.clone(), self.folder.clone());
        let (one, parts, aborted) = (self.name("one"), self.name("parts"), self.name("aborted"));
        self.made = vec![one.clone(), parts.clone(), aborted.clone()];
        let is_reached = self
            .step("an object is made", async {
                store.create(&one, pattern(OBJECT_BYTES, 0)).await.map(drop).map_err(told)
            })
            .await;
        if is_reached {
            self.step(
                "it is not overwritten by who thinks that it is new",
                not_twice(&store, &one),
            )
            .await;
            self.step("it is replaced only by who read it last", swapped(&store, &one)).await;
            self.step("ranges of it are read", ranges(&store, &one)).await;
            self.step("it is listed", listed(&store, &folder, &one)).await;
            let now_ms = self.clock.now_ms();
            self.step(CLOCKS, clocks(&store, &folder, now_ms)).await;
            self.step("an object is uploaded in parts", in_parts(&store, &parts)).await;
            self.step("an upload that is given up leaves nothing", given_up(&store, &aborted))
                .await;
        }
        let made = std::mem::take(&mut self.made);
        self.step("objects are deleted", deleted(&store, &folder, &made)).await;
    }
}

async fn not_twice(store: &Store, name: &str) -> Step {
    match store.create(name, pattern(10, 9)).await {
        Err(StoreError::AlreadyExists(_)) => {}
        Err(error) => return Err(told(error)),
        Ok(_) => {
            return Err("it was overwritten: the store has no conditional put (If-None-Match), and two brokers could \
                        both think that they wrote last"
                .to_owned());
        }
    }
    let (bytes, _) = store.get(name).await.map_err(told)?;
    same(&bytes, &pattern(OBJECT_BYTES, 0))
}

async fn swapped(store: &Store, name: &str) -> Step {
    let (_, read) = store.get(name).await.map_err(told)?;
    store.replace(name, pattern(OBJECT_BYTES, 1), &read).await.map_err(told)?;
    match store.replace(name, pattern(OBJECT_BYTES, 2), &read).await {
        Err(StoreError::Changed(_)) => {}
        Err(error) => return Err(told(error)),
        Ok(_) => {
            return Err("an older version was replaced: the store has no conditional put (If-Match), and a broker that \
                        woke up late could undo what another one wrote"
                .to_owned());
        }
    }
    let (bytes, _) = store.get(name).await.map_err(told)?;
    same(&bytes, &pattern(OBJECT_BYTES, 1))
}

async fn ranges(store: &Store, name: &str) -> Step {
    let all = pattern(OBJECT_BYTES, 1);
    let end = u64::try_from(OBJECT_BYTES).unwrap_or(0);
    for range in [0..1, 1_000..5_000, end - 1..end] {
        let bytes = store.get_range(name, range.clone()).await.map_err(told)?;
        let from = usize::try_from(range.start).unwrap_or(0);
        let to = usize::try_from(range.end).unwrap_or(0);
        same(&bytes, all.get(from..to).unwrap_or_default())?;
    }
    Ok(())
}

async fn listed(store: &Store, folder: &str, name: &str) -> Step {
    let found = store.list(folder).await.map_err(told)?;
    let bytes = u64::try_from(OBJECT_BYTES).unwrap_or(0);
    let is_there = found.iter().any(|listed| listed.name == name && listed.bytes == bytes);
    if is_there { Ok(()) } else { Err(format!("{name} is not among {} objects", found.len())) }
}

async fn clocks(store: &Store, folder: &str, now_ms: i64) -> Step {
    let found = store.list(folder).await.map_err(told)?;
    let skew_ms = found.first().map_or(0, |listed| now_ms - listed.modified_ms);
    if skew_ms.abs() <= SKEW_MS_MAX {
        return Ok(());
    }
    Err(format!("this machine's clock is {skew_ms} ms ahead of the store's: set it by NTP"))
}

async fn in_parts(store: &Store, name: &str) -> Step {
    let parts = [pattern(PART_BYTES_MIN, 3), pattern(1_000, 4)];
    let mut upload = store.upload(name).await.map_err(told)?;
    for part in &parts {
        if let Err(error) = upload.part(part.clone()).await {
            let _ = upload.abort().await;
            return Err(told(error));
        }
    }
    upload.finish().await.map_err(told)?;
    let (bytes, _) = store.get(name).await.map_err(told)?;
    same(&bytes, &parts.concat())
}

async fn given_up(store: &Store, name: &str) -> Step {
    let mut upload = store.upload(name).await.map_err(told)?;
    let sent = upload.part(pattern(PART_BYTES_MIN, 5)).await;
    upload.abort().await.map_err(told)?;
    sent.map_err(told)?;
    match store.get(name).await {
        Err(StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(told(error)),
        Ok(_) => Err("it can be read".to_owned()),
    }
}

async fn deleted(store: &Store, folder: &str, names: &[String]) -> Step {
    store.delete(names).await.map_err(told)?;
    let left = store.list(folder).await.map_err(told)?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("{} objects are left below {folder}", left.len()))
    }
}

fn same(got: &[u8], expected: &[u8]) -> Step {
    if got == expected { Ok(()) } else { Err("other bytes came back than were stored".to_owned()) }
}
