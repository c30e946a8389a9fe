//! What is asked of a store, and how it fails.
//!
//! Invariants: see the module's header; an error says whether trying again can help.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, MultipartUpload, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, UpdateVersion,
};

use super::counts::{RequestCounts, RequestKind};
use crate::system::SharedDisk;
use crate::system::clock::{monotonic, sleep};
use crate::system::tasks::Background;

/// The smallest part of an upload in parts (S3's rule, but for the last part).
pub(crate) const PART_BYTES_MIN: usize = 5 << 20;
/// The lock of a folder; no object.
pub(super) const LOCK_FILE: &str = ".lock";
/// How long another process may hold the lock of a folder.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0}")]
    Location(String),
    #[error("there is no object {0}")]
    NotFound(String),
    #[error("there is an object {0} already")]
    AlreadyExists(String),
    #[error("the object {0} was changed by somebody else")]
    Changed(String),
    #[error("the store denies it: {0}")]
    Denied(String),
    #[error("the store can't do that: {0}")]
    Unsupported(String),
    #[error("the store does not answer as it should: {0}")]
    Unavailable(String),
}

impl StoreError {
    fn of(name: &str, error: Error) -> Self {
        match error {
            Error::NotFound { .. } => StoreError::NotFound(name.to_owned()),
            Error::AlreadyExists { .. } => StoreError::AlreadyExists(name.to_owned()),
            Error::Precondition { .. } => StoreError::Changed(name.to_owned()),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                StoreError::Denied(error.to_string())
            }
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                StoreError::Unsupported(error.to_string())
            }
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}

/// Which state of an object was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    tag: Option<String>,
    version: Option<String>,
}

impl From<PutResult> for Version {
    fn from(put: PutResult) -> Self {
        Self { tag: put.e_tag, version: put.version }
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    pub bytes: u64,
    /// Milliseconds since 1970, by the store's clock.
    pub modified_ms: i64,
}

/// How an object is changed only if it is what it was.
#[derive(Debug, Clone)]
pub(super) enum Swap {
    /// The store compares (a conditional put).
    Conditional,
    /// A folder can't: whoever changes something in it holds a lock.
    Locked { disk: SharedDisk, lock: PathBuf },
}

/// A store; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    /// The same store, if uploads in parts have names there by which they can be aborted later.
    parts: Option<Arc<dyn MultipartStore>>,
    prefix: Path,
    swap: Swap,
    background: Background,
    counts: Arc<RequestCounts>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.inner, self.prefix)
    }
}

