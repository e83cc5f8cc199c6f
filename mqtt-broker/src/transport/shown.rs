//! Certificates of clients that are connected: looked at again when those who decide about them change.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use crate::client::{Client, Kick};

/// Certificates below which nobody looks for those whose connections have ended.
const FEW: usize = 64;

pub(super) type Verifier = Arc<dyn ClientCertVerifier>;

/// What a client has shown of itself: its certificate, and those between it and its root.
pub(crate) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    holder: Mutex<Holder>,
}

#[derive(Debug, Default)]
struct Holder {
    /// Who is connected by it.
    client: Option<Arc<Client>>,
    /// It is worth nothing any more.
    is_revoked: bool,
}

impl Shown {
    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This client is connected by it.
    pub(crate) fn enter(&self, client: &Arc<Client>) {
        let mut holder = self.holder();
        holder.client = Some(Arc::clone(client));
        if holder.is_revoked {
            client.kick(Kick::NoLongerAdmitted);
        }
    }

    /// The connection has ended, and the session may be somebody else's.
    pub(crate) fn leave(&self) {
        self.holder().client = None;
    }

    fn check(&self, verifier: &Verifier) {
        let Some((first, between)) = self.chain.split_first() else {
            return;
        };
        let verified = verifier.verify_client_cert(first, between, UnixTime::now());
        if verified.is_ok() {
            return;
        }
        let mut holder = self.holder();
        holder.is_revoked = true;
        if let Some(client) = &holder.client {
            client.kick(Kick::NoLongerAdmitted);
        }
    }
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Shown {}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

/// The certificates of those who are connected through a listener, and who decides about them now.
pub(super) struct AllShown(Mutex<Inner>);

struct Inner {
    verifier: Verifier,
    shown: Vec<Weak<Shown>>,
    /// So many are there before those are looked for whose connections have ended.
    enough: usize,
}

impl AllShown {
    pub(super) fn new(verifier: Verifier) -> Self {
        Self(Mutex::new(Inner {
            verifier,
            shown: Vec::new(),
            enough: FEW,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what a client has shown to whom decided about it when its handshake began.
    pub(super) fn add(&self, chain: Vec<CertificateDer<'static>>, by: &Verifier) -> Arc<Shown> {
        let shown = Arc::new(Shown {
            chain,
            holder: Mutex::default(),
        });
        let mut inner = self.inner();
        if inner.shown.len() >= inner.enough {
            inner.shown.retain(|one| one.strong_count() > 0);
            inner.enough = FEW.max(2 * inner.shown.len());
        }
        inner.shown.push(Arc::downgrade(&shown));
        let now = Arc::clone(&inner.verifier);
        drop(inner);
        if !Arc::ptr_eq(&now, by) {
            shown.check(&now);
        }
        shown
    }

    /// Somebody else decides from now on, also about those who are connected: those it does not let in end. In a thread
    /// of its own, since each takes as long as a part of a handshake.
    pub(super) fn decide(&self, verifier: &Verifier) {
        let shown = {
            let mut inner = self.inner();
            inner.verifier = Arc::clone(verifier);
            inner.shown.clone()
        };
        if shown.is_empty() {
            return;
        }
        let verifier = Arc::clone(verifier);
        let all = Arc::new(shown);
        let check = {
            let all = Arc::clone(&all);
            let verifier = Arc::clone(&verifier);
            move || check_all(&all, &verifier)
        };
        let thread = thread::Builder::new().name("certificates".to_owned());
        if thread.spawn(check).is_err() {
            check_all(&all, &verifier);
        }
    }
}

fn check_all(all: &[Weak<Shown>], verifier: &Verifier) {
    for shown in all.iter().filter_map(Weak::upgrade) {
        shown.check(verifier);
    }
}
