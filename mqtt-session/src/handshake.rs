//! CONNECT and CONNACK: how the wishes of both ends become what holds on the connection.

use core::num::NonZeroU16;

use mqtt_codec::{ConnAck, ConnAckProperties, Connect, ConnectProperties, QoS};

use crate::{ClientConfig, Error, Limits, Negotiated, Role, ServerLimits};

impl Negotiated {
    /// What holds on a connection of a server that accepts this CONNECT.
    ///
    /// The server's own Session Expiry Interval and Keep Alive replace the client's where they are
    /// smaller ([MQTT-3.1.2-21], [MQTT-3.2.2-22]); `fill_connack` tells the client.
    #[must_use]
    pub fn server(limits: &ServerLimits, connect: &Connect<'_>) -> Self {
        let version = connect.version;
        let has_properties = version.has_properties();
        let properties = &connect.properties;
        let keep_alive = match limits.keep_alive_maximum {
            Some(maximum)
                if has_properties
                    && (connect.keep_alive == 0 || connect.keep_alive > maximum.get()) =>
            {
                maximum.get()
            }
            _ => connect.keep_alive,
        };
        let wanted_expiry = if has_properties {
            properties.session_expiry_interval.unwrap_or(0)
        } else if connect.clean_start {
            0
        } else {
            u32::MAX
        };
        let outbound = if has_properties {
            Limits {
                receive_maximum: properties
                    .receive_maximum
                    .unwrap_or(NonZeroU16::MAX)
                    .min(limits.send_maximum),
                maximum_packet_size: properties.maximum_packet_size,
                topic_alias_maximum: properties
                    .topic_alias_maximum
                    .unwrap_or(0)
                    .min(limits.topic_alias_limit),
            }
        } else {
            Limits {
                receive_maximum: limits.send_maximum_v3,
                ..Limits::STANDARD
            }
        };
        let inbound = if has_properties {
            Limits {
                receive_maximum: limits.receive_maximum,
                maximum_packet_size: limits.maximum_packet_size,
                topic_alias_maximum: limits.topic_alias_maximum,
            }
        } else {
            Limits {
                maximum_packet_size: limits.maximum_packet_size,
                ..Limits::STANDARD
            }
        };
        Self {
            role: Role::Server,
            version,
            keep_alive,
            clean_start: connect.clean_start,
            session_present: false,
            session_expiry_interval: wanted_expiry.min(limits.session_expiry_maximum),
            inbound,
            outbound,
            maximum_qos: limits.maximum_qos,
            retain_available: limits.retain_available,
            wildcard_subscription_available: limits.wildcard_subscription_available,
            subscription_identifiers_available: limits.subscription_identifiers_available,
            shared_subscription_available: limits.shared_subscription_available,
            problem_information: properties.request_problem_information.unwrap_or(true),
            response_information: properties.request_response_information.unwrap_or(false),
        }
    }

    /// Fills in the properties of a successful CONNACK: only what differs from what the standard
    /// assumes without them, or from what the client asked for. Of no use in v3.
    pub fn fill_connack(&self, connect: &Connect<'_>, properties: &mut ConnAckProperties<'_>) {
        if !self.version.has_properties() {
            return;
        }
        let no = |available: bool| (!available).then_some(false);
        let wanted_expiry = connect.properties.session_expiry_interval.unwrap_or(0);
        properties.session_expiry_interval =
            (self.session_expiry_interval != wanted_expiry).then_some(self.session_expiry_interval);
        properties.receive_maximum = (self.inbound.receive_maximum != NonZeroU16::MAX)
            .then_some(self.inbound.receive_maximum);
        properties.maximum_qos = (self.maximum_qos != QoS::ExactlyOnce).then_some(self.maximum_qos);
        properties.retain_available = no(self.retain_available);
        properties.maximum_packet_size = self.inbound.maximum_packet_size;
        properties.topic_alias_maximum =
            (self.inbound.topic_alias_maximum != 0).then_some(self.inbound.topic_alias_maximum);
        properties.wildcard_subscription_available = no(self.wildcard_subscription_available);
        properties.subscription_identifiers_available = no(self.subscription_identifiers_available);
        properties.shared_subscription_available = no(self.shared_subscription_available);
        properties.server_keep_alive =
            (self.keep_alive != connect.keep_alive).then_some(self.keep_alive);
    }

