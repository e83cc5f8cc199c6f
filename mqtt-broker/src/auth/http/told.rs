//! What a service has said of the subscriptions of a session whose client was not let in.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_session::Time;

use crate::auth::access::Access;
use crate::auth::http::asked::Question;
use crate::auth::http::topics::Reply;

/// How long what was told in an attempt is kept for the next one.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// What was told of the subscriptions of a session, whose client was not let in since not all was told in time. The next
/// attempt asks for the rest.
#[derive(Debug)]
pub(crate) struct Told {
    /// The state of the permissions in which it was told.
    epoch: u64,
    /// Where the client had come.
    realm: Option<Arc<str>>,
    until: Time,
    answers: HashMap<Question, Reply, RandomState>,
}

impl Told {
    /// None: nothing was told.
    pub(crate) fn new(
        epoch: u64,
        access: &Access,
        now: Time,
        answers: impl Iterator<Item = (Question, Reply)>,
    ) -> Option<Box<Self>> {
        let answers: HashMap<_, _, _> = answers.filter(|(_, reply)| reply.is_said()).collect();
        (!answers.is_empty()).then(|| {
            Box::new(Self {
                epoch,
                realm: access.realm.clone(),
                until: now + KEPT,
                answers,
            })
        })
    }

    /// Whether it is what would be told now.
    pub(crate) fn holds(&self, epoch: u64, access: &Access, now: Time) -> bool {
        self.epoch == epoch && self.realm == access.realm && now < self.until
    }

    pub(crate) fn get(&self, question: &Question) -> Option<Reply> {
        self.answers.get(question).copied()
    }
}
