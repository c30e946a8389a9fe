//! TLS: certificates from PEM files, for listeners and for connections that are opened.
//!
//! Invariants: a peer whose certificate is not signed by the trust store is never spoken to; whoever opens a connection checks
//! the name that it asked for; files that changed are taken up by the next connections, and wrong ones never replace good ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::dial::{Dial, Dialing, Duplex};
use crate::config::parse_address;
use crate::system::SharedDisk;
use crate::system::clock::{Instant, monotonic, timeout_at};
use crate::system::disk::read_file;

/// How often the files are looked at again, when connections come.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Whether clients show certificates (`ssl.client.auth`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    None,
    /// They may; one that is shown must be good.
    Requested,
    Required,
}

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// A private key and its chain of certificates (`ssl.keystore.location`).
    pub key_store: Option<PathBuf>,
    /// Certificates that sign what peers show (`ssl.truststore.location`); `None`: those of the operating system.
    pub trust_store: Option<PathBuf>,
}

/// Why files are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{setting}: can't read {path}: {error}")]
    Unreadable { setting: &'static str, path: PathBuf, error: io::Error },
    #[error("{setting}: {path} {what}")]
    Wrong { setting: &'static str, path: PathBuf, what: String },
    #[error("TLS: {0}")]
    Refused(String),
}

/// What is served and asked with, as the files said when they were read last.
#[derive(Debug)]
pub(crate) struct Tls {
    disk: SharedDisk,
    files: TlsFiles,
    /// The certificates that servers and clients show and check with, what was read, and when.
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    bytes: Bytes,
    parts: Parts,
    looked: Instant,
}

/// The files' bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Bytes {
    key_store: Option<Vec<u8>>,
    trust_store: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Parts {
    /// By `ClientAuth`; none without a key store.
    servers: Vec<(ClientAuth, Arc<ServerConfig>)>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files; they must be good now.
    pub(crate) fn open(disk: SharedDisk, files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let bytes = read(&disk, &files)?;
        let parts = build(&files, &bytes)?;
        let loaded = Mutex::new(Loaded { bytes, parts, looked: monotonic() });
        Ok(Arc::new(Self { disk, files, loaded }))
    }

    /// What the files say now, or said when they were good last.
    fn parts(&self) -> Parts {
        let mut loaded = self.loaded.lock();
        if monotonic() - loaded.looked >= LOOK_AGAIN {
            self.look(&mut loaded);
        }
        loaded.parts.clone()
    }

    /// Looks at the files now, without waiting until it is their time.
    pub(crate) fn reload(&self) {
        self.look(&mut self.loaded.lock());
    }

    fn look(&self, loaded: &mut Loaded) {
        loaded.looked = monotonic();
        let now = read(&self.disk, &self.files).and_then(|bytes| {
            if bytes == loaded.bytes {
                return Ok(None);
            }
            Ok(Some((build(&self.files, &bytes)?, bytes)))
        });
        match now {
            Ok(Some((parts, bytes))) => {
                tracing::info!("certificates read again");
                (loaded.parts, loaded.bytes) = (parts, bytes);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the certificates of before are kept"),
        }
    }

    /// Answers a client's handshake.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
        auth: ClientAuth,
    ) -> io::Result<TlsStream<TcpStream>> {
        let servers = self.parts().servers;
        let server = servers.into_iter().find(|(which, _)| *which == auth);
        let (_, server) = server.ok_or_else(|| io::Error::other("no certificate to show"))?;
        in_time(TlsAcceptor::from(server).accept(tcp)).await
    }
}

/// Opens connections with TLS.
#[derive(Debug)]
pub(crate) struct TlsDialer(pub Arc<Tls>);

impl Dial for TlsDialer {
    fn dial(&self, address: String) -> Dialing {
        let connector = TlsConnector::from(self.0.parts().client);
        Box::pin(async move {
            let host = parse_address(&address).map(|(host, _)| host.to_owned());
            let host = host.ok_or_else(|| io::Error::other("the address is not host:port"))?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Duplex> = Box::new(in_time(connector.connect(name, tcp)).await?);
            Ok(stream)
        })
    }
}

async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(monotonic() + HANDSHAKE, handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long"))?
}

const KEY_STORE: &str = "ssl.keystore.location";
const TRUST_STORE: &str = "ssl.truststore.location";

fn read(disk: &SharedDisk, files: &TlsFiles) -> Result<Bytes, TlsError> {
    let read = |setting, path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let bytes = read_file(&**disk, path);
        bytes.map(Some).map_err(|error| TlsError::Unreadable { setting, path: path.clone(), error })
    };
    Ok(Bytes {
        key_store: read(KEY_STORE, &files.key_store)?,
        trust_store: read(TRUST_STORE, &files.trust_store)?,
    })
}

