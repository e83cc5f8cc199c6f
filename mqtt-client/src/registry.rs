//! The subscriptions of a client: who reads what, and where an arriving message goes.

use std::collections::HashMap;
use std::sync::Arc;

use mqtt_codec::{Publish, QoS, SubscriptionIdentifier, TopicFilter, TopicName};
use mqtt_session::Token;

use crate::control::{Handle, HandleId};
use crate::mailbox::{Mailbox, Post};
use crate::received::Acknowledgement;
use crate::sharing::Ledger;
use crate::{Filter, Message, Received, SubscribeOptions};

/// The highest Subscription Identifier.
const LAST_IDENTIFIER: u32 = 268_435_455;

/// A subscription that the server has, or was asked for.
#[derive(Debug)]
struct Entry {
    filter: Filter,
    options: SubscribeOptions,
    readers: Vec<Handle>,
    /// It was asked for without a handle.
    is_unclaimed: bool,
    /// The server granted it in this session.
    is_granted: bool,
    /// The server lost it and has not answered to the new request.
    is_owed: bool,
    /// The identifiers that it had before, until the server has answered to the request that changed it: messages on
    /// their way may still bear them.
    former: Vec<SubscriptionIdentifier>,
}

impl Entry {
    fn matches(&self, topic: TopicName<'_>) -> bool {
        TopicFilter::assume_valid(self.filter.as_str()).matches(topic)
    }

    fn has(&self, identifier: SubscriptionIdentifier) -> bool {
        self.options.identifier == Some(identifier) || self.former.contains(&identifier)
    }
}

/// A subscription with readers that the server was asked to end and has not answered for.
#[derive(Debug)]
struct Gone {
    filter: String,
    identifiers: Vec<SubscriptionIdentifier>,
}

impl Gone {
    /// Nothing for one without identifiers, or whose messages are read from elsewhere.
    fn of(entry: &Entry) -> Option<Self> {
        let identifiers = entry.former.iter().copied().chain(entry.options.identifier);
        let identifiers: Vec<_> = identifiers.collect();
        (!identifiers.is_empty() && !entry.is_unclaimed).then(|| Self {
            filter: entry.filter.as_str().to_owned(),
            identifiers,
        })
    }

    fn has(&self, identifier: SubscriptionIdentifier, topic: TopicName<'_>) -> bool {
        self.identifiers.contains(&identifier)
            && TopicFilter::assume_valid(&self.filter).matches(topic)
    }
}

/// The readers of the topic that came last.
#[derive(Debug, Default)]
struct Route {
    topic: String,
    identifiers: Vec<SubscriptionIdentifier>,
    readers: Vec<Handle>,
    /// All that it was sent for has been given up.
    is_given_up: bool,
    is_valid: bool,
}

/// The subscriptions of a client and their readers.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
    /// In the order in which they were given up.
    gone: Vec<Gone>,
    handles: HashMap<HandleId, Handle>,
    /// What nobody claims.
    held: Arc<Mailbox>,
    post: Arc<Post>,
    /// The session ends with the connection: nobody comes back for its messages.
    session_ends: bool,
    last_identifier: u32,
    route: Route,
    /// Who has which message of QoS 2.
    ledger: Ledger,
    /// The number of the message that came last.
    last_number: u64,
}

impl Registry {
    pub(crate) fn new(held: Arc<Mailbox>, post: Arc<Post>, session_ends: bool) -> Self {
        Self {
            entries: Vec::new(),
            gone: Vec::new(),
            handles: HashMap::new(),
            held,
            post,
            session_ends,
            last_identifier: 0,
            route: Route::default(),
            ledger: Ledger::default(),
            last_number: 0,
        }
    }

    /// An identifier that no subscription has.
    pub(crate) fn identifier(&mut self) -> Option<SubscriptionIdentifier> {
        // One more than there are subscriptions is enough to find a free one.
        for _ in 0..=self.entries.len() {
            self.last_identifier = self.last_identifier % LAST_IDENTIFIER + 1;
            let identifier = SubscriptionIdentifier::new(self.last_identifier)?;
            if !self.entries.iter().any(|entry| entry.has(identifier)) {
                return Some(identifier);
            }
        }
        None
    }

    /// The filter as it is to be sent: not below the quality of service that others have asked for.
    pub(crate) fn merged(&self, filter: Filter) -> Filter {
        let known = self.entry(filter.as_str());
        match known.filter(|entry| !entry.readers.is_empty()) {
            Some(entry) => {
                let qos = filter.quality().max(entry.filter.quality());
                filter.qos(qos)
            }
            None => filter,
        }
    }

