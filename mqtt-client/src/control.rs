//! What the handles ask of the event loop besides publishing.

use std::sync::Arc;

use mqtt_codec::ReasonCode;
use tokio::sync::oneshot;

use crate::mailbox::Mailbox;
use crate::{DisconnectOptions, Error, Filter, SubscribeOptions};

/// Who waits for the answer to a request.
pub(crate) type Reply = oneshot::Sender<Result<Vec<ReasonCode>, Error>>;

/// Names a [`Subscription`](crate::Subscription) of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HandleId(pub(crate) u64);

/// The event loop's end of a [`Subscription`](crate::Subscription).
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) id: HandleId,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// A request of a handle.
#[derive(Debug)]
pub(crate) enum Control {
    /// Subscribe, for a handle or, without one, for whoever reads what nobody claims.
    Subscribe {
        filters: Vec<Filter>,
        options: SubscribeOptions,
        handle: Option<Handle>,
        reply: Reply,
    },
    /// Unsubscribe these filters, whoever has them.
    Unsubscribe {
        filters: Vec<String>,
        user_properties: Vec<(String, String)>,
        reply: Reply,
    },
    /// A handle wants no messages any more.
    Leave { id: HandleId, reply: Reply },
    /// Authenticate again.
    Reauthenticate { reply: Reply },
    /// Disconnect.
    Disconnect(DisconnectOptions),
}

impl Control {
    /// Tells who asked that it cannot be.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Subscribe { reply, .. }
            | Self::Unsubscribe { reply, .. }
            | Self::Leave { reply, .. }
            | Self::Reauthenticate { reply } => {
                // Nobody may be waiting any more.
                let _ = reply.send(Err(error));
            }
            Self::Disconnect(_) => {}
        }
    }
}