impl Store {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, prefix: Path, swap: Swap) -> Self {
        let (background, counts) = (Background::none(), Arc::default());
        Self { inner, parts: None, prefix, swap, background, counts }
    }

    pub(super) fn with_background(self, background: Background) -> Self {
        Self { background, ..self }
    }

    /// One that names uploads in parts, and changes objects by conditional puts.
    pub(super) fn remote<T: ObjectStore + MultipartStore>(store: T, prefix: Path) -> Self {
        let store = Arc::new(store);
        let inner: Arc<dyn ObjectStore> = Arc::<T>::clone(&store);
        let parts: Arc<dyn MultipartStore> = store;
        Self { parts: Some(parts), ..Self::new(inner, prefix, Swap::Conditional) }
    }

    /// Counts its requests together with those of another one.
    pub(crate) fn counted_with(self, other: &Self) -> Self {
        Self { counts: Arc::clone(&other.counts), ..self }
    }

    pub(crate) fn counts(&self) -> &RequestCounts {
        &self.counts
    }

    /// Where work on it is done that nobody is to wait for.
    pub(crate) fn background(&self) -> &Background {
        &self.background
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), Path::join)
    }

    fn name(&self, path: &Path) -> String {
        let own = self.prefix.as_ref();
        path.as_ref().strip_prefix(own).unwrap_or(path.as_ref()).trim_start_matches('/').to_owned()
    }

    /// Makes an object; `AlreadyExists` if there is one of that name, which stays as it is.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Version, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.path(name);
        let put = self.inner.put_opts(&path, PutPayload::from_bytes(bytes), options);
        let put = put.await.map(Version::from).map_err(|error| StoreError::of(name, error));
        self.counts.note(RequestKind::Put, put)
    }

    /// Replaces an object that is still what was read; else `Changed`, and it stays as it is.
    pub(crate) async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        read: &Version,
    ) -> Result<Version, StoreError> {
        let Swap::Locked { disk, lock } = &self.swap else {
            let version = UpdateVersion { e_tag: read.tag.clone(), version: read.version.clone() };
            return self.put(name, bytes, PutMode::Update(version)).await;
        };
        let until = monotonic() + LOCK_WAIT;
        let _held = loop {
            match disk.lock(lock) {
                Ok(held) => break held,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(StoreError::Unavailable(format!("{}: {error}", lock.display())));
                }
                Err(_) if monotonic() >= until => {
                    let text = format!("{} is held by another process", lock.display());
                    return Err(StoreError::Unavailable(text));
                }
                Err(_) => sleep(Duration::from_millis(2)).await,
            }
        };
        let options = GetOptions { head: true, ..GetOptions::default() };
        let now = self.got(name, options).await?.meta;
        if now.e_tag != read.tag {
            return Err(StoreError::Changed(name.to_owned()));
        }
        self.put(name, bytes, PutMode::Overwrite).await
    }

    async fn put(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<Version, StoreError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let path = self.path(name);
        let put = self.inner.put_opts(&path, PutPayload::from_bytes(bytes), options);
        let put = put.await.map(Version::from).map_err(|error| match error {
            // Some stores say so of an object that is gone.
            Error::NotFound { .. } => StoreError::Changed(name.to_owned()),
            error => StoreError::of(name, error),
        });
        self.counts.note(RequestKind::Put, put)
    }

    async fn got(&self, name: &str, options: GetOptions) -> Result<GetResult, StoreError> {
        let got = self.inner.get_opts(&self.path(name), options).await;
        self.counts.note(RequestKind::Get, got.map_err(|error| StoreError::of(name, error)))
    }

    /// All of an object, and which version that is.
    pub(crate) async fn get(&self, name: &str) -> Result<(Bytes, Version), StoreError> {
        let got = self.got(name, GetOptions::default()).await?;
        let version = Version { tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let expected = got.meta.size;
        let bytes = got.bytes().await.map_err(|error| StoreError::of(name, error))?;
        whole(name, expected, bytes).map(|bytes| (bytes, version))
    }

    /// A range of an object: exactly those bytes, or an error.
    pub(crate) async fn get_range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let expected = range.end.saturating_sub(range.start);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self.got(name, options).await?;
        let bytes = got.bytes().await.map_err(|error| StoreError::of(name, error))?;
        whole(name, expected, bytes)
    }

    /// Shows a range of an object piece by piece, as it comes: exactly those bytes, or an error after what came.
    pub(crate) async fn each_piece(
        &self,
        name: &str,
        range: Range<u64>,
        mut see: impl FnMut(&[u8]) + Send,
    ) -> Result<(), StoreError> {
        let mut left = range.end.saturating_sub(range.start);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self.got(name, options).await?;
        let mut pieces = match got.payload {
            // A file is better read at once than in the small pieces that it would come in.
            GetResultPayload::File(..) => {
                let bytes = got.bytes().await.map_err(|error| StoreError::of(name, error))?;
                futures_util::stream::iter([Ok(bytes)]).boxed()
            }
            GetResultPayload::Stream(pieces) => pieces,
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| StoreError::of(name, error))?;
            let Some(after) = left.checked_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX))
            else {
                return Err(StoreError::Unavailable(format!(
                    "{name}: more came than was asked for"
                )));
            };
            left = after;
            see(&piece);
        }
        match left {
            0 => Ok(()),
            left => Err(StoreError::Unavailable(format!("{name}: {left} bytes did not come"))),
        }
    }

    /// Objects whose names begin with the parts of `prefix`.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix);
        let found: Result<Vec<_>, _> = self.inner.list(Some(&path)).try_collect().await;
        let found = found.map_err(|error| StoreError::of(prefix, error));
        let found = self.counts.note(RequestKind::List, found)?;
        let listed = found.into_iter().map(|meta| Listed {
            name: self.name(&meta.location),
            bytes: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        });
        let mut listed: Vec<Listed> = listed.filter(|found| found.name != LOCK_FILE).collect();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Deletes objects, many at a time; those that are gone already are no error.
    pub(crate) async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        let deleted = self.delete_all(names).await;
        self.counts.note(RequestKind::Delete, deleted)
    }

    async fn delete_all(&self, names: &[String]) -> Result<(), StoreError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let mut deleted = self.inner.delete_stream(Box::pin(futures_util::stream::iter(paths)));
        loop {
            match deleted.try_next().await {
                Ok(Some(_)) | Err(Error::NotFound { .. }) => {}
                // Of several objects some stores say so in words.
                Err(error) if error.to_string().contains("NoSuchKey") => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(StoreError::of("to delete", error)),
            }
        }
    }

    /// Begins an upload in parts, which shows nothing before it is finished. The name must be nobody's.
    pub(crate) async fn upload(&self, name: &str) -> Result<Upload, StoreError> {
        let path = self.path(name);
        let begun = if let Some(store) = &self.parts {
            store.create_multipart(&path).await.map(|id| {
                let (store, path) = (Arc::clone(store), path.clone());
                Begun::Named { store, path, id, parts: Vec::new() }
            })
        } else {
            let begun = self.inner.put_multipart_opts(&path, PutMultipartOptions::default());
            begun.await.map(Begun::Nameless)
        };
        let begun = begun.map_err(|error| StoreError::of(name, error));
        let begun = self.counts.note(RequestKind::Put, begun)?;
        Ok(Upload { name: name.to_owned(), begun, counts: Arc::clone(&self.counts) })
    }

    /// Aborts an upload that somebody began and left; one that is finished or gone is no error.
    pub(crate) async fn abort_upload(&self, name: &str, id: &str) -> Result<(), StoreError> {
        let Some(store) = &self.parts else { return Ok(()) };
        let aborted = match store.abort_multipart(&self.path(name), &id.to_owned()).await {
            // Some stores say so in words.
            Err(error) if error.to_string().contains("NoSuchUpload") => Ok(()),
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(StoreError::of(name, error)),
        };
        self.counts.note(RequestKind::Delete, aborted)
    }
}

