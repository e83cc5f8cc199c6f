//! One client's connection, from the first byte to the release of its session.

mod driver;
mod durable;
mod end;
mod handshake;
mod input;
mod output;
mod subscribe;

use core::future::poll_fn;
use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::unconstrained;

use crate::connection::driver::Driver;
use crate::connection::handshake::{Handshake, Refusal};
use crate::hub::Hub;
use crate::policy::{ListenerOptions, Peer};
use crate::shown::Shown;

/// How long, and for how many bytes, a closed connection is read so that the peer sees our last packet
/// instead of a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// A connected stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves one client until its connection ends.
pub(crate) async fn serve<S: Stream>(
    hub: Arc<Hub>,
    mut stream: S,
    peer: &Peer,
    options: Arc<ListenerOptions>,
) {
    // Boxed, so that its buffers and states are gone while the connection lives.
    let handshake: Pin<Box<dyn Future<Output = Result<Handshake, Refusal>> + Send + '_>> =
        Box::pin(handshake::receive_connect(&hub, &options, &mut stream));
    let handshake = match handshake.await {
        Ok(handshake) => handshake,
        Err(refusal) => {
            tracing::info!(%peer, client_id = %Shown(refusal.client_id()), reason = %refusal, "refused");
            if refusal.answer(&mut stream).await {
                linger(&mut stream).await;
            }
            return;
        }
    };
    let mut driver = Driver::attach(hub, options, handshake).await;
    tracing::info!(
        %peer,
        client_id = %Shown(driver.client_id()),
        version = driver.version().level(),
        session_present = driver.session_present(),
        "connected"
    );
    let end = poll_fn(|cx| driver.poll(cx, &mut stream)).await;
    let (end, said) = unconstrained(driver.part(&mut stream, end)).await;
    tracing::info!(%peer, client_id = %Shown(driver.client_id()), reason = %end, "disconnected");
    driver.release(&end);
    drop(driver);
    if said {
        linger(&mut stream).await;
    }
}

/// Closes our half and reads what is still on its way, within bounds.
async fn linger<S: Stream>(stream: &mut S) {
    let drain = async {
        // The peer may have gone already: nobody is left to be told.
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}
