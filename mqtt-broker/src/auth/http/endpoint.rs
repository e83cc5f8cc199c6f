//! One URL: its connections, how many requests run at once, and how long each may take.

use core::fmt;
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::auth::http::{HttpError, HttpKey};
use crate::auth::settings::HttpSettings;

/// Bytes of the largest answer that is read, and of the largest head of one.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Connections that are kept while nothing is asked.
const IDLE: usize = 4;

/// How long: services and what is between close them after a minute, or forget them without a word.
const IDLE_TIME: Duration = Duration::from_secs(15);

type Sender = SendRequest<Full<Bytes>>;

/// Connections on which nothing is asked.
#[derive(Default)]
struct Idle {
    /// Since when, the longest first.
    kept: Vec<(Sender, Instant)>,
    /// A task closes those that were kept for long.
    is_watched: bool,
}

impl Idle {
    fn forget_old(&mut self, now: Instant) {
        let is_young = |since: Instant| now.saturating_duration_since(since) < IDLE_TIME;
        self.kept
            .retain(|(sender, since)| !sender.is_closed() && is_young(*since));
    }
}

/// Closes what is kept for too long, until nothing is kept any more.
async fn watch(idle: Weak<Mutex<Idle>>) {
    loop {
        let end = {
            let Some(idle) = idle.upgrade() else { return };
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.forget_old(Instant::now());
            let Some((_, since)) = idle.kept.first() else {
                idle.is_watched = false;
                return;
            };
            *since + IDLE_TIME
        };
        sleep_until(end).await;
    }
}

/// Why a request has no answer that means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot be connected to")]
    Connect,
    #[error("the TLS handshake failed")]
    Tls,
    #[error("no answer in time")]
    TimedOut,
    #[error("the connection was lost, or what came is no HTTP")]
    Broken,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the answer is larger than 64 KiB")]
    TooLarge,
    #[error("the answer cannot be understood")]
    Garbage,
}

impl Failure {
    /// Whether there was nobody to ask: then it is not for what was asked.
    pub(crate) fn is_without_connection(self) -> bool {
        matches!(self, Self::Connect | Self::Tls)
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Where requests go.
pub(crate) struct Endpoint {
    /// Without anything that could be secret.
    shown: String,
    /// Path and query.
    path: Uri,
    host: String,
    port: u16,
    host_header: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
    pub(crate) timeout: Duration,
    running: Semaphore,
    idle: Arc<Mutex<Idle>>,
}

impl Endpoint {
    /// Reads what the settings name beside the URL. Blocks.
    pub(crate) fn new(
        text: &str,
        key: HttpKey,
        settings: &HttpSettings,
    ) -> Result<Self, HttpError> {
        let wrong = |problem: &str| HttpError::new(key, problem);
        let uri: Uri = text
            .parse()
            .map_err(|_| wrong("not a URL, such as \"https://auth.example.org/mqtt\""))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong(
                "not a whole URL, such as \"https://auth.example.org/mqtt\"",
            ));
        };
        if authority.as_str().contains('@') {
            return Err(wrong(
                "no name and password in a URL: say them in `authorization_file`",
            ));
        }
        let usual_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong("not a URL of http or https")),
        };
        let host = authority.host();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let tls = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("not a name that a certificate can be for"))?;
                Some((connector(settings)?, name))
            }
            _ => None,
        };
        Ok(Self {
            shown: format!("{scheme}://{authority}{}", uri.path()),
            path: path.parse().map_err(|_| wrong("not a path of a URL"))?,
            port: authority.port_u16().unwrap_or(usual_port),
            host_header: HeaderValue::from_str(authority.as_str())
                .map_err(|_| wrong("not a host of a URL"))?,
            host,
            tls,
            authorization: authorization(settings)?,
            timeout: settings.timeout.0,
            running: Semaphore::new(settings.requests.clamp(1, Semaphore::MAX_PERMITS)),
            idle: Arc::default(),
        })
    }

    /// A turn, if there is one now.
    pub(crate) fn try_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.running.try_acquire().ok()
    }

    /// A turn, as soon as it comes; none if that takes longer than an answer may.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = timeout(self.timeout, self.running.acquire()).await;
        // Never closed.
        turn.ok()?.ok()
    }

    /// Sends a body by POST and returns what comes back. The caller has a turn.
    pub(crate) async fn post(
        &self,
        _turn: &SemaphorePermit<'_>,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let exchange = timeout(self.timeout, self.exchange(body)).await;
        exchange.unwrap_or(Err(Failure::TimedOut))
    }

    async fn exchange(&self, body: Bytes) -> Result<Reply, Failure> {
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_err() {
                continue;
            }
            match self.send(sender, body.clone()).await {
                // The service may have closed it just before: a question may be asked twice.
                Err(Failure::Broken) => break,
                done => return done,
            }
        }
        let sender = self.connect().await?;
        self.send(sender, body).await
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.forget_old(Instant::now());
        idle.kept.pop().map(|(sender, _)| sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        idle.forget_old(now);
        if idle.kept.len() < IDLE && !sender.is_closed() {
            idle.kept.push((sender, now));
            if !core::mem::replace(&mut idle.is_watched, true) {
                tokio::spawn(watch(Arc::downgrade(&self.idle)));
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|_| Failure::Connect)?;
        // A request is one write; what it costs to send it at once is nothing beside the wait.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                handshake(stream.map_err(|_| Failure::Tls)?).await
            }
        }
    }

    async fn send(&self, mut sender: Sender, body: Bytes) -> Result<Reply, Failure> {
        let mut request = Request::post(self.path.clone())
            .header(HOST, &self.host_header)
            .header(USER_AGENT, "mqtt-broker")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| Failure::Broken)?;
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|_| Failure::Broken)?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Failure::TooLarge,
            // Asked once more it would be read once more.
            false => Failure::Garbage,
        })?;
        self.keep(sender);
        Ok(Reply {
            status: head.status,
            body: body.to_bytes(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http1::Builder::new()
        .max_buf_size(LARGEST_ANSWER)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|_| Failure::Broken)?;
    // It ends with its sender, or when the service closes it; whoever asks hears of an error.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Whom to trust.
fn connector(settings: &HttpSettings) -> Result<TlsConnector, HttpError> {
    let key = HttpKey::Authorities;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::new(key, error))?;
    let config = match &settings.authorities {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let wrong = |problem: &dyn fmt::Display| HttpError::of_file(key, file, problem);
            let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"no certificate in the file"));
            }
            builder.with_root_certificates(roots)
        }
        None => {
            let verifier = Verifier::new(provider).map_err(|error| HttpError::new(key, error))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

/// How the broker shows who it is.
fn authorization(settings: &HttpSettings) -> Result<Option<HeaderValue>, HttpError> {
    let Some(file) = &settings.authorization_file else {
        return Ok(None);
    };
    let key = HttpKey::AuthorizationFile;
    let text = std::fs::read(file).map_err(|error| HttpError::of_file(key, file, error))?;
    let mut value = HeaderValue::from_bytes(text.trim_ascii())
        .map_err(|_| HttpError::of_file(key, file, "not one line, such as \"Bearer SECRET\""))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
