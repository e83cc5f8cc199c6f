//! SUBSCRIBE and UNSUBSCRIBE.

use mqtt_codec::{
    EncodeError, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscriptionIdentifier, UnsubAck, Unsubscribe,
};
use mqtt_router::Subscription;

use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::connection::output::RetainedPull;
use crate::hub::RetainedCursor;

impl Driver {
    pub(crate) fn handle_subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), End> {
        let identifier = subscribe.properties.subscription_identifier;
        let codes = subscribe
            .filters
            .iter()
            .map(|filter| self.subscribe(filter, identifier))
            .collect();
        let suback = SubAck::new(subscribe.packet_id, codes);
        let version = self.version;
        self.answer(|out| suback.encode(version, out))
    }

    fn subscribe(
        &mut self,
        wanted: &SubscribeFilter<'_>,
        identifier: Option<SubscriptionIdentifier>,
    ) -> ReasonCode {
        let SubscribeFilter {
            filter,
            mut options,
        } = *wanted;
        let config = &self.hub.config;
        let shared = filter.shared();
        if shared.is_some() && !config.shared_subscription_available {
            return ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;
        }
        if filter.has_wildcards() && !config.wildcard_subscription_available {
            return ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
        }
        if identifier.is_some() && !config.subscription_identifiers_available {
            return ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
        }
        options.qos = options.qos.min(config.maximum_qos);
        let Some(state) = &mut self.state else {
            return ReasonCode::UNSPECIFIED_ERROR;
        };
        let subscription = Subscription {
            options,
            identifier,
        };
        let Some(is_new) = self.hub.subscribe(state, filter, subscription) else {
            return ReasonCode::QUOTA_EXCEEDED;
        };
        let sends_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        // A shared subscription gets no retained messages when it is made (section 4.8.2).
        let cursor = RetainedCursor::new(filter);
        if sends_retained && shared.is_none() && self.hub.retained.has_match(&cursor) {
            self.output.retained.push_back(RetainedPull {
                cursor,
                qos: options.qos,
                identifier,
            });
        }
        ReasonCode(options.qos as u8)
    }

    pub(crate) fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), End> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let codes =
            unsubscribe
                .filters
                .iter()
                .map(|filter| match self.hub.unsubscribe(state, *filter) {
                    true => ReasonCode::SUCCESS,
                    false => ReasonCode::NO_SUBSCRIPTION_EXISTED,
                });
        let unsuback = UnsubAck::new(unsubscribe.packet_id, codes.collect());
        let version = self.version;
        self.answer(|out| unsuback.encode(version, out))
    }

    fn answer(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), End> {
        self.output
            .control_with(encode)
            .map_err(|error| End::violation(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR, error))
    }
}
