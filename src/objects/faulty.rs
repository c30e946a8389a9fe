//! A store in memory that gets things wrong (tests only).

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::store::{Store, Swap};

/// What a store gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Conditions are not looked at.
    Careless,
    /// Bodies end too early, and nobody says so.
    Short,
    /// Every byte is another one.
    Flipped,
    /// What is deleted stays.
    Keeps,
    /// Nothing is done, and that is said.
    Down,
    /// Puts are done, and it is said that they were not.
    DoneButFailed,
    /// Puts to paths that hold this word never end.
    Stuck(&'static str),
}

#[derive(Debug)]
struct Faulty(Arc<InMemory>, Arc<Mutex<Fault>>);

/// What is in a store, and what is wrong with it.
type Shared = (Arc<InMemory>, Arc<Mutex<Fault>>);

thread_local! {
    /// The store of all nodes that are simulated in this thread.
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// Empties the store of this thread's simulation; returns its switch.
pub(crate) fn renew_shared() -> Arc<Mutex<Fault>> {
    let fault = Arc::new(Mutex::new(Fault::None));
    SHARED.with_borrow_mut(|shared| {
        *shared = Some((Arc::new(InMemory::new()), Arc::clone(&fault)));
    });
    fault
}

/// The store of this thread's simulation.
pub(super) fn shared() -> Option<Store> {
    let (inner, fault) = SHARED.with_borrow(Clone::clone)?;
    Some(Store::new(Arc::new(Faulty(inner, fault)), Path::default(), Swap::Conditional))
}

impl Faulty {
    fn fault(&self) -> Fault {
        *self.1.lock()
    }
}

fn unavailable() -> Error {
    Error::Generic { store: "faulty", source: "503 Slow Down".into() }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.fault())
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.fault();
        match fault {
            Fault::Down => return Err(unavailable()),
            Fault::Stuck(word) if at.as_ref().contains(word) => std::future::pending().await,
            _ => {}
        }
        let opts = if fault == Fault::Careless { PutOptions::default() } else { opts };
        let put = self.0.put_opts(at, bytes, opts).await;
        if fault == Fault::DoneButFailed { put.and(Err(unavailable())) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if self.fault() == Fault::Down {
            return Err(unavailable());
        }
        let is_head = options.head;
        let got = self.0.get_opts(at, options).await?;
        let (meta, range, attributes) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let extensions = got.extensions.clone();
        if is_head {
            return Ok(got);
        }
        let mut bytes = got.bytes().await?.to_vec();
        match self.fault() {
            Fault::Short => bytes.truncate(bytes.len() / 2),
            Fault::Flipped => bytes.iter_mut().for_each(|byte| *byte ^= 1),
            _ => {}
        }
        let stream = futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        let payload = GetResultPayload::Stream(stream);
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.fault() == Fault::Keeps { paths } else { self.0.delete_stream(paths) }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// A store, and what is wrong with it from now on.
pub(crate) fn faulty(fault: Fault) -> (Store, Arc<Mutex<Fault>>) {
    let fault = Arc::new(Mutex::new(fault));
    let inner = Faulty(Arc::new(InMemory::new()), Arc::clone(&fault));
    (Store::new(Arc::new(inner), Path::from("p"), Swap::Conditional), fault)
}
