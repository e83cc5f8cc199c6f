//! A TLS handshake that trusts anybody, to see what a server shows; nothing is sent over it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a server showed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Its certificates, its own first; empty if it did not come so far.
    pub(super) chain: Vec<Certificate>,
    /// Version and cipher suite, if the handshake was finished.
    pub(super) session: Option<String>,
    /// What ended the handshake, if something did.
    pub(super) error: Option<std::io::Error>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) subject: String,
    pub(super) issuer: String,
    /// Names and addresses that it is for.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Certificate {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// Days until it expires, negative when it has.
    pub(super) fn days_left(&self) -> i64 {
        (self.not_after - now()).div_euclid(24 * 60 * 60)
    }

    /// Whether its time has not come yet.
    pub(super) fn is_early(&self) -> bool {
        now() < self.not_before
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_secs()).unwrap_or(i64::MAX)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// `2026-11-22`, in UTC.
pub(super) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| "a date beyond the calendar".to_owned(),
        |time| time.strftime("%Y-%m-%d").to_string(),
    )
}

/// Shakes hands over the stream.
pub(super) async fn look<S>(stream: S, host: &str, alpn: Option<&str>) -> Shown
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(aws_lc_rs::default_provider());
    let recorder = Arc::new(Recorder {
        provider: Arc::clone(&provider),
        chain: Mutex::default(),
    });
    let failed = |error: std::io::Error| Shown {
        error: Some(error),
        ..Shown::default()
    };
    let builder =
        match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
            Ok(builder) => builder,
            Err(error) => return failed(std::io::Error::other(error)),
        };
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&recorder) as _;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn
        .map(|name| name.as_bytes().to_vec())
        .into_iter()
        .collect();
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(error) => return failed(std::io::Error::other(error)),
    };
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let mut shown = Shown::default();
    match connected {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let version = session
                .protocol_version()
                .map(|version| format!("{version:?}"));
            let suite = session
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()));
            let parts: Vec<_> = version.into_iter().chain(suite).collect();
            shown.session = Some(parts.join(" "));
        }
        Err(error) => shown.error = Some(error),
    }
    let chain = recorder
        .chain
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    shown.chain = chain
        .iter()
        .filter_map(|der| Certificate::read(der))
        .collect();
    shown
}

/// Keeps the certificates and trusts them.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        *chain = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| der.to_vec())
            .collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
