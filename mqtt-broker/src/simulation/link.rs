//! The network: a connection whose bytes take their time, which can be cut, or left half open so that bytes vanish and
//! nobody is told.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::random::Random;

/// Bytes on their way in each direction before the sender waits.
const PIPE: usize = 4_096;
/// Bytes that travel together.
const PIECE: usize = 700;

/// What happens to a connection from outside.
#[derive(Debug, Default)]
pub(super) struct Link {
    is_cut: AtomicBool,
    is_half_open: AtomicBool,
    cut: Notify,
    slow: AtomicBool,
    /// The client has left it.
    is_left: AtomicBool,
}

impl Link {
    /// Both ends see the end, and what was on its way is lost.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.cut.notify_waiters();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// From now on nothing arrives, and neither end is told.
    pub(super) fn leave_half_open(&self) {
        self.is_half_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_half_open(&self) -> bool {
        self.is_half_open.load(Ordering::Relaxed)
    }

    /// The client leaves: nothing happens to it any more.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// Cut, or left by the client.
    pub(super) fn is_over(&self) -> bool {
        self.is_cut() || self.is_left.load(Ordering::Relaxed)
    }

    /// From now on bytes take long.
    pub(super) fn slow_down(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    async fn ends(&self) {
        while !self.is_cut() {
            self.cut.notified().await;
        }
    }

    async fn carry(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut random: Random,
    ) {
        let mut piece = [0; PIECE];
        loop {
            let length = 1 + random.below(PIECE);
            let read = from.read(&mut piece[..length]).await.unwrap_or(0);
            let delay = if self.is_slow() { 50..1_500 } else { 0..20 };
            sleep(random.millis(delay)).await;
            if self.is_half_open() {
                if read == 0 {
                    // Nobody hears of the end.
                    return core::future::pending().await;
                }
                continue;
            }
            if read == 0 || to.write_all(&piece[..read]).await.is_err() {
                // A failure only where the other end is gone.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}

/// The two ends of a new connection.
pub(super) fn connect(random: &mut Random) -> (DuplexStream, DuplexStream, Arc<Link>) {
    let (client, near) = duplex(PIPE);
    let (broker, far) = duplex(PIPE);
    let link = Arc::new(Link::default());
    let (there, back) = (random.fork(), random.fork());
    let carried = Arc::clone(&link);
    tokio::spawn(async move {
        let (near_reads, near_writes) = split(near);
        let (far_reads, far_writes) = split(far);
        let both = async {
            tokio::join!(
                carried.carry(near_reads, far_writes, there),
                carried.carry(far_reads, near_writes, back),
            );
        };
        tokio::select! {
            biased;
            () = carried.ends() => {}
            () = both => {}
        }
    });
    (client, broker, link)
}
