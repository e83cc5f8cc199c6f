//! What stands in for the outbox on disk where the feature `outbox` is off: nothing.

use std::sync::Arc;

use mqtt_session::{Session, Time};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::mailbox::Post;
use crate::outbound::Outbound;
use crate::{Error, Message, Options, Receipt, TryPublishError};

/// No outbox.
#[derive(Debug)]
pub(crate) struct Keeper;

/// Nowhere to store messages.
#[derive(Debug)]
pub(crate) enum Desk {}

impl Desk {
    pub(crate) async fn publish(
        &self,
        _publishes: &mpsc::Sender<Outbound>,
        _outbound: Outbound,
        _receipt: Receipt,
    ) -> Result<Receipt, Error> {
        match *self {}
    }

    pub(crate) fn try_publish(
        &self,
        _publishes: &mpsc::Sender<Outbound>,
        _outbound: Outbound,
        _receipt: Receipt,
    ) -> Result<Receipt, TryPublishError> {
        match *self {}
    }

    pub(crate) fn takes(&self, _message: &Message) -> bool {
        match *self {}
    }
}

#[allow(
    clippy::unused_self,
    clippy::unused_async,
    clippy::needless_pass_by_ref_mut,
    reason = "in the place of one that does something"
)]
impl Keeper {
    pub(crate) fn new(_options: &Options, _post: &Arc<Post>) -> (Self, Option<Desk>) {
        (Self, None)
    }

    pub(crate) async fn restore(
        &mut self,
        _options: &Options,
        _now: Time,
    ) -> Result<Session<Outbound>, Error> {
        Ok(crate::reconnect::new_session())
    }

    pub(crate) fn is_continued(&self) -> bool {
        false
    }

    pub(crate) fn keep(&mut self, _session: &mut Session<Outbound>) {}

    pub(crate) fn release(&mut self, _session: &mut Session<Outbound>) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn lost(&mut self, _session: &mut Session<Outbound>, _ended: &[u64]) {}

    pub(crate) fn retry_at(&self) -> Option<Instant> {
        None
    }

    pub(crate) fn retry(&mut self) {}

    pub(crate) fn is_settled(&self) -> bool {
        true
    }

    pub(crate) async fn close(&mut self) {}
}
