//! Packets from the client, each with its handler.

use core::ops::Range;
use std::sync::Arc;

use mqtt_codec::{
    Ack, Disconnect, FixedHeader, Packet, PacketType, PlainAck, PlainPublish, Publish, QoS,
    ReasonCode, TopicName,
};
use mqtt_session::{Durability, Role, Time, Token, Verdict};

use crate::auth::{Denial, DeniedPublish, Guard, Question, Reply};
use crate::client::Client;
use crate::connection::asking::{Asking, Doubt};
use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::counters::DropReason;
use crate::hub::{Answer, Batch, Hub, Inbound, Outcome, Publisher, packet_limit};
use crate::mount::Mounted;
use crate::shown::Shown;

/// Whether a message may be published.
enum Permit {
    Given,
    Denied,
    /// Somebody is to be asked.
    Unknown(Box<Doubt>),
}

impl Permit {
    /// As far as it is known.
    fn of(
        hub: &Hub,
        client: &Client,
        (guard, asking): (&mut Option<Box<Guard>>, &mut Option<Box<Asking>>),
        now: Time,
        topic: TopicName<'_>,
        publish: &Publish<'_>,
    ) -> Self {
        let epoch = hub.permissions();
        if epoch == 0 {
            return Self::Given;
        }
        let guard = guard.get_or_insert_default();
        let verdict = guard.publish(topic, epoch, || client.access.load_full());
        if !verdict.allows(publish.qos, publish.retain) {
            return Self::Denied;
        }
        let Some(access) = guard.asks() else {
            return Self::Given;
        };
        let question = Question::publish(topic, publish.qos, publish.retain);
        match asking.get_or_insert_default().known(&question, epoch, now) {
            Some(Reply::Allowed | Reply::Waived) => Self::Given,
            Some(Reply::Denied | Reply::Failed) => Self::Denied,
            None => Self::Unknown(Box::new(Doubt {
                question,
                access: Arc::clone(access),
                epoch,
            })),
        }
    }
}

impl Driver {
    /// Handles the whole packets that `bytes` begins with, until the batch has done its share of work; returns
    /// how many bytes they are.
    pub(crate) fn handle_bytes(
        &mut self,
        now: Time,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<usize, End> {
        batch.begin(&self.hub);
        let handled = self.handle_packets(now, bytes, batch);
        // What came before a violation counts.
        self.drain_changes(&mut batch.ops);
        let ticket = batch.end(&self.hub, bytes);
        self.submitted(ticket);
        handled
    }

    fn handle_packets(&mut self, now: Time, bytes: &[u8], batch: &mut Batch) -> Result<usize, End> {
        let limit = packet_limit(self.connection.negotiated().inbound.maximum_packet_size);
        let holds = self.hub.pressure.holds();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..) {
            let (packet_type, len) = if let Some(ack) = PlainAck::recognize(rest)
                && limit as usize >= PlainAck::LEN
            {
                self.connection.handle_plain_ack(now, ack)?;
                (ack.packet_type(), PlainAck::LEN)
            } else {
                let Some(header) = FixedHeader::parse(rest)? else {
                    break;
                };
                header.check_version(self.version)?;
                header.check_size(limit)?;
                let len = header.frame_len();
                let Some(body) = rest.get(usize::from(header.header_len)..len) else {
                    break;
                };
                if header.packet_type == PacketType::Publish && self.is_held(now) {
                    batch.rest();
                    break;
                }
                let place = at..at + len;
                match batch.recognize(&self.hub, header, body, &place) {
                    Some(plain) => self.handle_plain_publish(now, plain, len, batch)?,
                    None => self.handle_packet(now, header, body, place, bytes, batch)?,
                }
                (header.packet_type, len)
            };
            at += len;
            if holds && packet_type == PacketType::Publish {
                self.hold(now);
            }
            if let Some(throttle) = &mut self.throttle {
                throttle.count(now, len, packet_type);
                if throttle.metered_until(now).is_some() {
                    batch.rest();
                }
            }
            if batch.is_spent() {
                break;
            }
        }
        if at > 0 {
            self.connection.received(now);
        }
        Ok(at)
    }