    fn entry(&self, filter: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.filter.as_str() == filter)
    }

    /// SUBSCRIBE is on its way: messages for these filters go to the reader from now on, those that
    /// wait for one at once.
    pub(crate) fn claim(
        &mut self,
        filters: &[Filter],
        options: &SubscribeOptions,
        handle: Option<&Handle>,
    ) {
        self.route.is_valid = false;
        for filter in filters {
            let place = self
                .entries
                .iter()
                .position(|entry| entry.filter.as_str() == filter.as_str());
            let new = || Entry {
                filter: filter.clone(),
                options: options.clone(),
                readers: Vec::new(),
                is_unclaimed: false,
                is_granted: false,
                is_owed: false,
                former: Vec::new(),
            };
            let place = place.unwrap_or_else(|| {
                self.entries.push(new());
                self.entries.len() - 1
            });
            let Some(entry) = self.entries.get_mut(place) else {
                continue;
            };
            entry.filter = filter.clone();
            if entry.options.identifier != options.identifier {
                entry.former.extend(entry.options.identifier);
            }
            entry.options = options.clone();
            match handle {
                None => entry.is_unclaimed = true,
                Some(handle) if entry.readers.iter().any(|known| known.id == handle.id) => {}
                Some(handle) => entry.readers.push(handle.clone()),
            }
        }
        if let Some(handle) = handle {
            self.handles.insert(handle.id, handle.clone());
            let waiting = self.held.take_where(|message| {
                let topic = TopicName::assume_valid(message.topic());
                let mut entries = filters.iter();
                entries.any(|filter| TopicFilter::assume_valid(filter.as_str()).matches(topic))
            });
            for message in waiting {
                if let Some(message) = handle.mailbox.push(message) {
                    self.give_up(handle, message);
                }
            }
        }
    }

    /// The server granted the subscription, with this identifier: no message comes with those before.
    pub(crate) fn granted(&mut self, filter: &str, identifier: Option<SubscriptionIdentifier>) {
        self.route.is_valid = false;
        let entries = self.entries.iter_mut();
        for entry in entries.filter(|entry| entry.filter.as_str() == filter) {
            entry.is_granted = true;
            entry.is_owed = false;
            let place = entry.former.iter().position(|id| Some(*id) == identifier);
            let before = place.unwrap_or(entry.former.len());
            entry.former.drain(..before);
        }
    }

    /// The server ended the subscription, or was not asked to: messages with its identifiers are nobody's no longer.
    pub(crate) fn unsubscribed(&mut self, filter: &str) {
        self.route.is_valid = false;
        if let Some(place) = self.gone.iter().position(|gone| gone.filter == filter) {
            self.gone.remove(place);
        }
    }

    /// The server refused the subscription to this handle, or to whoever had it before the session was
    /// lost.
    pub(crate) fn refused(&mut self, filter: &str, handle: Option<HandleId>) {
        match handle {
            None => self.remove(filter),
            Some(id) => {
                self.route.is_valid = false;
                self.entries.retain_mut(|entry| {
                    if entry.filter.as_str() != filter {
                        return true;
                    }
                    entry.readers.retain(|reader| reader.id != id);
                    !entry.readers.is_empty() || entry.is_unclaimed || entry.is_granted
                });
            }
        }
    }

    /// UNSUBSCRIBE is on its way: nobody reads the filter any more.
    pub(crate) fn remove(&mut self, filter: &str) {
        self.route.is_valid = false;
        let mut readers = Vec::new();
        self.entries.retain_mut(|entry| {
            let stays = entry.filter.as_str() != filter;
            if !stays {
                self.gone.extend(Gone::of(entry));
                readers.append(&mut entry.readers);
            }
            stays
        });
        for reader in readers {
            let mut entries = self.entries.iter().flat_map(|entry| &entry.readers);
            if !entries.any(|other| other.id == reader.id) {
                reader.mailbox.end();
            }
        }
    }

    /// A handle wants no messages any more. Returns the filters that nobody else reads.
    pub(crate) fn leave(&mut self, id: HandleId) -> Vec<String> {
        if let Some(handle) = self.handles.get(&id) {
            handle.mailbox.end();
        }
        let orphans = self.forget_reader(id);
        self.entries.retain(|entry| {
            let stays = !orphans.iter().any(|filter| filter == entry.filter.as_str());
            if !stays {
                self.gone.extend(Gone::of(entry));
            }
            stays
        });
        orphans
    }

    /// A handle was dropped. Returns the filters that are to be unsubscribed: those that nobody else
    /// reads, if the session ends with the connection.
    pub(crate) fn dropped(&mut self, id: HandleId) -> Vec<String> {
        let Some(handle) = self.handles.remove(&id) else {
            return Vec::new();
        };
        let was_subscribed = self
            .entries
            .iter()
            .any(|entry| entry.readers.iter().any(|reader| reader.id == id));
        let orphans = if self.session_ends {
            self.leave(id)
        } else {
            self.forget_reader(id);
            Vec::new()
        };
        for message in handle.mailbox.take_where(|_| true) {
            if self.post.is_stale(&message) {
                continue;
            }
            if self.session_ends || !was_subscribed {
                message.acknowledge();
            } else {
                self.deliver_again(message);
            }
        }
        orphans
    }

    fn forget_reader(&mut self, id: HandleId) -> Vec<String> {
        self.route.is_valid = false;
        let mut orphans = Vec::new();
        for entry in &mut self.entries {
            let before = entry.readers.len();
            entry.readers.retain(|reader| reader.id != id);
            if before > 0 && entry.readers.is_empty() && !entry.is_unclaimed {
                orphans.push(entry.filter.as_str().to_owned());
            }
        }
        orphans
    }

    /// A connection was made: what is to be subscribed again, a list of filters for each packet. In a new
    /// session that is everything; else what was not answered when the last connection ended.
    pub(crate) fn renew(&mut self, session_present: bool) -> Vec<(Vec<Filter>, SubscribeOptions)> {
        if !session_present {
            self.ledger.clear();
            self.gone.clear();
            self.route.is_valid = false;
        }
        let mut packets: Vec<(Vec<Filter>, SubscribeOptions)> = Vec::new();
        for entry in &mut self.entries {
            if !entry.is_owed && (session_present || !entry.is_granted) {
                continue;
            }
            entry.is_granted = false;
            entry.is_owed = true;
            if !session_present {
                entry.former.clear();
            }
            let same = packets
                .iter_mut()
                .find(|(_, options)| options.identifier.is_some() && *options == entry.options);
            match same {
                Some((filters, _)) => filters.push(entry.filter.clone()),
                None => packets.push((vec![entry.filter.clone()], entry.options.clone())),
            }
        }
        packets
    }

    /// The client ends: so does every stream.
    pub(crate) fn end(&self) {
        for handle in self.handles.values() {
            handle.mailbox.end();
        }
        self.held.end();
    }

    /// Copies a message to whoever reads it. `by_identifier`: the server says for which subscriptions
    /// it sent the message.
    pub(crate) fn deliver(
        &mut self,
        topic: TopicName<'_>,
        publish: &Publish<'_>,
        token: Token,
        by_identifier: bool,
    ) {
        self.find_route(
            topic,
            &publish.properties.subscription_identifiers,
            by_identifier,
        );
        self.last_number += 1;
        let is_unreliable = publish.qos == QoS::AtMostOnce;
        if is_unreliable && (self.route.is_given_up || !self.has_room()) {
            return;
        }
        let message = Received::arrived(
            Message::copied(topic, publish),
            publish.dup,
            publish.packet_id,
            (!is_unreliable).then(|| Acknowledgement::new(token, &self.post)),
            (self.post.resumption(), self.last_number),
        );
        if self.route.is_given_up {
            message.acknowledge();
            return;
        }
        self.hand_over(message, publish.dup);
    }

    /// How many messages have come.
    pub(crate) fn arrived(&self) -> u64 {
        self.last_number
    }

    /// The server is told that a message has been taken over.
    pub(crate) fn acknowledged(&mut self, token: Token) {
        self.ledger.forget(token);
    }

    /// Whether anybody would keep a message of QoS 0; who does not, counts it as dropped.
    fn has_room(&self) -> bool {
        match self.route.readers.as_slice() {
            [] => self.held.has_room(),
            [reader] => reader.mailbox.has_room(),
            _ => true,
        }
    }

    /// A reader went with messages that it had not taken.
    fn deliver_again(&mut self, message: Received) {
        let topic = message.topic().to_owned();
        self.find_route(
            TopicName::assume_valid(&topic),
            &message.property().subscription_identifiers,
            false,
        );
        // Others may have their copy, or have come since.
        if self.route.readers.is_empty() {
            self.hold(message);
        } else if message.is_unread() {
            self.hand_over(message, true);
        } else {
            message.acknowledge();
        }
    }

    /// `comes_again`: some of its readers may have it already.
    fn hand_over(&mut self, message: Received, comes_again: bool) {
        let had = match message.quality() {
            QoS::ExactlyOnce => self.ledger.take(&message, comes_again),
            QoS::AtMostOnce | QoS::AtLeastOnce => Vec::new(),
        };
        match self.route.readers.as_slice() {
            [] if had.is_empty() => self.hold(message),
            [reader] if had.is_empty() => {
                if let Some(message) = reader.mailbox.push(message) {
                    self.give_up(reader, message);
                }
            }
            _ => self.hand_round(message, had),
        }
    }

    /// Gives a message to several, but for those who had it.
    fn hand_round(&mut self, message: Received, had: Vec<HandleId>) {
        let mut readers = self.route.readers.clone();
        readers.retain(|reader| !had.contains(&reader.id));
        if readers.is_empty() {
            // All have it who are left.
            message.acknowledge();
            return;
        }
        let copies = message.shared(readers.len());
        self.ledger.note(&readers, &copies, had);
        for (reader, copy) in readers.iter().zip(copies) {
            match reader.mailbox.push(copy) {
                None => {}
                // All have just gone.
                Some(copy) if copy.is_unread() => self.give_up(reader, copy),
                // It goes, and the others have theirs.
                Some(copy) => copy.acknowledge(),
            }
        }
    }

    /// A message came for a reader that has just gone. What it had not taken goes first.
    fn give_up(&self, reader: &Handle, message: Received) {
        if self.session_ends {
            message.acknowledge();
            return;
        }
        for unread in reader.mailbox.take_where(|_| true) {
            if !self.post.is_stale(&unread) {
                self.hold(unread);
            }
        }
        self.hold(message);
    }

    /// Keeps a message until it is claimed.
    fn hold(&self, message: Received) {
        let is_asked_for = || self.entries.iter().any(|entry| entry.is_unclaimed);
        if message.quality() > QoS::AtMostOnce && self.held.len() == 0 && !is_asked_for() {
            tracing::debug!(
                topic = message.topic(),
                "a message waits unacknowledged: no subscription claims it"
            );
        }
        // Nobody closes it.
        let _ = self.held.push(message);
    }

    /// Finds who reads a message.
    fn find_route(
        &mut self,
        topic: TopicName<'_>,
        identifiers: &[SubscriptionIdentifier],
        by_identifier: bool,
    ) {
        let route = &mut self.route;
        if route.is_valid && route.topic == topic.as_str() && route.identifiers == identifiers {
            return;
        }
        route.readers.clear();
        route.topic.clear();
        route.topic.push_str(topic.as_str());
        route.identifiers.clear();
        route.identifiers.extend_from_slice(identifiers);
        let mut add = |entry: &Entry| {
            for reader in &entry.readers {
                if !route.readers.iter().any(|known| known.id == reader.id) {
                    route.readers.push(reader.clone());
                }
            }
        };
        // One of a subscription that was given up is for nobody: whoever else matches has a copy of its own.
        // An identifier that is not known, or that stands for another filter, is that of a
        // subscription which an earlier run of the program made in this session.
        let mut is_known = !identifiers.is_empty();
        let mut is_given_up = is_known;
        for identifier in identifiers {
            let entries = self.entries.iter();
            let mut found = false;
            for entry in entries.filter(|entry| entry.has(*identifier) && entry.matches(topic)) {
                found = true;
                is_given_up = false;
                add(entry);
            }
            found |= self.gone.iter().any(|gone| gone.has(*identifier, topic));
            is_known &= found;
        }
        let matching = || self.entries.iter().filter(|entry| entry.matches(topic));
        // What the server sends without identifier is for the subscription that has none.
        let is_for_nobody = by_identifier
            && identifiers.is_empty()
            && matching().any(|entry| entry.is_unclaimed && entry.options.identifier.is_none());
        if !is_known && !is_for_nobody {
            matching().for_each(&mut add);
        }
        route.is_given_up = is_known && is_given_up;
        route.is_valid = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_not_given_twice() {
        let post = Arc::new(Post::default());
        let mut registry = Registry::new(Mailbox::new(1), post, true);
        let first = registry.identifier().unwrap();
        let options = SubscribeOptions::new().identifier(first);
        registry.claim(&[Filter::new("a").unwrap()], &options, None);
        registry.last_identifier = LAST_IDENTIFIER;
        assert_eq!(registry.identifier().unwrap().get(), 2);
    }
}
