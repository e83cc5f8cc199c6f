//! One client's connection, from the first byte to the release of its session.

mod asking;
mod bans;
mod driver;
mod durable;
mod end;
mod enhanced;
mod handshake;
mod input;
mod login;
mod output;
mod resuming;
mod subscribe;
mod throttle;

use core::future::poll_fn;
use core::time::Duration;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};

use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::connection::handshake::Refusal;
use crate::gate::{Doorway, Entrant};
use crate::hub::Hub;
use crate::policy::{ListenerOptions, Peer};
use crate::shown::Shown;
use crate::transport::Stream;

/// How long, and for how many bytes, a closed connection is read so that the peer sees our last packet
/// instead of a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// A client on its way in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    /// It came through TLS.
    pub(crate) is_encrypted: bool,
    pub(crate) options: Arc<ListenerOptions>,
    /// What it has in common with others who come through the same listener.
    pub(crate) doorway: Arc<Doorway>,
    pub(crate) entrant: Entrant,
    /// When CONNECT must be there.
    pub(crate) deadline: Instant,
    /// The rate of its address was looked at already.
    pub(crate) is_counted: bool,
    /// The address connects faster than it may.
    pub(crate) too_fast: bool,
}

/// A client that got in.
struct Served<S> {
    driver: Driver,
    stream: S,
}

/// Serves one client until its connection ends.
///
/// What a connection needs only at its begin and at its end is in boxes of its own: while it lasts, its task
/// takes little more than what is in [`Driver`].
pub(crate) fn serve<S: Stream>(
    hub: Arc<Hub>,
    stream: S,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send {
    let begun = Box::pin(begin(hub, stream, arrival));
    async move {
        let Some(mut served) = begun.await else {
            return;
        };
        let end = poll_fn(|cx| {
            let Served { driver, stream, .. } = &mut *served;
            driver.poll(cx, stream)
        });
        let end = end.await;
        Box::pin(conclude(served, end)).await;
    }
}

/// Hears CONNECT and lets the client in, or says why not.
async fn begin<S: Stream>(
    hub: Arc<Hub>,
    mut stream: S,
    arrival: Arrival,
) -> Option<Box<Served<S>>> {
    let outcome = handshake::receive_connect(&hub, &arrival, &mut stream).await;
    let Arrival {
        peer,
        options,
        entrant,
        ..
    } = arrival;
    let attached = match outcome {
        Ok(handshake) => {
            let hub = Arc::clone(&hub);
            Driver::attach(hub, options, handshake, &entrant, &mut stream).await
        }
        Err(refusal) => Err(refusal),
    };
    match attached {
        Ok(driver) => {
            if let Some(shown) = &driver.peer().shown {
                shown.enter(&driver.client);
            }
            tracing::info!(
                %peer,
                client_id = %Shown(driver.client_id()),
                user = driver.user().map(|user| Shown(&user).to_string()),
                mount_point = driver.mount(),
                version = driver.version().level(),
                session_present = driver.session_present(),
                "connected"
            );
            Some(Box::new(Served { driver, stream }))
        }
        Err(refusal) => {
            if let Some(reason) = refusal.counted_as() {
                hub.counters.count_refusal(reason);
            }
            if refusal.is_failure() {
                hub.note_failure(&peer);
            }
            tracing::info!(%peer, client_id = %Shown(refusal.client_id()), reason = %refusal, "refused");
            tokio::select! {
                biased;
                () = say_refusal(&refusal, &mut stream) => {}
                () = entrant.pushed_out() => {}
            }
            None
        }
    }
}

/// Says farewell, and gives the session back.
async fn conclude<S: Stream>(served: Box<Served<S>>, end: End) {
    let Served {
        mut driver,
        mut stream,
    } = *served;
    let (end, said) = unconstrained(driver.part(&mut stream, end)).await;
    tracing::info!(
        peer = %driver.peer(),
        client_id = %Shown(driver.client_id()),
        reason = %end,
        "disconnected"
    );
    if let Some(reason) = end.counted_as() {
        driver.hub.counters.count_end(reason);
    }
    if let Some(shown) = &driver.peer().shown {
        shown.leave();
    }
    driver.release(&end);
    drop(driver);
    if said {
        linger(&mut stream).await;
    }
}

/// Answers a client that does not get in, as long as it takes no longer than a farewell.
async fn say_refusal<S: Stream>(refusal: &Refusal, stream: &mut S) {
    if let Ok(true) = timeout(LINGER, refusal.answer(stream)).await {
        linger(stream).await;
    }
}

/// Closes our half and reads what is still on its way, within bounds.
async fn linger<S: Stream>(stream: &mut S) {
    let drain = async {
        // The peer may have gone already: nobody is left to be told.
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    };
    let _ = timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// The allocator has blocks of 768 and of 896 bytes: what an idle connection takes is one of them.
    #[test]
    fn a_connection_takes_no_more_than_its_block() {
        let size = size_of::<Served<TcpStream>>();
        assert!(size <= 768, "{size}");
    }

    /// What a connection takes on its way in, which is moved once.
    #[test]
    fn a_connection_on_its_way_in_takes_no_more_than_a_page() {
        fn size<F>(_: impl FnOnce(Arc<Hub>, TcpStream, Arrival) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(begin::<TcpStream>);
        assert!(size <= 4_096, "{size}");
    }
}
