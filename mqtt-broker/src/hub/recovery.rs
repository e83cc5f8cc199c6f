//! From what the store held to a running broker.

use core::time::Duration;
use std::sync::Arc;

use mqtt_codec::{QoS, TopicFilter, TopicName};
use mqtt_session::Change;

use crate::amount::Amount;
use crate::client::Client;
use crate::delivery::{Content, Delivery};
use crate::hub::Hub;
use crate::hub::pulls::Pull;
use crate::hub::retained::{RetainedCursor, RetainedMessage};
use crate::hub::state::SessionState;
use crate::store::{Contents, Entry, Key, StoredSession};
use crate::will::StoredWill;

impl Hub {
    /// Takes over what was read back. Nobody is connected yet.
    pub(crate) fn restore(&self, contents: Contents) {
        let (sessions, ending): (Vec<_>, Vec<_>) = contents
            .sessions
            .into_iter()
            .partition(|session| !session.is_ending());
        let restored: Vec<_> = sessions
            .into_iter()
            .map(|session| self.restore_session(session))
            .collect();
        for session in ending {
            self.resume_ending(session);
        }
        // The groups are complete only when all sessions have their subscriptions.
        for (mut state, entries, changes) in restored {
            self.restore_messages(&mut state, entries, &changes);
            let id = Arc::clone(&state.client.id);
            self.registry.insert(&id, state, |state| {
                if let Some(deadline) = state.deadline() {
                    self.deadlines.add(deadline, &id);
                }
            });
        }
        for (message, publisher) in contents.retained {
            if let Ok(topic) = TopicName::new(message.topic()) {
                // Within the bounds that held before, unless these were narrowed.
                let retained = RetainedMessage {
                    message: Arc::clone(&message),
                    publisher,
                    stored: true,
                };
                if let Err(reason) = self.retained.set(topic, retained, &self.config) {
                    self.count_drop(None, reason, 1);
                }
            }
        }
    }

    /// The session with its subscriptions; its messages come later.
    fn restore_session(
        &self,
        stored: StoredSession,
    ) -> (Box<SessionState>, Vec<(Key, Entry)>, Vec<Change>) {
        let StoredSession {
            number,
            record,
            subscriptions,
            owed,
            entries,
            rest,
            sent,
            released,
            received,
        } = stored;
        let client = self
            .routes
            .add_client(Arc::clone(&record.client_id), Some(number));
        let last = rest.map(|rest| rest.last);
        let last = last.or(entries.last().map(|(key, _)| *key));
        client.restore_queue(last.unwrap_or_default(), rest);
        let mut state = SessionState::new(client, record.owner.clone());
        self.grant(&state.client, record.owner, None);
        for (text, subscription) in subscriptions {
            if let Ok(filter) = TopicFilter::new(&text)
                && state.subscriptions.insert(&text, usize::MAX, usize::MAX)
            {
                if owed.contains(&text) {
                    // From the beginning: how far it was, nobody knows.
                    state.pulls.start(Pull {
                        cursor: RetainedCursor::new(filter),
                        qos: subscription.options.qos,
                        no_local: subscription.options.no_local,
                        identifier: subscription.identifier,
                    });
                }
                self.routes.subscribe(&state.client, filter, subscription);
            }
        }
        let now = self.now();
        state.expiry_interval = record.expiry_interval;
        // A session that had a connection when the broker stopped loses it now.
        state.expires_at = match (record.expires_at, record.expiry_interval) {
            (_, u32::MAX) => None,
            (Some(end), _) => self.time(end),
            (None, interval) => Some(now + Duration::from_secs(interval.into())),
        };
        state.will = record.will.and_then(|will| {
            let due = match will.due {
                Some(due) => self.time(due)?,
                None => now + Duration::from_secs(will.delay.into()),
            };
            Some((StoredWill::from_record(&will)?, due))
        });
        let mut changes = Vec::new();
        for (packet_id, key) in sent {
            if let Some(stored) = &mut state.stored {
                stored.restore_sent(packet_id, key);
            }
            changes.push(Change::Sent {
                packet_id,
                qos: QoS::ExactlyOnce,
                key,
            });
        }
        let released = released
            .into_iter()
            .map(|packet_id| Change::PubRecReceived { packet_id });
        changes.extend(released);
        let received = received
            .into_iter()
            .map(|packet_id| Change::InboundReceived { packet_id });
        changes.extend(received);
        (Box::new(state), entries, changes)
    }

    fn restore_messages(
        &self,
        state: &mut SessionState,
        entries: Vec<(Key, Entry)>,
        changes: &[Change],
    ) {
        let Some(session) = &mut state.session else {
            return;
        };
        session.set_established();
        for (key, entry) in entries {
            let delivery = self.delivery(&state.client, key, entry);
            if let Some(stored) = &mut state.stored {
                stored.note(&delivery);
            }
            session.push(delivery);
        }
        changes.iter().for_each(|change| session.apply(change));
        state.client.queue_grows(Amount::held(session));
        state.client.set_waiting(session.queue_size());
    }

    /// A message that was read back for a session.
    pub(crate) fn delivery(&self, client: &Client, key: Key, entry: Entry) -> Delivery {
        let Entry {
            message,
            body,
            qos,
            retain,
            identifiers,
            group,
            expires_at: _,
        } = entry;
        Delivery {
            content: Content::One(message),
            qos,
            retain,
            mount: client.mount_len(),
            identifiers,
            group: group
                .and_then(|filter| self.routes.group(&filter))
                .map(|group| Arc::downgrade(&group)),
            key,
            body,
        }
    }
}
