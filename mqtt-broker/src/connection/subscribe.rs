//! SUBSCRIBE and UNSUBSCRIBE.

use mqtt_codec::{
    EncodeError, ProtocolVersion, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscriptionIdentifier, TopicFilter, UnsubAck, Unsubscribe,
};
use mqtt_router::Subscription;

use crate::auth::Denial;
use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::connection::input::has_more_levels;
use crate::hub::{Batch, Pull, RetainedCursor};
use crate::mount;
use crate::shown::Shown;
use crate::store::Op;

impl Driver {
    pub(crate) fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let identifier = subscribe.properties.subscription_identifier;
        if self.version.has_server_disconnect() {
            // Sections 3.2.2.3.11 to 3.2.2.3.13: the client was told in CONNACK.
            let mut filters = subscribe.filters.iter();
            if let Some(reason) = filters.find_map(|wanted| self.lacks(wanted, identifier)) {
                return Err(End::violation(reason, "SUBSCRIBE: not supported"));
            }
        }
        self.check_answer(|version| {
            let codes = vec![ReasonCode::SUCCESS; subscribe.filters.len()];
            SubAck::new(subscribe.packet_id, codes).encoded_len(version)
        })?;
        let codes = subscribe
            .filters
            .iter()
            .map(|filter| self.subscribe(filter, identifier, batch))
            .collect();
        let suback = SubAck::new(subscribe.packet_id, codes);
        let version = self.version;
        self.answer(|out| suback.encode(version, out))
    }

    /// Why this broker does not offer a subscription, if it does not.
    fn lacks(
        &self,
        wanted: &SubscribeFilter<'_>,
        identifier: Option<SubscriptionIdentifier>,
    ) -> Option<ReasonCode> {
        let granted = self.connection.negotiated();
        if wanted.filter.shared().is_some() && !granted.shared_subscription_available {
            return Some(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if wanted.filter.has_wildcards() && !granted.wildcard_subscription_available {
            return Some(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if identifier.is_some() && !granted.subscription_identifiers_available {
            return Some(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED);
        }
        None
    }

    /// Counts and logs a subscription that is refused for a limit.
    fn count_beyond(&mut self, filter: TopicFilter<'_>) {
        self.hub.counters.count_subscription_refused();
        let shown = Shown(filter.as_str()).to_string();
        self.log_beyond(
            self.hub.now(),
            &shown,
            "subscription beyond a limit refused",
        );
    }

    /// The filter as everybody else would write it, where the client has a mount point.
    fn mounted(&self, filter: TopicFilter<'_>) -> Option<String> {
        Some(mount::filter(self.client.mount()?, filter))
    }

    fn subscribe(
        &mut self,
        wanted: &SubscribeFilter<'_>,
        identifier: Option<SubscriptionIdentifier>,
        batch: &mut Batch,
    ) -> ReasonCode {
        let SubscribeFilter {
            filter,
            mut options,
        } = *wanted;
        if let Some(reason) = self.lacks(wanted, identifier) {
            self.count_beyond(filter);
            return reason;
        }
        let own = filter.shared().map_or(filter, |shared| shared.filter);
        if has_more_levels(own.as_str(), self.topic_levels as usize) {
            self.count_beyond(filter);
            return ReasonCode::TOPIC_FILTER_INVALID;
        }
        let mounted = self.mounted(filter);
        let filter = match &mounted {
            None => filter,
            Some(text) => match TopicFilter::new(text) {
                Ok(filter) => filter,
                // Too long with what stands before it.
                Err(_) => return ReasonCode::TOPIC_FILTER_INVALID,
            },
        };
        options.qos = options.qos.min(self.connection.negotiated().maximum_qos);
        if self.hub.permissions() != 0 {
            match self.client.may_subscribe(filter) {
                Some(highest) => options.qos = options.qos.min(highest),
                None => {
                    let shown = Shown(filter.as_str()).to_string();
                    self.deny(self.hub.now(), Denial::Subscribe, &shown);
                    return ReasonCode::NOT_AUTHORIZED;
                }
            }
            if let Some(reason) = self.refused_by_service(filter, wanted.options.qos) {
                return reason;
            }
        }
        let Some(state) = &mut self.state else {
            return ReasonCode::UNSPECIFIED_ERROR;
        };
        let subscription = Subscription {
            options,
            identifier,
        };
        let ops = &mut batch.ops;
        let Some(is_new) = self.hub.subscribe(state, filter, subscription, ops) else {
            self.count_beyond(filter);
            return ReasonCode::QUOTA_EXCEEDED;
        };
        let sends_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        // A shared subscription gets no retained messages when it is made (section 4.8.2).
        if sends_retained && filter.shared().is_none() && self.hub.retained.may_match(filter) {
            state.pulls.start(Pull {
                cursor: RetainedCursor::new(filter),
                qos: options.qos,
                no_local: options.no_local,
                identifier,
            });
            if let Some(number) = state.client.stored() {
                batch
                    .ops
                    .push(Op::Owes(number, filter.as_str().into(), true));
            }
            // They come before what happens next.
            batch.rest();
        }
        ReasonCode(options.qos as u8)
    }

    pub(crate) fn handle_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        self.check_answer(|version| {
            let codes = vec![ReasonCode::SUCCESS; unsubscribe.filters.len()];
            UnsubAck::new(unsubscribe.packet_id, codes).encoded_len(version)
        })?;
        let codes = unsubscribe
            .filters
            .iter()
            .map(|filter| self.unsubscribe(*filter, batch))
            .collect();
        let unsuback = UnsubAck::new(unsubscribe.packet_id, codes);
        let version = self.version;
        self.answer(|out| unsuback.encode(version, out))
    }

    fn unsubscribe(&mut self, filter: TopicFilter<'_>, batch: &mut Batch) -> ReasonCode {
        let mounted = self.mounted(filter);
        let filter = match &mounted {
            None => Ok(filter),
            Some(text) => TopicFilter::new(text),
        };
        let (Ok(filter), Some(state)) = (filter, &mut self.state) else {
            return ReasonCode::NO_SUBSCRIPTION_EXISTED;
        };
        match self.hub.unsubscribe(state, filter, &mut batch.ops) {
            true => ReasonCode::SUCCESS,
            false => ReasonCode::NO_SUBSCRIPTION_EXISTED,
        }
    }

    /// [MQTT-3.1.2-24]: a request whose answer the client does not take cannot be carried out.
    fn check_answer(
        &self,
        encoded_len: impl FnOnce(ProtocolVersion) -> Result<usize, EncodeError>,
    ) -> Result<(), End> {
        let Some(maximum) = self.connection.negotiated().outbound.maximum_packet_size else {
            return Ok(());
        };
        match encoded_len(self.version) {
            Ok(len) if len > maximum.get() as usize => Err(End::violation(
                ReasonCode::PACKET_TOO_LARGE,
                "the answer is larger than the client's maximum packet size [MQTT-3.1.2-24]",
            )),
            _ => Ok(()),
        }
    }

    fn answer(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), End> {
        self.answer_when_durable(encode)
            .map_err(|error| End::violation(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR, error))
    }
}