    fn handle_packet(
        &mut self,
        now: Time,
        header: FixedHeader,
        body: &[u8],
        place: Range<usize>,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<(), End> {
        let packet_type = header.packet_type;
        if packet_type == PacketType::Publish {
            let last = batch.cache.last_text();
            if !last.is_empty() {
                let known = TopicName::assume_valid(&last);
                if let Some(publish) =
                    Publish::decode_knowing(header.flags, body, self.version, known)
                {
                    return self.handle_publish(now, &publish?, place, bytes, batch);
                }
            }
            drop(last);
            let publish = Publish::decode(header.flags, body, self.version)?;
            return self.handle_publish(now, &publish, place, bytes, batch);
        }
        if !Role::Client.may_send(packet_type) {
            return Err(End::violation(
                ReasonCode::PROTOCOL_ERROR,
                format_args!("{}: only a server sends it", packet_type.name()),
            ));
        }
        if packet_type.is_publish_ack() {
            let ack = Ack::decode(packet_type, body, self.version)?;
            self.connection.handle_ack(now, packet_type, &ack)?;
            return Ok(());
        }
        match Packet::decode(header, body, self.version)? {
            Packet::Subscribe(subscribe) => {
                if self.asks_about_subscribe(now, &subscribe, place, bytes) {
                    batch.rest();
                    return Ok(());
                }
                let handled = self.handle_subscribe(&subscribe, batch);
                self.forget_answers();
                handled
            }
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe, batch),
            Packet::PingReq => {
                self.connection.handle_ping(now);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.handle_disconnect(&disconnect)),
            Packet::Connect(_) => Err(End::violation(
                ReasonCode::PROTOCOL_ERROR,
                "CONNECT: a second one [MQTT-3.1.0-2]",
            )),
            Packet::Auth(auth) => self.handle_auth(now, &auth),
            // Excluded above.
            Packet::Publish(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => Ok(()),
        }
    }

    /// Handles a PUBLISH that goes where the one before it went: that it may is known.
    fn handle_plain_publish(
        &mut self,
        now: Time,
        plain: PlainPublish,
        len: usize,
        batch: &mut Batch,
    ) -> Result<(), End> {
        if plain == PlainPublish::AtMostOnce {
            batch.continue_run(len);
        } else if let Some(token) = self.connection.handle_plain_publish(now, plain)? {
            batch.continue_run(len);
            if let Some(number) = self.connection.accept(token, Durability::Now) {
                self.waits.note(number);
                self.drain_changes(&mut batch.ops);
            }
        }
        Ok(())
    }

    fn handle_publish(
        &mut self,
        now: Time,
        publish: &Publish<'_>,
        place: Range<usize>,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<(), End> {
        let inbound = match self.connection.handle_publish(now, publish)? {
            Verdict::Deliver(inbound) => inbound,
            Verdict::Duplicate => return Ok(()),
        };
        let token = inbound.token;
        if has_more_levels(inbound.topic.as_str(), self.topic_levels as usize) {
            let shown = Shown(inbound.topic.as_str()).to_string();
            self.refuse_topic(now, token, publish.qos, &shown);
            return Ok(());
        }
        let mounted = self
            .client
            .mount()
            .map(|mount| Mounted::of_publish(mount, inbound.topic, publish));
        let behind;
        let (publish, topic) = match &mounted {
            None => (publish, inbound.topic),
            Some(mounted) => {
                let Some((topic, response)) = mounted.names() else {
                    return Err(End::violation(
                        ReasonCode::TOPIC_NAME_INVALID,
                        "PUBLISH: topic too long behind the mount point",
                    ));
                };
                behind = with_response(publish, response);
                (&behind, topic)
            }
        };
        match Permit::of(
            &self.hub,
            &self.client,
            (&mut self.guard, &mut self.asking),
            now,
            topic,
            publish,
        ) {
            Permit::Given => {}
            permit => {
                let shown = Shown(topic.as_str()).to_string();
                let named = inbound.topic.as_str().into();
                let frame = bytes.get(place).unwrap_or_default();
                let held = self.hold_back(now, token, permit, &shown, named, frame);
                if self.is_asking() {
                    batch.rest();
                }
                return held;
            }
        }
        // A receiver can get the bytes as they came unless an alias stands for the topic, or a part of it is not
        // there.
        let is_whole = publish.properties.topic_alias.is_none() && mounted.is_none();
        let frame = is_whole.then_some(place);
        let inbound = Inbound {
            publish,
            topic,
            frame,
        };
        let publisher = Publisher::of(&self.client, self.version);
        let answer = batch.publish(&self.hub, now, publisher, &inbound, bytes);
        self.conclude_publish(token, publish.qos, answer, batch);
        Ok(())
    }

    /// Does not pass on a message: it is denied, or waits until somebody was asked. `shown` is its topic for the log,
    /// `named` as the client named it.
    #[cold]
    fn hold_back(
        &mut self,
        now: Time,
        token: Token,
        permit: Permit,
        shown: &str,
        named: Box<str>,
        frame: &[u8],
    ) -> Result<(), End> {
        match permit {
            Permit::Given | Permit::Denied => self.deny_publish(now, token, token.qos(), shown),
            Permit::Unknown(doubt) => {
                self.ask_about_publish(*doubt, token, named, frame);
                Ok(())
            }
        }
    }

    /// Says what became of a message.
    fn conclude_publish(&mut self, token: Token, qos: QoS, answer: Answer, batch: &mut Batch) {
        if qos != QoS::AtMostOnce {
            self.answer_publish(token, answer);
            // The identifier is one unit with the message, though the batch may be handed on before its end.
            self.drain_changes(&mut batch.ops);
        }
    }

    /// Passes on a message that has waited; unless the service has just allowed it, that is looked at once more.
    /// `topic`: as the client named it, an alias resolved.
    pub(crate) fn pass_publish(
        &mut self,
        now: Time,
        token: Token,
        topic: &str,
        frame: &[u8],
        is_allowed: bool,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let header = FixedHeader::parse(frame)?;
        let whole = header.and_then(|header| {
            let body = frame.get(usize::from(header.header_len)..header.frame_len())?;
            Some((header.flags, body))
        });
        // It was decoded before.
        let Some((flags, body)) = whole else {
            return Ok(());
        };
        let publish = Publish::decode(flags, body, self.version)?;
        let text = topic;
        let topic = TopicName::assume_valid(text);
        let mounted = self
            .client
            .mount()
            .map(|mount| Mounted::of_publish(mount, topic, &publish));
        let behind;
        let (publish, topic) = match mounted.as_ref().and_then(Mounted::names) {
            None => (&publish, topic),
            Some((topic, response)) => {
                behind = with_response(&publish, response);
                (&behind, topic)
            }
        };
        if !is_allowed {
            match Permit::of(
                &self.hub,
                &self.client,
                (&mut self.guard, &mut self.asking),
                now,
                topic,
                publish,
            ) {
                Permit::Given => {}
                permit => {
                    let shown = Shown(topic.as_str()).to_string();
                    return self.hold_back(now, token, permit, &shown, text.into(), frame);
                }
            }
        }
        let inbound = Inbound {
            publish,
            topic,
            frame: None,
        };
        let publisher = Publisher::of(&self.client, self.version);
        let answer = batch.publish(&self.hub, now, publisher, &inbound, &[]);
        self.conclude_publish(token, publish.qos, answer, batch);
        Ok(())
    }

    /// Drops a message whose topic has too many levels, and tells the client so where its version can.
    fn refuse_topic(&mut self, now: Time, token: Token, qos: QoS, topic: &str) {
        self.hub.count_drop(None, DropReason::TooManyLevels, 1);
        self.log_beyond(now, topic, "message dropped: its topic has too many levels");
        if qos != QoS::AtMostOnce {
            self.connection
                .reject(token, ReasonCode::TOPIC_NAME_INVALID);
        }
    }

    /// Logs what is beyond a limit, from time to time.
    pub(crate) fn log_beyond(&mut self, now: Time, about: &str, what: &str) {
        if let Some(withheld) = self.denials.pass(now) {
            let client_id = Shown(self.client.name());
            tracing::warn!(%client_id, topic = about, withheld, "{what}");
        }
    }

    /// Drops a message that the client may not publish, and tells it so where its version can.
    pub(crate) fn deny_publish(
        &mut self,
        now: Time,
        token: Token,
        qos: QoS,
        topic: &str,
    ) -> Result<(), End> {
        self.deny(now, Denial::Publish, topic);
        let has_answer = qos != QoS::AtMostOnce;
        let policies = self.hub.config.auth.policies();
        let access = self.client.access.load();
        if has_answer
            && !self.version.has_reason_codes()
            && policies.denied_publish(access.as_deref()) == DeniedPublish::Disconnect
        {
            return Err(End::violation(
                ReasonCode::NOT_AUTHORIZED,
                "PUBLISH: not authorized",
            ));
        }
        if has_answer {
            self.connection.reject(token, ReasonCode::NOT_AUTHORIZED);
        }
        Ok(())
    }

    /// Counts what the client was not let do, and logs it from time to time.
    pub(crate) fn deny(&mut self, now: Time, what: Denial, about: &str) {
        self.hub.counters.count_denial(what);
        if let Some(withheld) = self.denials.pass(now) {
            let client_id = Shown(self.client.name());
            tracing::warn!(%client_id, topic = about, withheld, "{what} denied");
        }
    }

    fn answer_publish(&mut self, token: Token, answer: Answer) {
        let Answer {
            outcome,
            durability,
        } = answer;
        let change = match outcome {
            Outcome::Taken => self.connection.accept(token, durability),
            Outcome::NoSubscription => {
                self.connection
                    .accept_with(token, ReasonCode::NO_MATCHING_SUBSCRIBERS, durability)
            }
            Outcome::Refused => {
                self.connection.reject(token, ReasonCode::QUOTA_EXCEEDED);
                None
            }
        };
        if let Some(number) = change {
            self.waits.note(number);
        }
    }

    pub(crate) fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) -> End {
        if let Some(interval) = disconnect.properties.session_expiry_interval {
            if self.expiry_interval == 0 && interval != 0 {
                // Section 3.14.2.2.2: a session that ends with its connection cannot be kept any more.
                return End::violation(
                    ReasonCode::PROTOCOL_ERROR,
                    "DISCONNECT: session expiry interval, but it was 0 in CONNECT [section 3.14.2.2.2]",
                );
            }
            self.expiry_interval = interval.min(self.hub.limits.load().session_expiry_maximum);
        }
        End::Disconnected(disconnect.reason_code)
    }
}

/// Whether a topic or a filter has more than so many levels.
pub(crate) fn has_more_levels(text: &str, most: usize) -> bool {
    most != usize::MAX && text.bytes().filter(|byte| *byte == b'/').count() >= most
}

/// The same message with another response topic.
fn with_response<'p>(publish: &Publish<'p>, response: Option<TopicName<'p>>) -> Publish<'p> {
    let mut publish = publish.clone();
    publish.properties.response_topic = response;
    publish
}

impl From<mqtt_codec::DecodeError> for End {
    fn from(error: mqtt_codec::DecodeError) -> Self {
        Self::violation(error.reason_code(), error)
    }
}

impl From<mqtt_session::Error> for End {
    fn from(error: mqtt_session::Error) -> Self {
        Self::violation(
            error.reason_code(),
            format_args!("{error} [{}]", error.clause()),
        )
    }
}