    /// What a client asks for, before the server has spoken: nothing is known of its limits.
    pub(crate) fn client(config: &ClientConfig) -> Self {
        let has_properties = config.version.has_properties();
        let inbound = if has_properties {
            Limits {
                receive_maximum: config.receive_maximum,
                maximum_packet_size: config.maximum_packet_size,
                topic_alias_maximum: config.topic_alias_maximum,
            }
        } else {
            Limits {
                maximum_packet_size: config.maximum_packet_size,
                ..Limits::STANDARD
            }
        };
        let session_expiry_interval = match (has_properties, config.clean_start) {
            (true, _) => config.session_expiry_interval,
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        Self {
            role: Role::Client,
            version: config.version,
            keep_alive: config.keep_alive,
            clean_start: config.clean_start,
            session_present: false,
            session_expiry_interval,
            inbound,
            outbound: Limits {
                receive_maximum: config.send_maximum,
                ..Limits::STANDARD
            },
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            problem_information: config.problem_information,
            response_information: config.response_information,
        }
    }

    /// Takes in the server's answer. `known`: the client has state of this session.
    pub(crate) fn handle_connack(
        &mut self,
        config: &ClientConfig,
        connack: &ConnAck<'_>,
        known: bool,
    ) -> Result<(), Error> {
        if connack.reason_code.is_error() {
            return Err(Error::Refused {
                reason: connack.reason_code,
            });
        }
        // MQTT 3.1 does not say: a client that did not ask for a clean session goes on with its own.
        let says_so = self.version.has_session_present();
        self.session_present = if says_so {
            connack.session_present
        } else {
            known && !self.clean_start
        };
        // [MQTT-3.2.2-4], and a clean start has no session to be present.
        if self.session_present && (self.clean_start || !(known || config.adopt_session)) {
            return Err(Error::SessionPresent);
        }
        if !self.version.has_properties() {
            return Ok(());
        }
        let properties = &connack.properties;
        self.keep_alive = properties.server_keep_alive.unwrap_or(self.keep_alive);
        self.session_expiry_interval = properties
            .session_expiry_interval
            .unwrap_or(self.session_expiry_interval);
        self.outbound = Limits {
            receive_maximum: properties
                .receive_maximum
                .unwrap_or(NonZeroU16::MAX)
                .min(config.send_maximum),
            maximum_packet_size: properties.maximum_packet_size,
            topic_alias_maximum: properties
                .topic_alias_maximum
                .unwrap_or(0)
                .min(config.topic_alias_limit),
        };
        self.maximum_qos = properties.maximum_qos.unwrap_or(QoS::ExactlyOnce);
        self.retain_available = properties.retain_available.unwrap_or(true);
        self.wildcard_subscription_available =
            properties.wildcard_subscription_available.unwrap_or(true);
        self.subscription_identifiers_available = properties
            .subscription_identifiers_available
            .unwrap_or(true);
        self.shared_subscription_available =
            properties.shared_subscription_available.unwrap_or(true);
        Ok(())
    }
}

impl ClientConfig {
    /// The properties of the CONNECT that asks for this: only what differs from what the standard
    /// assumes without them. Of no use in v3.
    #[must_use]
    pub fn connect_properties<'a>(&self) -> ConnectProperties<'a> {
        let mut properties = ConnectProperties::default();
        if !self.version.has_properties() {
            return properties;
        }
        properties.session_expiry_interval =
            (self.session_expiry_interval != 0).then_some(self.session_expiry_interval);
        properties.receive_maximum =
            (self.receive_maximum != NonZeroU16::MAX).then_some(self.receive_maximum);
        properties.maximum_packet_size = self.maximum_packet_size;
        properties.topic_alias_maximum =
            (self.topic_alias_maximum != 0).then_some(self.topic_alias_maximum);
        properties.request_problem_information = (!self.problem_information).then_some(false);
        properties.request_response_information = self.response_information.then_some(true);
        properties
    }
}
