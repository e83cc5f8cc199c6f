//! TLS 1.2 and 1.3: certificates from PEM files, and those of clients where they are asked for.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::server::TlsStream;

use crate::gate::AsksCertificate;
use crate::transport::shown::{AllShown, Shown, Verifier};

/// Unsent bytes that a TLS connection may hold as records.
const RECORD_BYTES: usize = 64 * 1024;

/// The files of a listener that speaks TLS, all of them PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The server's certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Roots of clients' certificates. `None`: clients are not asked for one.
    pub client_authorities: Option<PathBuf>,
    /// Whether a client without a certificate is refused; of no meaning without `client_authorities`.
    /// Default yes.
    pub require_client_certificate: bool,
    /// Lists of revoked clients' certificates. Where there are some, each authority in the chain of a client
    /// must have one.
    pub revocation_lists: Vec<PathBuf>,
    /// The lowest version that is spoken. Default 1.2.
    pub minimum_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsOptions {
    /// A server's certificate and its key; nothing is asked of clients.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            client_authorities: None,
            require_client_certificate: true,
            revocation_lists: Vec::new(),
            minimum_version: TlsVersion::V1_2,
        }
    }
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
pub struct TlsError {
    /// The file at fault.
    pub file: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Pem(pem::Error),
    #[error("no certificate in the file")]
    NoCertificate,
    #[error("no revocation list in the file")]
    NoList,
    #[error("{0}")]
    Certificate(rustls::Error),
    #[error("{0}")]
    Verifier(VerifierBuilderError),
}

/// TLS as a listener speaks it: the content of its files at one moment.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// Who decides about certificates of clients, where they are asked for any, and those that were shown.
    clients: Option<(Verifier, Arc<AllShown>)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or what is in it cannot be used.
    pub fn load(options: &TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = read_certificates(&options.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&options.key).in_file(&options.key, Problem::Pem)?;
        let versions: &[&SupportedProtocolVersion] = match options.minimum_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS12, &rustls::version::TLS13],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let asked = match &options.client_authorities {
            None => None,
            Some(file) => Some(client_verifier(file, options, &provider)?),
        };
        let verifier = asked.clone().unwrap_or_else(|| Arc::new(NoClientAuth));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .in_file(&options.certificate, Problem::Certificate)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, key)
            .in_file(&options.key, Problem::Certificate)?;
        // Tickets hold the state of a session, so that the broker keeps none.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self {
            config: Arc::new(config),
            clients: asked.map(|verifier| {
                let shown = Arc::new(AllShown::new(Arc::clone(&verifier)));
                (verifier, shown)
            }),
        })
    }

    /// Takes the place of another: what clients have shown to that one is looked at again.
    pub(crate) fn replace(&mut self, old: &Self) {
        if let (Some((verifier, shown)), Some((_, before))) = (&mut self.clients, &old.clients)
            && !Arc::ptr_eq(shown, before)
        {
            before.decide(verifier);
            *shown = Arc::clone(before);
        }
    }

    /// What clients are asked for.
    pub(crate) fn asks_certificate(&self) -> AsksCertificate {
        match &self.clients {
            None => AsksCertificate::No,
            Some((verifier, _)) if verifier.client_auth_mandatory() => AsksCertificate::Must,
            Some(_) => AsksCertificate::May,
        }
    }

    /// Shakes hands; returns the stream and the client's certificates, if it has shown any.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<(Arc<[u8]>, Arc<Shown>)>)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = acceptor
            .accept_with(stream, |connection| {
                connection.set_buffer_limit(Some(RECORD_BYTES));
            })
            .await?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let certificate = self.clients.as_ref().zip(chain.first());
        let certificate = certificate.map(|((verifier, all), first)| {
            (first.as_ref().into(), all.add(chain.to_vec(), verifier))
        });
        Ok((stream, certificate))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Names the file that an error is about.
trait InFile<T, E> {
    fn in_file(self, file: &Path, problem: impl FnOnce(E) -> Problem) -> Result<T, TlsError>;
}

impl<T, E> InFile<T, E> for Result<T, E> {
    fn in_file(self, file: &Path, problem: impl FnOnce(E) -> Problem) -> Result<T, TlsError> {
        self.map_err(|error| TlsError {
            file: file.to_owned(),
            problem: problem(error),
        })
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .in_file(file, Problem::Pem)?;
    if certificates.is_empty() {
        return Err(()).in_file(file, |()| Problem::NoCertificate);
    }
    Ok(certificates)
}

fn client_verifier(
    file: &Path,
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).in_file(file, Problem::Certificate)?;
    }
    let roots = Arc::new(roots);
    let builder =
        || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let mut lists = Vec::new();
    for file in &options.revocation_lists {
        let found: Vec<_> = CertificateRevocationListDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .in_file(file, Problem::Pem)?;
        if found.is_empty() {
            return Err(()).in_file(file, |()| Problem::NoList);
        }
        // Each by itself, as the error of all together does not tell which of them it is.
        let alone = builder().with_crls(found.clone()).build();
        alone.in_file(file, Problem::Verifier)?;
        lists.extend(found);
    }
    let mut builder = builder().with_crls(lists);
    if !options.require_client_certificate {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.in_file(file, Problem::Verifier)
}