fn build(files: &TlsFiles, bytes: &Bytes) -> Result<Parts, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(files.trust_store.as_deref().zip(bytes.trust_store.as_deref()))?);
    let own = match files.key_store.as_deref().zip(bytes.key_store.as_deref()) {
        Some((path, bytes)) => Some(own_certificate(path, bytes)?),
        None => None,
    };
    let refused = |error: rustls::Error| TlsError::Refused(error.to_string());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(Arc::clone(&roots));
    let Some((chain, key)) = own else {
        let client = Arc::new(client.with_no_client_auth());
        return Ok(Parts { servers: Vec::new(), client });
    };
    let client = client.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(refused)?;
    let mut servers = Vec::new();
    for auth in [ClientAuth::None, ClientAuth::Requested, ClientAuth::Required] {
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(refused)?;
        let server = if auth == ClientAuth::None {
            server.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(&provider),
            );
            let verifier = if auth == ClientAuth::Requested {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            let verifier = verifier.build().map_err(|e| TlsError::Refused(e.to_string()))?;
            server.with_client_cert_verifier(verifier)
        };
        let server = server.with_single_cert(chain.clone(), key.clone_key()).map_err(refused)?;
        servers.push((auth, Arc::new(server)));
    }
    Ok(Parts { servers, client: Arc::new(client) })
}

fn roots(file: Option<(&Path, &[u8])>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let Some((path, bytes)) = file else {
        // Where the operating system has none, every peer is refused, and says so.
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        tracing::debug!(added, "certificates of the operating system");
        return Ok(roots);
    };
    let wrong =
        |what: String| TlsError::Wrong { setting: TRUST_STORE, path: path.to_owned(), what };
    for certificate in certificates(bytes).map_err(&wrong)? {
        roots.add(certificate).map_err(|error| wrong(format!("has a bad certificate: {error}")))?;
    }
    Ok(roots)
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own_certificate(path: &Path, bytes: &[u8]) -> Result<Own, TlsError> {
    let wrong = |what: String| TlsError::Wrong { setting: KEY_STORE, path: path.to_owned(), what };
    let key = PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| wrong(format!("has no unencrypted private key in PEM: {error}")))?;
    Ok((certificates(bytes).map_err(wrong)?, key))
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err("has no certificate in PEM".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("is not PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::system::OsDisk;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
    }

    fn write_key_store(path: &Path, authority: &Authority, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let own = params.signed_by(&key, authority).expect("signed");
        std::fs::write(path, key.serialize_pem() + &own.pem()).expect("written");
    }

    fn tls(folder: &Path, authority: &Authority, name: &str) -> Arc<Tls> {
        let key_store = folder.join(format!("{name}.pem"));
        let trust_store = folder.join(format!("{name}-trust.pem"));
        write_key_store(&key_store, authority, name);
        std::fs::write(&trust_store, authority.pem()).expect("written");
        let files = TlsFiles { key_store: Some(key_store), trust_store: Some(trust_store) };
        Tls::open(Arc::new(OsDisk), files).expect("good files")
    }

    /// Sends a byte there and back.
    async fn meet(server: &Tls, auth: ClientAuth, client: Arc<Tls>) -> io::Result<()> {
        let listener = TcpListener::bind("localhost:0").await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let serving = async {
            let mut stream = server.accept(listener.accept().await?.0, auth).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.flush().await
        };
        let asking = async {
            let mut stream = TlsDialer(client).dial(address).await?;
            stream.write_u8(7).await?;
            stream.flush().await?;
            assert_eq!(stream.read_u8().await?, 7);
            Ok(())
        };
        let (one, other) = tokio::join!(serving, asking);
        one.and(other)
    }

    #[tokio::test]
    async fn both_sides_check_who_signed_and_the_caller_checks_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (authority(), authority());
        let node = tls(folder.path(), &ours, "localhost");
        meet(&node, ClientAuth::Required, Arc::clone(&node)).await.expect("of one authority");
        let far = tls(folder.path(), &ours, "elsewhere");
        assert!(meet(&far, ClientAuth::None, Arc::clone(&node)).await.is_err(), "another name");
        let stranger = tls(folder.path(), &theirs, "stranger");
        for auth in [ClientAuth::None, ClientAuth::Required] {
            assert!(meet(&node, auth, Arc::clone(&stranger)).await.is_err());
            assert!(meet(&stranger, auth, Arc::clone(&node)).await.is_err());
        }
        let trust_store = Some(folder.path().join("localhost-trust.pem"));
        let nobody = TlsFiles { key_store: None, trust_store };
        let nobody = Tls::open(Arc::new(OsDisk), nobody).expect("good files");
        meet(&node, ClientAuth::Requested, Arc::clone(&nobody)).await.expect("none is needed");
        assert!(meet(&node, ClientAuth::Required, nobody).await.is_err(), "one is needed");
    }

    #[tokio::test]
    async fn files_that_changed_are_taken_up_and_wrong_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (authority(), authority());
        let node = tls(folder.path(), &old, "localhost");
        let look_again = || node.loaded.lock().looked -= LOOK_AGAIN;
        std::fs::write(folder.path().join("localhost.pem"), "half a file").expect("written");
        look_again();
        meet(&node, ClientAuth::Required, Arc::clone(&node)).await.expect("the ones of before");
        let renewed = tls(folder.path(), &new, "localhost");
        assert!(meet(&node, ClientAuth::Required, Arc::clone(&renewed)).await.is_err());
        look_again();
        meet(&node, ClientAuth::Required, renewed).await.expect("the new ones");
    }
}
