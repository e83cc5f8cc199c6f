//! The broker as a library: listeners in, a future that ends after a graceful shutdown.

use core::fmt;
use core::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::auth::{AuthError, AuthPlan, AuthSettings, Authority};
use crate::config::Config;
use crate::connection::{self, Arrival};
use crate::counters::{Counters, DropReason, RefusalReason};
use crate::doorkeeper::Doorkeeper;
use crate::gate::{Asks, AsksCertificate, Doorway};
use crate::hub::Hub;
use crate::policy::{ListenerOptions, Peer};
use crate::store::{
    Contents, Engine, EngineError, FjallEngine, MemoryStore, Open, Room, Space, Store,
    StoredSession, Synced, WallTime,
};
use crate::transport::{Listener, Opened, Tls, Transport};

/// A broker. Clones are handles of the same one.
#[derive(Clone)]
pub struct Broker {
    pub(crate) hub: Arc<Hub>,
    counters: Arc<Counters>,
    /// One for all listeners: handshakes have so many threads and no more.
    pub(crate) doorkeeper: Arc<Doorkeeper>,
}

/// What a store held when it was opened.
#[derive(Debug)]
pub(crate) struct Found {
    sessions: usize,
    messages: usize,
    retained: usize,
    skipped: u64,
}

/// Why a data directory, or a store in memory, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {source}")]
pub struct OpenError {
    place: String,
    source: EngineError,
}

