use std::sync::Arc;

use bytes::Bytes;

use super::faulty::{Fault, faulty};
use super::*;
use crate::system::{Clock, OsDisk, Random, SharedDisk};

fn opened(url: &str) -> Store {
    let disk: SharedDisk = Arc::new(OsDisk);
    open(&Location { url: url.to_owned(), ..Location::default() }, &disk).expect("opens")
}

fn number(bytes: &[u8]) -> u64 {
    String::from_utf8_lossy(bytes).parse().expect("a number")
}

/// Many that add one each, and try again where somebody else was faster.
async fn count_together(store: &Store) -> u64 {
    store.create("counter", Bytes::from_static(b"0")).await.expect("made");
    let add = |store: Store| async move {
        for _ in 0..10 {
            loop {
                let (bytes, read) = store.get("counter").await.expect("read");
                let next = (number(&bytes) + 1).to_string();
                match store.replace("counter", next.into(), &read).await {
                    Ok(_) => break,
                    Err(StoreError::Changed(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let adding: Vec<_> = (0..8).map(|_| crate::system::tasks::spawn(add(store.clone()))).collect();
    for adding in adding {
        adding.await.expect("no panic");
    }
    number(&store.get("counter").await.expect("read").0)
}

async fn wrong(store: &Store, clock: &Clock) -> Vec<&'static str> {
    let findings = check(store, clock, &Random::seeded(1)).await;
    findings.iter().filter(|found| found.wrong.is_some()).map(|found| found.what).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_here_does_what_is_asked_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = format!("file:{}", folder.path().join("tier").display());
    for url in ["memory:", &folder] {
        let store = opened(url);
        assert_eq!(wrong(&store, &Clock::system()).await, [""; 0], "{url}");
        assert_eq!(store.list("").await.expect("listed"), [], "{url}: something is left");
        assert_eq!(count_together(&store).await, 80, "{url}");
        let missing = store.get_range("nothing", 0..1).await;
        assert!(matches!(missing, Err(StoreError::NotFound(_))), "{url}");
        let beyond = store.get_range("counter", 0..100).await;
        assert!(beyond.is_err(), "{url}: fewer bytes than asked for are an error");
        store.delete(&["counter".into(), "nothing".into()]).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_folder_see_each_others_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    let (one, other) = (opened(&url), opened(&url));
    let made = one.create("a/b", Bytes::from_static(b"1")).await.expect("made");
    let taken = other.create("a/b", Bytes::from_static(b"2")).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists(_))));
    other.replace("a/b", Bytes::from_static(b"3"), &made).await.expect("replaced");
    let late = one.replace("a/b", Bytes::from_static(b"4"), &made).await;
    assert!(matches!(late, Err(StoreError::Changed(_))));
    assert_eq!(one.get("a/b").await.expect("read").0, "3");
    one.delete(&["a/b".into()]).await.expect("deleted");
    let gone = other.replace("a/b", Bytes::from_static(b"5"), &made).await;
    assert!(gone.is_err(), "what is gone is not made again by a replace");
}

#[test]
fn a_location_that_means_nothing_is_refused_with_the_way_out() {
    let disk: SharedDisk = Arc::new(OsDisk);
    let refused = |url: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let location = Location { url: url.to_owned(), options, ..Location::default() };
        open(&location, &disk).expect_err(url).to_string()
    };
    for url in ["", "bucket", "s3:", "s3://", "file:"] {
        assert!(refused(url, &[]).contains("file:"), "{url}");
    }
    assert!(refused("ftp://x/y", &[]).contains("'ftp' is not a kind of store"));
    assert!(refused("s3://b/p", &[("aws_colour", "red")]).contains("no option 'aws_colour'"));
    assert!(refused("file:/tmp/x", &[("aws_region", "r")]).contains("no option 'aws_region'"));
}

#[tokio::test]
async fn a_store_that_can_not_be_trusted_is_found_out() {
    let now = Clock::system();
    let careless = wrong(&faulty(Fault::Careless).0, &now).await;
    assert_eq!(
        careless,
        [
            "it is not overwritten by who thinks that it is new",
            "it is replaced only by who read it last",
            "ranges of it are read"
        ]
    );
    for fault in [Fault::Short, Fault::Flipped] {
        let found = wrong(&faulty(fault).0, &now).await;
        assert!(found.contains(&"ranges of it are read"), "{fault:?}: {found:?}");
    }
    assert_eq!(wrong(&faulty(Fault::Keeps).0, &now).await.last(), Some(&"objects are deleted"));
    let off = Clock::simulated(1_000);
    assert_eq!(wrong(&opened("memory:"), &off).await, ["clocks agree"]);
}
