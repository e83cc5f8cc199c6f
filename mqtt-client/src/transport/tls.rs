//! TLS: whom to trust, who this client is, and the handshake.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, KeyLog, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::Stream;
use crate::Error;

/// TLS to the server. By default it trusts what the operating system trusts, checks the server's name,
/// and speaks TLS 1.2 and 1.3. Every method takes and returns the settings.
///
/// ```
/// use mqtt_client::{Options, Tls};
///
/// # fn connect(ca_file: &[u8]) -> Result<(), mqtt_client::Error> {
/// let options = Options::new("broker.example", 8883).tls(Tls::new().trust_pem(ca_file)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    roots: Vec<CertificateDer<'static>>,
    /// Whether to trust what the system trusts; `None`: if there are no roots.
    trust_system: Option<bool>,
    identity: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
    versions: Vec<&'static SupportedProtocolVersion>,
    any_name: bool,
    key_log: Option<Arc<dyn KeyLog>>,
    given: Option<Arc<ClientConfig>>,
    /// Made once, so that connections resume each other's TLS sessions.
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

fn invalid(what: &'static str, why: impl fmt::Display) -> Error {
    Error::Invalid {
        what,
        why: why.to_string(),
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            trust_system: None,
            identity: None,
            alpn: Vec::new(),
            server_name: None,
            versions: vec![&TLS13, &TLS12],
            any_name: false,
            key_log: None,
            given: None,
            config: Arc::default(),
        }
    }
}

impl Tls {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Settings of rustls itself; the other methods but [`server_name`](Self::server_name) have no
    /// effect then.
    pub fn with_config(config: Arc<ClientConfig>) -> Self {
        Self {
            given: Some(config),
            ..Self::default()
        }
    }

    fn changed(mut self) -> Self {
        self.config = Arc::default();
        self
    }

    /// Trusts the certificates of a PEM text; may be called several times. What the operating system
    /// trusts is no longer trusted, unless [`trust_system`](Self::trust_system) says so.
    ///
    /// # Errors
    ///
    /// If there is no certificate in it, or one that cannot be read.
    pub fn trust_pem(mut self, pem: &[u8]) -> Result<Self, Error> {
        let found = certificates(pem, "certificate of an authority")?;
        self.roots.extend(found);
        Ok(self.changed())
    }

    /// Whether to trust what the operating system trusts. Default: if no other certificates are.
    #[must_use]
    pub fn trust_system(mut self, trust: bool) -> Self {
        self.trust_system = Some(trust);
        self.changed()
    }

    /// The certificate of this client, with those that lead to its authority, and its private key, both
    /// as PEM.
    ///
    /// # Errors
    ///
    /// If either cannot be read, or the key is encrypted. Whether they belong together is seen at the
    /// first connection.
    pub fn identity_pem(mut self, certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = certificates(certificate, "certificate of the client")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| invalid("private key of the client", error))?;
        self.identity = Some((chain, Arc::new(key)));
        Ok(self.changed())
    }

    /// Adds a protocol to offer (ALPN), such as `mqtt`.
    #[must_use]
    pub fn alpn(mut self, protocol: impl Into<Vec<u8>>) -> Self {
        self.alpn.push(protocol.into());
        self.changed()
    }

    /// The name that the server's certificate must have. Default: the host that is connected to.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self.changed()
    }

    /// Speaks TLS 1.3 only.
    #[must_use]
    pub fn only_tls13(mut self) -> Self {
        self.versions = vec![&TLS13];
        self.changed()
    }

    /// Speaks TLS 1.2 only.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        self.versions = vec![&TLS12];
        self.changed()
    }

    /// Gives the secrets of each connection to `log`: whoever has them can read what is sent. Default:
    /// nobody gets them.
    #[must_use]
    pub fn key_log(mut self, log: Arc<dyn KeyLog>) -> Self {
        self.key_log = Some(log);
        self.changed()
    }

    /// Takes a trusted certificate of any name: whoever has one can then pose as the server. On systems
    /// other than Linux it needs [`trust_pem`](Self::trust_pem).
    #[must_use]
    pub fn danger_accept_any_name(mut self) -> Self {
        self.any_name = true;
        self.changed()
    }

    /// Checks the settings, which a connection does as well.
    ///
    /// # Errors
    ///
    /// Key and certificate do not belong together, a certificate cannot be trusted as an authority's, or
    /// the certificates of the operating system cannot be read.
    pub fn check(&self) -> Result<(), Error> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.given.as_ref().or(self.config.get()) {
            return Ok(Arc::clone(config));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(|error| invalid("TLS versions", error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| invalid("certificate of the client", error))?,
        };
        config.alpn_protocols.clone_from(&self.alpn);
        if let Some(log) = &self.key_log {
            config.key_log = Arc::clone(log);
        }
        let config = Arc::new(config);
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let trust_system = self.trust_system.unwrap_or(self.roots.is_empty());
        if trust_system {
            // Elsewhere the system itself verifies, in an order of its own.
            if self.any_name && cfg!(not(target_os = "linux")) {
                return Err(Error::Unsupported(
                    "to accept any name together with the certificates of the system",
                ));
            }
            let roots = self.roots.iter().cloned();
            let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(provider))
                .map_err(|error| invalid("certificates of the system", error))?;
            return Ok(match self.any_name {
                true => Arc::new(AnyName(Arc::new(verifier))),
                false => Arc::new(verifier),
            });
        }
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store
                .add(root.clone())
                .map_err(|error| invalid("certificate of an authority", error))?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .build()
                .map_err(|error| invalid("certificate of an authority", error))?;
        Ok(match self.any_name {
            true => Arc::new(AnyName(verifier)),
            false => verifier,
        })
    }

    /// Shakes hands with the server behind a stream.
    pub(crate) async fn connect<S: Stream>(
        &self,
        stream: S,
        host: &str,
    ) -> Result<TlsStream<S>, Error> {
        let config = self.config()?;
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| invalid("name of the server", error))?;
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|error| {
            // What is wrong with a certificate or the handshake is told by rustls.
            match error.get_ref().is_some() {
                true => Error::Tls(Arc::new(error)),
                false => error.into(),
            }
        })
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| invalid(what, error))?;
    if found.is_empty() {
        return Err(invalid(what, "there is none in the PEM text"));
    }
    Ok(found)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots.len())
            .field("has_identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Checks everything but the name.
#[derive(Debug)]
struct AnyName(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        use tokio_rustls::rustls::Error::InvalidCertificate;
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last, when the rest is in order.
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_certificates_are_refused() {
        assert!(Tls::new().trust_pem(b"").is_err());
        assert!(
            Tls::new()
                .trust_pem(b"-----BEGIN CERTIFICATE-----\n!\n")
                .is_err()
        );
        assert!(Tls::new().identity_pem(b"", b"").is_err());
    }
}