impl Broker {
    /// A broker with no sessions and no retained messages, which keeps everything in memory.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_store(config, Arc::default(), None)
    }

    /// A broker that keeps sessions, their messages and retained messages in a directory, with what is there.
    /// Blocks while it reads.
    ///
    /// # Errors
    /// The directory cannot be used: another broker uses it, its format is not known to this version, or what
    /// the system says.
    pub fn open(config: Config, directory: &Path) -> Result<Self, OpenError> {
        let started = std::time::Instant::now();
        let place = directory.to_owned();
        let synced = Synced::default();
        let open = move || -> Result<Box<dyn Engine>, EngineError> {
            Ok(Box::new(FjallEngine::open_again(&place, &synced)?))
        };
        let space = Space::new(directory, Room::of(&config));
        let opened = Self::open_engine(config, Box::new(open), space, WallTime::now());
        let (broker, found) = opened.map_err(|source| OpenError {
            place: directory.display().to_string(),
            source,
        })?;
        tracing::info!(
            directory = %directory.display(),
            sessions = found.sessions,
            messages = found.messages,
            retained = found.retained,
            skipped = found.skipped,
            milliseconds = started.elapsed().as_millis(),
            "restored"
        );
        Ok(broker)
    }

    /// The same with a store in the memory of this program, which outlives the broker. What it bounds is counted as
    /// on a disk, but neither [`Config::data_directory_bytes`] nor [`Config::disk_reserve_bytes`] means anything.
    ///
    /// # Errors
    /// Another broker uses the store.
    pub fn open_in_memory(config: Config, store: &MemoryStore) -> Result<Self, OpenError> {
        let (store, now) = (store.clone(), store.wall_clock());
        let open = move || -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(store.open()?)) };
        let opened = Self::open_engine(config, Box::new(open), Space::unlimited(), now);
        let (broker, _) = opened.map_err(|source| OpenError {
            place: "memory".to_owned(),
            source,
        })?;
        Ok(broker)
    }

    /// The same with any engine, at a time of the wall clock.
    pub(crate) fn open_engine(
        config: Config,
        open: Open,
        space: Space,
        now: WallTime,
    ) -> Result<(Self, Found), EngineError> {
        let counters = Arc::new(Counters::default());
        let (store, contents) = Store::open(
            open,
            space,
            Arc::clone(&counters),
            config.durability,
            now,
            config.offline_window_bytes(),
        )?;
        let found = Found {
            sessions: contents.sessions.len(),
            messages: contents.sessions.iter().map(StoredSession::queued).sum(),
            retained: contents.retained.len(),
            skipped: contents.skipped,
        };
        let broker = Self::restored(config, counters, store, contents);
        Ok((broker, found))
    }

    /// The broker of a store that was just opened.
    pub(crate) fn restored(
        config: Config,
        counters: Arc<Counters>,
        store: Store,
        contents: Contents,
    ) -> Self {
        let broker = Self::with_store(config, counters, Some(store));
        broker.hub.restore(contents);
        broker
    }

    fn with_store(config: Config, counters: Arc<Counters>, store: Option<Store>) -> Self {
        let hub = Arc::new(Hub::new(config, Arc::clone(&counters), store));
        Self {
            hub,
            counters,
            doorkeeper: Arc::default(),
        }
    }

    /// Reads the files of authentication and permissions anew and applies what they say, to clients that are
    /// connected as well: who would not be let in any more is disconnected, and what is no longer allowed is
    /// denied from now on. Blocks while it reads.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it says nothing: then everything stays as it was.
    pub fn reload_auth(&self, settings: &AuthSettings) -> Result<(), AuthError> {
        self.hub.reload_auth(&settings.into())
    }

    /// The same with listeners that have settings of their own.
    ///
    /// # Errors
    /// As [`Broker::reload_auth`].
    pub fn reload_auth_plan(&self, plan: &AuthPlan) -> Result<(), AuthError> {
        self.hub.reload_auth(plan)
    }

    /// The same with what was read already, which does not fail.
    pub fn replace_auth(&self, authority: &Authority) {
        self.hub.replace_auth(authority);
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

    /// Accepts connections of one more listener, until it or the broker is closed. Must be called within a
    /// tokio runtime.
    pub fn listen(&self, listener: Listener) {
        tokio::spawn(self.doorkeeper.accept(self.clone(), listener));
    }

    /// Limits that hold for connections from now on; those that are there keep what they were granted, but for those
    /// whom new [`Config::bans`] name, which end. What is kept of messages for all of them (outboxes, queues, retained
    /// messages, the data directory) is bounded by them for what comes from now on; what is there stays.
    /// [`Config::stored_window_bytes`] and [`Config::durability`] are as when the broker started, and permissions are
    /// those of [`Broker::reload_auth`].
    pub fn reconfigure(&self, config: Config) {
        self.hub.reconfigure(config);
        self.hub.pressure.changed.notify_one();
    }

    /// Looks at everybody who is connected again, after [`ListenerControl::replace`]: who has not shown who it is, or
    /// no certificate, where its listener asks that now, is disconnected.
    ///
    /// [`ListenerControl::replace`]: crate::ListenerControl::replace
    pub fn look_again(&self) {
        self.hub.look_again();
    }

    /// Resolves when the broker closes.
    pub(crate) async fn closed(&self) {
        self.hub.closed().await;
    }

    /// Serves one client on a stream that is open already, in a task of its own.
    ///
    /// `peer` names the other end in the log. Must be called within a tokio runtime.
    pub fn serve<S>(&self, stream: S, peer: impl fmt::Display)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_with(stream, Peer::named(&peer.to_string()), Arc::default());
    }

    /// The same for a peer of which more is known, as through a listener with these options.
    pub fn serve_with<S>(&self, stream: S, peer: Peer, options: Arc<ListenerOptions>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let doorway = own_doorway(&options, AsksCertificate::May);
        let arrival = self.arrival(peer, options, doorway);
        self.serve_arrival(&Handle::current(), stream, arrival);
    }

    /// The same for a stream that has to go through a transport first.
    pub fn serve_through<S>(
        &self,
        stream: S,
        peer: Peer,
        options: Arc<ListenerOptions>,
        transport: Transport,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let tls = transport.tls.as_ref();
        let asked = tls.map_or(AsksCertificate::May, Tls::asks_certificate);
        let doorway = own_doorway(&options, asked);
        let arrival = self.arrival(peer, options, doorway);
        let runtime = Handle::current();
        tokio::spawn(
            self.clone()
                .serve_opened(runtime, stream, arrival, transport),
        );
    }

    /// A client that has just come.
    pub(crate) fn arrival(
        &self,
        peer: Peer,
        options: Arc<ListenerOptions>,
        doorway: Arc<Doorway>,
    ) -> Arrival {
        let hub = &self.hub;
        let (entrant, _) = hub.gate.enter(hub.limits.load().max_entering);
        Arrival {
            peer,
            is_encrypted: false,
            options,
            doorway,
            entrant,
            deadline: Instant::now() + hub.limits.load().connect_timeout,
            is_counted: false,
            too_fast: false,
        }
    }

    /// Whether connections from there are closed without an answer; counts and logs it.
    pub(crate) fn bans(&self, peer: &Peer) -> bool {
        let hub = &self.hub;
        let bans = hub.gate.bans.bans(peer.ip(), &hub.limits.load().bans);
        if bans {
            let reason = RefusalReason::Banned;
            self.counters.count_refusal(reason);
            tracing::info!(%peer, %reason, "refused");
        }
        bans
    }

    /// Serves a client whose stream carries packets, in a task of its own of this runtime.
    pub(crate) fn serve_arrival<S>(&self, runtime: &Handle, stream: S, mut arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Arc::clone(&self.hub);
        if self.bans(&arrival.peer) {
            return;
        }
        let presence = hub.presence.enter();
        if !arrival.is_counted {
            arrival.too_fast |= hub.gate.is_too_fast(arrival.peer.ip(), &hub.limits.load());
        }
        let serving = connection::serve(hub, stream, arrival);
        runtime.spawn(async move {
            serving.await;
            drop(presence);
        });
    }

    /// Lets a client go through a transport, and serves it on the other side, in a task of `runtime`.
    pub(crate) async fn serve_opened<S>(
        self,
        runtime: Handle,
        stream: S,
        mut arrival: Arrival,
        transport: Transport,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Arrival {
            peer,
            entrant,
            deadline,
            is_counted,
            ..
        } = &mut arrival;
        let origin = peer.clone();
        // A handshake of TLS costs too much for who is refused afterwards.
        let hub = &self.hub;
        let admits = |peer: &Peer| {
            let limits = hub.limits.load();
            if hub.gate.bans.bans(peer.ip(), &limits.bans) {
                return Err(RefusalReason::Banned);
            }
            *is_counted = true;
            match hub.gate.is_too_fast(peer.ip(), &limits) {
                true => Err(RefusalReason::TooFast),
                false => Ok(()),
            }
        };
        let opened = tokio::select! {
            opened = timeout_at(*deadline, transport.open(stream, peer, admits)) => match opened {
                Ok(Ok(opened)) => Ok(opened),
                Ok(Err(error)) => Err((error.reason(), error.to_string())),
                Err(_) => Err(RefusalReason::TimedOut.in_words()),
            },
            () = entrant.pushed_out() => Err(RefusalReason::PushedOut.in_words()),
            () = self.hub.closed() => return,
        };
        arrival.is_encrypted = transport.tls.is_some();
        match opened {
            Ok(Opened::Plain(stream)) => self.serve_arrival(&runtime, stream, arrival),
            Ok(Opened::Wrapped(stream)) => self.serve_arrival(&runtime, stream, arrival),
            Err((reason, detail)) => {
                self.counters.count_refusal(reason);
                if matches!(reason, RefusalReason::Tls | RefusalReason::WebSocket) {
                    self.hub.note_failure(&arrival.peer);
                }
                tracing::info!(peer = %origin, reason = %detail, "refused");
            }
        }
    }

    /// Serves clients until `shutdown` resolves, then tells all of them, and returns when every
    /// connection has ended or [`Config::shutdown_timeout`] has passed.
    pub async fn run(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(self.doorkeeper.accept(self.clone(), listener));
        }
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_deadlines().await });
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_sweeps().await });
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_endings().await });
        let hub = Arc::clone(&self.hub);
        tasks.spawn(async move { hub.run_memory().await });

        shutdown.await;
        tasks.shutdown().await;
        self.doorkeeper.close();
        self.hub.close();
        let hub = self.hub;
        let ended = tokio::time::timeout(hub.limits.load().shutdown_timeout, hub.presence.empty());
        if ended.await.is_err() {
            tracing::warn!("connections did not end in time");
        }
        // What was submitted last is on the disk when this returns.
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(store) = &hub.store {
                store.close();
            }
        });
        if closed.await.is_err() {
            tracing::error!("the store was not closed");
        }
    }
}

/// Of a stream that came through no listener.
fn own_doorway(options: &ListenerOptions, certificate: AsksCertificate) -> Arc<Doorway> {
    Arc::new(Doorway::new(Asks {
        who: !options.allow_anonymous,
        certificate,
        encryption: false,
        realm: options.realm.clone(),
    }))
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
