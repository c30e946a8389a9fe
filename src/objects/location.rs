//! Where a store is, and how it is opened: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:folder`, `memory:`.
//!
//! Invariants: an option that no store of the kind knows is refused; keys are never part of an error's text.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

use super::store::{LOCK_FILE, Store, StoreError, Swap};
use crate::system::SharedDisk;
use crate::system::disk::read_file;
use crate::system::tasks::Background;

/// A store's address and options.
#[derive(Debug, Clone, Default)]
pub(crate) struct Location {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:folder`, `memory:`.
    pub url: String,
    /// Options by the names that the providers' own tools know, e.g. `aws_endpoint`; what is not named comes from the
    /// environment (`AWS_ACCESS_KEY_ID` and its like), a web identity, or the machine.
    pub options: Vec<(String, String)>,
    /// PEM file of certificates to trust beside the operating system's.
    pub certificates: Option<PathBuf>,
    /// Where requests are made; without threads of its own wherever they are asked for.
    pub background: Background,
}

impl Location {
    /// Reads options as `KEY=VALUE`; the error names the one that is none.
    pub(crate) fn parse_options<'a>(
        items: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<(String, String)>, String> {
        let read = |item: &str| {
            let (key, value) = item
                .split_once('=')
                .ok_or_else(|| format!("'{item}' is not of the form KEY=VALUE"))?;
            Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        items.into_iter().map(read).collect()
    }
}

/// How often a request is tried, and for how long in all.
const RETRIES: usize = 4;
const RETRY_FOR: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn wrong(text: impl Into<String>) -> StoreError {
    StoreError::Location(text.into())
}

/// Opens a store; nothing is asked of it yet.
pub(crate) fn open(location: &Location, disk: &SharedDisk) -> Result<Store, StoreError> {
    let url = location.url.trim();
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    if let Some(folder) = Some(rest).filter(|_| scheme == "file") {
        return open_folder(folder, location, disk);
    }
    #[cfg(test)]
    if let Some(store) =
        Some(()).filter(|()| url == "memory:shared").and_then(|()| super::faulty::shared())
    {
        return Ok(store);
    }
    if scheme == "memory" {
        return Ok(Store::remote(InMemory::new(), Path::default()));
    }
    let named = rest.strip_prefix("//").filter(|named| !named.is_empty());
    let named = named.ok_or_else(|| {
        wrong(format!(
            "'{url}' is none of s3://BUCKET/PREFIX, gs://…, az://…, file:FOLDER, memory:"
        ))
    })?;
    let (bucket, prefix) = named.split_once('/').unwrap_or((named, ""));
    let prefix = Path::parse(prefix.trim_matches('/'))
        .map_err(|error| wrong(format!("the prefix in '{url}': {error}")))?;
    // The TLS library is told once a process which cryptography it uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client_options(location, disk)?;
    // The builders are alike, but have no trait in common.
    macro_rules! built {
        ($builder:expr, $key:ty) => {{
            let mut builder = $builder.with_client_options(client).with_retry(retries());
            if let Some(threads) = location.background.handle() {
                builder = builder.with_http_connector(SpawnedReqwestConnector::new(threads));
            }
            for (key, value) in &location.options {
                let known = key.parse::<$key>().map_err(|_| unknown(key, scheme))?;
                builder = builder.with_config(known, value);
            }
            Store::remote(builder.build().map_err(|error| wrong(error.to_string()))?, prefix)
        }};
    }
    let store = match scheme {
        "s3" => {
            // Every copy is read back and compared: to hash its bytes for the signature too is a third of what copying costs.
            let builder = AmazonS3Builder::from_env().with_unsigned_payload(true);
            built!(builder.with_bucket_name(bucket), AmazonS3ConfigKey)
        }
        "gs" => {
            built!(GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket), GoogleConfigKey)
        }
        "az" => {
            built!(MicrosoftAzureBuilder::from_env().with_container_name(bucket), AzureConfigKey)
        }
        other => {
            return Err(wrong(format!(
                "'{other}' is not a kind of store: s3, gs, az, file, memory"
            )));
        }
    };
    Ok(store.with_background(location.background.clone()))
}

fn open_folder(folder: &str, location: &Location, disk: &SharedDisk) -> Result<Store, StoreError> {
    // `file:///path` and `file:path` are both common.
    let folder = folder.strip_prefix("//").unwrap_or(folder);
    if folder.is_empty() {
        return Err(wrong("file: names no folder"));
    }
    if let Some((key, _)) = location.options.first() {
        return Err(unknown(key, "file"));
    }
    let path = PathBuf::from(folder);
    let failed = |error: std::io::Error| wrong(format!("{}: {error}", path.display()));
    disk.create_dir_all(&path).map_err(failed)?;
    let folder = LocalFileSystem::new_with_prefix(&path)
        .map_err(|error| wrong(error.to_string()))?
        .with_fsync(true);
    let lock = path.join(LOCK_FILE);
    let swap = Swap::Locked { disk: Arc::clone(disk), lock };
    let store = Store::new(Arc::new(folder), Path::default(), swap);
    Ok(store.with_background(location.background.clone()))
}

fn unknown(key: &str, scheme: &str) -> StoreError {
    wrong(format!("a store of the kind {scheme} has no option '{key}'"))
}

fn client_options(location: &Location, disk: &SharedDisk) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(true);
    if let Some(path) = &location.certificates {
        let failed = |error: String| wrong(format!("{}: {error}", path.display()));
        let pem = read_file(&**disk, path).map_err(|error| failed(error.to_string()))?;
        let all = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
        if all.is_empty() {
            return Err(failed("no certificate in PEM".to_owned()));
        }
        for certificate in all {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    }
}