/// A body that was cut short is as good as none.
fn whole(name: &str, expected: u64, bytes: Bytes) -> Result<Bytes, StoreError> {
    if u64::try_from(bytes.len()).is_ok_and(|got| got == expected) {
        return Ok(bytes);
    }
    let got = bytes.len();
    Err(StoreError::Unavailable(format!("{name}: {got} bytes came of {expected}")))
}

/// An upload in parts; one that is not finished is to be aborted.
pub(crate) struct Upload {
    name: String,
    begun: Begun,
    counts: Arc<RequestCounts>,
}

enum Begun {
    /// Known by an id, so that whoever finds it can abort it.
    Named { store: Arc<dyn MultipartStore>, path: Path, id: String, parts: Vec<PartId> },
    /// Known to this process only.
    Nameless(Box<dyn MultipartUpload>),
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.name)
    }
}

impl Upload {
    /// What the store calls it.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.begun {
            Begun::Named { id, .. } => Some(id),
            Begun::Nameless(_) => None,
        }
    }

    /// The next part; all but the last have `PART_BYTES_MIN` or more.
    pub(crate) async fn part(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let bytes = PutPayload::from_bytes(bytes);
        let put = match &mut self.begun {
            Begun::Named { store, path, id, parts } => {
                let put = store.put_part(path, id, parts.len(), bytes).await;
                put.map(|part| parts.push(part))
            }
            Begun::Nameless(upload) => upload.put_part(bytes).await,
        };
        self.counts.note(RequestKind::Put, put.map_err(|error| StoreError::of(&self.name, error)))
    }

    /// Shows the object.
    pub(crate) async fn finish(self) -> Result<(), StoreError> {
        let done = match self.begun {
            Begun::Named { store, path, id, parts } => {
                store.complete_multipart(&path, &id, parts).await
            }
            Begun::Nameless(mut upload) => upload.complete().await,
        };
        let done = done.map(drop).map_err(|error| StoreError::of(&self.name, error));
        self.counts.note(RequestKind::Put, done)
    }

    /// Leaves nothing behind.
    pub(crate) async fn abort(self) -> Result<(), StoreError> {
        let aborted = match self.begun {
            Begun::Named { store, path, id, .. } => store.abort_multipart(&path, &id).await,
            Begun::Nameless(mut upload) => upload.abort().await,
        };
        let aborted = aborted.map_err(|error| StoreError::of(&self.name, error));
        self.counts.note(RequestKind::Delete, aborted)
    }
}
