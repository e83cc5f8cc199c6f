//! What the options say in CONNECT, and to the session.

use std::num::NonZeroU16;

use mqtt_codec::{Connect, ConnectProperties, TopicName, Will, WillProperties};
use mqtt_session::{ClientConfig, Connection, Negotiated, Time};

use crate::reconnect::new_session;
use crate::{Error, Options, message};

/// Messages in flight to a server that cannot say how many it takes.
const SEND_MAXIMUM_V3: u16 = 20;

impl Options {
    /// The CONNECT packet.
    pub(crate) fn connect(&self, clean_start: bool) -> Result<Connect<'_>, Error> {
        let will = match &self.will {
            None => None,
            Some((message, delay_interval)) => {
                let properties = message.property();
                Some(Will {
                    topic: TopicName::new(message.topic())?,
                    payload: message.payload(),
                    qos: message.quality(),
                    retain: message.is_retained(),
                    properties: WillProperties {
                        delay_interval: *delay_interval,
                        payload_format_utf8: properties.payload_format_utf8,
                        message_expiry_interval: properties.message_expiry_interval,
                        content_type: properties.content_type.as_deref(),
                        response_topic: properties
                            .response_topic
                            .as_deref()
                            .map(TopicName::new)
                            .transpose()?,
                        correlation_data: properties.correlation_data.as_deref(),
                        user_properties: message::user_properties(&properties.user_properties),
                    },
                })
            }
        };
        Ok(Connect {
            version: self.version,
            client_id: &self.client_id,
            clean_start,
            keep_alive: self.keep_alive,
            will,
            username: self.username.as_deref(),
            password: self.password.as_deref(),
            properties: ConnectProperties {
                session_expiry_interval: self.session_expiry_interval,
                receive_maximum: Some(self.receive_maximum),
                maximum_packet_size: self.maximum_packet_size,
                topic_alias_maximum: Some(self.topic_alias_maximum).filter(|maximum| *maximum > 0),
                request_response_information: self.request_response_information,
                request_problem_information: self.request_problem_information,
                authentication_method: self.authentication_method.as_deref(),
                authentication_data: self.authentication_data.as_deref(),
                user_properties: message::user_properties(&self.user_properties),
            },
        })
    }

    /// Whether the session outlives the connection, so that another one can go on with it.
    pub(crate) fn outlives_connection(&self) -> bool {
        if self.version.has_session_expiry() {
            self.session_expiry_interval
                .is_some_and(|seconds| seconds > 0)
        } else {
            !self.clean_start
        }
    }

    /// What was asked for, in the form of what holds on a connection.
    pub(crate) fn requested(&self) -> Negotiated {
        let config = self.config(self.clean_start);
        let connection = Connection::client(new_session(), config, Time::default());
        *connection.negotiated()
    }

    /// What the session machine needs to know of it.
    pub(crate) fn config(&self, clean_start: bool) -> ClientConfig {
        let mut config = ClientConfig::new(self.version);
        config.clean_start = clean_start;
        config.adopt_session = self.adopt_session;
        config.keep_alive = self.keep_alive;
        config.session_expiry_interval = self.session_expiry_interval.unwrap_or(0);
        config.receive_maximum = self.receive_maximum;
        config.maximum_packet_size = self.maximum_packet_size;
        config.topic_alias_maximum = self.topic_alias_maximum;
        let untold = if self.version.has_properties() {
            u16::MAX
        } else {
            SEND_MAXIMUM_V3
        };
        config.send_maximum = self
            .send_maximum
            .or(NonZeroU16::new(untold))
            .unwrap_or(NonZeroU16::MIN);
        config.problem_information = self.request_problem_information.unwrap_or(true);
        config.response_information = self.request_response_information.unwrap_or(false);
        config.report_sent = true;
        config
    }
}
