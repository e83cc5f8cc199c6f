//! A service for the broker to ask by HTTP: it answers as a test wants, and remembers what it was asked.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use mqtt_broker::auth::{AuthPlan, AuthSettings, Authority, HttpSettings};
use mqtt_broker::settings::Span;
use mqtt_broker::{Broker, Config};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::harness::broker_with;

/// What the service does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status, and a body.
    Http(u16, String),
    /// Bytes as they are, and the end of the connection.
    Raw(Vec<u8>),
    /// It answers when the test lets it go on, or never.
    Wait,
}

impl Answer {
    pub(crate) fn json(body: &Value) -> Self {
        Self::Http(200, body.to_string())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Http(status, String::new())
    }
}

type Decide = Box<dyn Fn(&Value) -> Answer + Send>;

/// What a service knows.
struct State {
    decide: Mutex<Decide>,
    asked: Mutex<Vec<Value>>,
    /// Heads of the requests.
    heads: Mutex<Vec<String>>,
    connections: Mutex<usize>,
    /// Those of them that have not ended.
    open: Mutex<usize>,
    ended: Notify,
    came: Notify,
    go_on: Notify,
}

/// A service on a free port.
pub(crate) struct Service {
    pub(crate) url: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    pub(crate) async fn new(decide: impl Fn(&Value) -> Answer + Send + 'static) -> Self {
        Self::behind(None, decide).await
    }

    /// The same, behind TLS.
    pub(crate) async fn behind(
        tls: Option<TlsAcceptor>,
        decide: impl Fn(&Value) -> Answer + Send + 'static,
    ) -> Self {
        Self::start(tls, decide)
    }

    /// The same for who cannot wait.
    pub(crate) fn start(
        tls: Option<TlsAcceptor>,
        decide: impl Fn(&Value) -> Answer + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr().unwrap();
        let url = format!("{scheme}://{address}/asked?for=test");
        let state = Arc::new(State {
            decide: Mutex::new(Box::new(decide)),
            asked: Mutex::default(),
            heads: Mutex::default(),
            connections: Mutex::default(),
            open: Mutex::default(),
            ended: Notify::new(),
            came: Notify::new(),
            go_on: Notify::new(),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *serving.connections.lock().unwrap() += 1;
                *serving.open.lock().unwrap() += 1;
                let (tls, serving) = (tls.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let state = Arc::clone(&serving);
                    match tls {
                        None => serve(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                    *serving.open.lock().unwrap() -= 1;
                    serving.ended.notify_one();
                });
            }
        });
        Self { url, state, task }
    }

    /// Answers otherwise from now on.
    pub(crate) fn now(&self, decide: impl Fn(&Value) -> Answer + Send + 'static) {
        *self.state.decide.lock().unwrap() = Box::new(decide);
    }

    /// What it was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Value> {
        core::mem::take(&mut *self.state.asked.lock().unwrap())
    }

    /// The head of the last request.
    pub(crate) fn head(&self) -> String {
        let heads = self.state.heads.lock().unwrap();
        heads.last().cloned().unwrap_or_default()
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Resolves when no connection to it is open any more.
    pub(crate) async fn left_alone(&self) {
        while *self.state.open.lock().unwrap() > 0 {
            self.state.ended.notified().await;
        }
    }

    /// Resolves when it was asked so often since the last time; returns what.
    pub(crate) async fn asked_so_often(&self, count: usize) -> Vec<Value> {
        let mut asked = self.asked();
        while asked.len() < count {
            self.came().await;
            asked.append(&mut self.asked());
        }
        asked
    }

    /// Resolves when a request has come.
    pub(crate) async fn came(&self) {
        self.state.came.notified().await;
    }

    /// Lets one request go on that waits, with what is decided now.
    pub(crate) fn go_on(&self) {
        self.state.go_on.notify_one();
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// Settings that name it; no test waits for its time unless it says so.
    pub(crate) fn settings(&self, change: impl FnOnce(&mut HttpSettings)) -> AuthSettings {
        let mut http = HttpSettings::default();
        http.url = Some(self.url.clone());
        http.timeout = Span(Duration::from_secs(1_000));
        change(&mut http);
        let mut settings = AuthSettings::default();
        settings.http = Some(http);
        settings
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whoever comes is let in, and the service is asked about topics.
pub(crate) fn about_topics(service: &Service) -> AuthSettings {
    let mut settings = service.settings(|http| http.topic_url = http.url.take());
    settings.allow_anonymous = Some(true);
    settings
}

/// A broker with these settings.
pub(crate) fn asking(settings: &AuthSettings) -> Broker {
    let mut config = Config::default();
    config.auth = Authority::load_plan(&AuthPlan::new(settings.clone())).unwrap();
    broker_with(config)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        let (_, len) = lower.split_once("content-length: ").unwrap();
        let len: usize = len.split_once('\r').unwrap().0.parse().unwrap();
        let mut body = vec![0; len];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let asked: Value = serde_json::from_slice(&body).unwrap();
        state.asked.lock().unwrap().push(asked.clone());
        state.heads.lock().unwrap().push(head);
        let decide = || (*state.decide.lock().unwrap())(&asked);
        let mut answer = decide();
        state.came.notify_one();
        if matches!(answer, Answer::Wait) {
            state.go_on.notified().await;
            answer = decide();
        }
        let (bytes, ends) = match answer {
            Answer::Http(status, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
                // A status without a body has no length either.
                let head = if status == 204 {
                    "HTTP/1.1 204 X\r\n\r\n".to_owned()
                } else {
                    head
                };
                ((head + &body).into_bytes(), false)
            }
            Answer::Raw(bytes) => (bytes, true),
            Answer::Wait => return,
        };
        if stream.write_all(&bytes).await.is_err() || ends {
            return;
        }
    }
}
