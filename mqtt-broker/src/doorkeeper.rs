//! Accepts connections, and keeps the work of TLS handshakes away from those who are in already.

use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::policy::Peer;
use crate::server::Broker;
use crate::transport::{Listener, Socket, accept_tcp, unix_peer};

/// How long a listener rests when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for a broker.
///
/// A TLS handshake costs as much as thousands of messages. Those of many clients at once would stand in the
/// same queues as the traffic of others; on threads of their own they get half of the processors at most.
#[derive(Debug, Default)]
pub(crate) struct Doorkeeper {
    handshakes: Arc<Handshakes>,
}

/// The threads of handshakes, made when the first one comes.
#[derive(Debug, Default)]
struct Handshakes(Mutex<Option<Runtime>>);

impl Handshakes {
    fn runtime(&self) -> io::Result<Handle> {
        let mut runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let processors = available_parallelism().map_or(1, usize::from);
        let made = Builder::new_multi_thread()
            .worker_threads((processors / 2).max(1))
            .thread_name("handshakes")
            .enable_time()
            .build()?;
        Ok(runtime.insert(made).handle().clone())
    }
}

impl Handshakes {
    /// Ends those that are under way. A runtime must not be waited for within another.
    fn end(&self) {
        let mut runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.end();
    }
}

impl Doorkeeper {
    /// Ends the handshakes that are under way.
    pub(crate) fn close(&self) {
        self.handshakes.end();
    }

    /// Accepts connections until the listener or the broker is closed.
    pub(crate) fn accept(
        &self,
        broker: Broker,
        listener: Listener,
    ) -> impl Future<Output = ()> + Send + 'static {
        let handshakes = Arc::clone(&self.handshakes);
        async move {
            loop {
                let accepted = tokio::select! {
                    accepted = accept_one(&broker, &listener, &handshakes) => accepted,
                    () = listener.closed.notified() => return,
                    () = broker.closed() => return,
                };
                if let Err(error) = accepted {
                    tracing::warn!(%listener, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept_one(
    broker: &Broker,
    listener: &Listener,
    handshakes: &Handshakes,
) -> io::Result<()> {
    match &*listener.socket {
        Socket::Tcp(socket) => {
            let (stream, address) = accept_tcp(socket).await?;
            let_in(broker, listener, handshakes, stream, address.into())
        }
        Socket::Unix(socket) => {
            let (stream, _) = socket.accept().await?;
            let peer = unix_peer(&stream);
            let_in(broker, listener, handshakes, stream, peer)
        }
    }
}

fn let_in<S>(
    broker: &Broker,
    listener: &Listener,
    handshakes: &Handshakes,
    stream: S,
    peer: Peer,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let setup = listener.setup.load();
    // Before it takes a place that somebody else could need; behind a proxy the address is not known yet.
    if setup.transport.proxy.is_none() && broker.bans(&peer) {
        return Ok(());
    }
    let options = Arc::clone(&setup.options);
    let arrival = broker.arrival(peer, options, Arc::clone(&listener.doorway));
    let runtime = Handle::current();
    if setup.transport.is_plain() {
        broker.serve_arrival(&runtime, stream, arrival);
        return Ok(());
    }
    let opening_on = match &setup.transport.tls {
        Some(_) => handshakes.runtime()?,
        None => runtime.clone(),
    };
    let transport = setup.transport.clone();
    opening_on.spawn(
        broker
            .clone()
            .serve_opened(runtime, stream, arrival, transport),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// However many listeners are added, the threads of handshakes are the same.
    #[test]
    fn a_broker_has_one_doorkeeper() {
        let broker = Broker::new(Config::default());
        let threads = |broker: &Broker| {
            let runtime = broker.doorkeeper.handshakes.runtime();
            runtime.unwrap().id()
        };
        let first = threads(&broker);
        assert_eq!(threads(&broker.clone()), first);
        broker.doorkeeper.close();
        assert_ne!(threads(&broker), first);
    }
}
