//! The broker as a library: listeners in, a future that ends after a graceful shutdown.

use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::connection;
use crate::counters::{Counters, DropReason};
use crate::hub::Hub;
use crate::listener::Listener;

/// How long a listener rests when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A broker. Clones are handles of the same one.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    /// Held by each connection's task: when all are gone, the last connection has ended.
    running: mpsc::Sender<()>,
    ended: Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Broker {
    /// A broker with no sessions and no retained messages.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let counters = Arc::new(Counters::default());
        let hub = Arc::new(Hub::new(config, Arc::clone(&counters)));
        let (running, ended) = mpsc::channel(1);
        Self {
            hub,
            counters,
            running,
            ended: Arc::new(tokio::sync::Mutex::new(ended)),
        }
    }

    /// What this broker counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// How many messages were dropped for `reason` on the way to the session of a client identifier;
    /// `None` if there is no such session.
    #[must_use]
    pub fn client_dropped(&self, client_id: &str, reason: DropReason) -> Option<u64> {
        let client = self.hub.client(client_id)?;
        Some(
            client
                .dropped()
                .map_or(0, |counters| counters.dropped(reason)),
        )
    }

    /// Serves one client on a stream that is open already, in a task of its own.
    ///
    /// `peer` names the other end in the log. Must be called within a tokio runtime.
    pub fn serve<S>(&self, stream: S, peer: impl fmt::Display + Send + Sync + 'static)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Arc::clone(&self.hub);
        let running = self.running.clone();
        tokio::spawn(async move {
            connection::serve(hub, stream, &peer).await;
            drop(running);
        });
    }

    /// Serves clients until `shutdown` resolves, then tells all of them, and returns when every
    /// connection has ended or [`Config::shutdown_timeout`] has passed.
    pub async fn run(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(self.clone(), listener));
        }
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_deadlines().await });
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_sweeps().await });

        shutdown.await;
        tasks.shutdown().await;
        self.hub.close();
        let Self {
            hub,
            running,
            ended,
            ..
        } = self;
        drop(running);
        let mut ended = ended.lock().await;
        if tokio::time::timeout(hub.config.shutdown_timeout, ended.recv())
            .await
            .is_err()
        {
            tracing::warn!("connections did not end in time");
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

/// Serves `listeners` with a broker of its own until `shutdown` resolves. See [`Broker::run`].
pub async fn run(listeners: Vec<Listener>, config: Config, shutdown: impl Future<Output = ()>) {
    Broker::new(config).run(listeners, shutdown).await;
}

async fn accept(broker: Broker, listener: Listener) {
    loop {
        match listener.tcp.accept().await {
            Ok((stream, peer)) => {
                // Without this the kernel holds small packets back, waiting for the peer's acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
                }
                broker.serve(stream, peer);
            }
            Err(error) => {
                tracing::warn!(%listener, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
