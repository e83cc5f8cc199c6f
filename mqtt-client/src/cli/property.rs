//! `-D command property value`: MQTT 5 properties given on the command line.

use mqtt_client::{
    DisconnectOptions, MessageProperties, Options, SubscribeOptions, SubscriptionIdentifier,
};

use super::UsageError;
use super::argv::SEPARATOR;

/// All properties given, by the packet they go into.
#[derive(Debug, Clone, Default)]
pub(crate) struct Properties {
    connect: Vec<Connect>,
    /// Properties of the messages to publish.
    pub(crate) publish: MessageProperties,
    /// Properties of the Will.
    pub(crate) will: MessageProperties,
    /// Will Delay Interval in seconds.
    pub(crate) will_delay: Option<u32>,
    /// User properties of SUBSCRIBE.
    subscribe: Vec<(String, String)>,
    /// Subscription Identifier of SUBSCRIBE.
    subscription_identifier: Option<SubscriptionIdentifier>,
    /// User properties of UNSUBSCRIBE.
    pub(crate) unsubscribe: Vec<(String, String)>,
    /// Properties of DISCONNECT.
    pub(crate) disconnect: DisconnectOptions,
}

#[derive(Debug, Clone)]
enum Connect {
    AuthenticationMethod(String),
    AuthenticationData(Vec<u8>),
    MaximumPacketSize(u32),
    ReceiveMaximum(u16),
    RequestProblemInformation(bool),
    RequestResponseInformation(bool),
    SessionExpiryInterval(u32),
    TopicAliasMaximum(u16),
    User(String, String),
}

/// Every property of the standard, to tell a wrong name from a wrong place.
const NAMES: &[&str] = &[
    "payload-format-indicator",
    "message-expiry-interval",
    "content-type",
    "response-topic",
    "correlation-data",
    "subscription-identifier",
    "session-expiry-interval",
    "assigned-client-identifier",
    "server-keep-alive",
    "authentication-method",
    "authentication-data",
    "request-problem-information",
    "will-delay-interval",
    "request-response-information",
    "response-information",
    "server-reference",
    "reason-string",
    "receive-maximum",
    "topic-alias-maximum",
    "topic-alias",
    "maximum-qos",
    "retain-available",
    "user-property",
    "maximum-packet-size",
    "wildcard-subscription-available",
    "subscription-identifier-available",
    "shared-subscription-available",
];

impl Properties {
    /// What goes into SUBSCRIBE besides the filters.
    pub(crate) fn of_subscribe(&self) -> SubscribeOptions {
        let mut options = SubscribeOptions::new();
        if let Some(identifier) = self.subscription_identifier {
            options = options.identifier(identifier);
        }
        for (name, value) in &self.subscribe {
            options = options.user_property(name, value);
        }
        options
    }

    /// Reads the folded arguments of all `-D`.
    pub(crate) fn parse<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Self, UsageError> {
        let mut all = Self::default();
        for property in given {
            let mut parts = property.split(SEPARATOR);
            let mut part = || parts.next().unwrap_or_default();
            all.add(part(), part(), part(), part())?;
        }
        Ok(all)
    }

    /// Sets what was given for CONNECT.
    pub(crate) fn apply_to_connect(&self, mut options: Options) -> Options {
        for property in &self.connect {
            options = match property.clone() {
                Connect::AuthenticationMethod(name) => options.authentication_method(name),
                Connect::AuthenticationData(data) => options.authentication_data(data),
                Connect::MaximumPacketSize(size) => options.maximum_packet_size(size),
                Connect::ReceiveMaximum(count) => options.receive_maximum(count),
                Connect::RequestProblemInformation(wanted) => {
                    options.request_problem_information(wanted)
                }
                Connect::RequestResponseInformation(wanted) => {
                    options.request_response_information(wanted)
                }
                Connect::SessionExpiryInterval(seconds) => options.session_expiry_interval(seconds),
                Connect::TopicAliasMaximum(count) => options.topic_alias_maximum(count),
                Connect::User(name, value) => options.user_property(name, value),
            };
        }
        options
    }

    fn add(
        &mut self,
        command: &str,
        name: &str,
        value: &str,
        second: &str,
    ) -> Result<(), UsageError> {
        let command = command.to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        let pair = || (value.to_owned(), second.to_owned());
        match (command.as_str(), name.as_str()) {
            ("connect", _) => {
                let property = match name.as_str() {
                    "authentication-method" => Connect::AuthenticationMethod(value.to_owned()),
                    "authentication-data" => Connect::AuthenticationData(value.as_bytes().to_vec()),
                    "maximum-packet-size" => Connect::MaximumPacketSize(positive(&name, value)?),
                    "receive-maximum" => Connect::ReceiveMaximum(positive(&name, value)?),
                    "request-problem-information" => {
                        Connect::RequestProblemInformation(flag(&name, value)?)
                    }
                    "request-response-information" => {
                        Connect::RequestResponseInformation(flag(&name, value)?)
                    }
                    "session-expiry-interval" => {
                        Connect::SessionExpiryInterval(number(&name, value)?)
                    }
                    "topic-alias-maximum" => Connect::TopicAliasMaximum(number(&name, value)?),
                    "user-property" => Connect::User(value.to_owned(), second.to_owned()),
                    _ => return Err(misplaced(&command, &name)),
                };
                self.connect.push(property);
            }
            ("will", "will-delay-interval") => self.will_delay = Some(number(&name, value)?),
            ("will", _) => message(&mut self.will, &command, &name, value, second)?,
            // The alias itself is chosen by the connection, within what the server takes.
            ("publish", "topic-alias") => positive::<u16>(&name, value).map(drop)?,
            ("publish", _) => message(&mut self.publish, &command, &name, value, second)?,
            ("subscribe", "user-property") => self.subscribe.push(pair()),
            ("subscribe", "subscription-identifier") => {
                let identifier = number(&name, value)?;
                let identifier = SubscriptionIdentifier::new(identifier).ok_or_else(|| {
                    UsageError(format!(
                        "Error: Property value ({value}) out of range for property {name}."
                    ))
                })?;
                self.subscription_identifier = Some(identifier);
            }
            ("unsubscribe", "user-property") => self.unsubscribe.push(pair()),
            ("disconnect", "user-property") => {
                let (name, value) = pair();
                self.disconnect = std::mem::take(&mut self.disconnect).user_property(name, value);
            }
            ("disconnect", "session-expiry-interval") => {
                let seconds = number(&name, value)?;
                self.disconnect =
                    std::mem::take(&mut self.disconnect).session_expiry_interval(seconds);
            }
            _ => return Err(misplaced(&command, &name)),
        }
        Ok(())
    }
}

fn message(
    into: &mut MessageProperties,
    command: &str,
    name: &str,
    value: &str,
    second: &str,
) -> Result<(), UsageError> {
    match name {
        "payload-format-indicator" => into.payload_format_utf8 = Some(flag(name, value)?),
        "message-expiry-interval" => into.message_expiry_interval = Some(number(name, value)?),
        "content-type" => into.content_type = Some(value.to_owned()),
        "response-topic" => {
            mqtt_client::TopicName::new(value).map_err(|error| {
                UsageError(format!("Error: Invalid response-topic '{value}': {error}."))
            })?;
            into.response_topic = Some(value.to_owned());
        }
        "correlation-data" => into.correlation_data = Some(value.as_bytes().to_vec().into()),
        "user-property" => into
            .user_properties
            .push((value.to_owned(), second.to_owned())),
        _ => return Err(misplaced(command, name)),
    }
    Ok(())
}

fn misplaced(command: &str, name: &str) -> UsageError {
    const COMMANDS: &[&str] = &[
        "connect",
        "connack",
        "publish",
        "puback",
        "pubrec",
        "pubrel",
        "pubcomp",
        "subscribe",
        "suback",
        "unsubscribe",
        "unsuback",
        "disconnect",
        "auth",
        "will",
    ];
    UsageError(if !COMMANDS.contains(&command) {
        format!("Error: Invalid command {command} given in --property argument.")
    } else if !NAMES.contains(&name) {
        format!("Error: Invalid property name {name} given in --property argument.")
    } else {
        format!("Error: {name} property not allowed for {command} in --property argument.")
    })
}

fn number<T: TryFrom<u64>>(name: &str, value: &str) -> Result<T, UsageError> {
    let parsed: u64 = value.parse().map_err(|_| {
        UsageError(format!(
            "Error: Property value '{value}' of {name} is not a number."
        ))
    })?;
    T::try_from(parsed).map_err(|_| {
        UsageError(format!(
            "Error: Property value ({value}) out of range for property {name}."
        ))
    })
}

fn positive<T: TryFrom<u64>>(name: &str, value: &str) -> Result<T, UsageError> {
    match number::<u64>(name, value)? {
        0 => Err(UsageError(format!(
            "Error: Property value (0) out of range for property {name}."
        ))),
        _ => number(name, value),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, UsageError> {
    match number::<u64>(name, value)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(UsageError(format!(
            "Error: Property value ({value}) out of range for property {name}."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Properties, UsageError> {
        Properties::parse([text.replace(' ', "\0").as_str()])
    }

    #[test]
    fn message_properties_are_set() {
        let all = Properties::parse([
            "publish\0content-type\0text/plain",
            "PUBLISH\0user-property\0a\0b",
            "publish\0payload-format-indicator\x001",
            "publish\0message-expiry-interval\x004294967295",
            "will\0correlation-data\0c d",
            "will\0will-delay-interval\x005",
        ])
        .unwrap();
        assert_eq!(all.publish.content_type.as_deref(), Some("text/plain"));
        assert_eq!(
            all.publish.user_properties,
            [("a".to_owned(), "b".to_owned())]
        );
        assert_eq!(all.publish.payload_format_utf8, Some(true));
        assert_eq!(all.publish.message_expiry_interval, Some(u32::MAX));
        assert_eq!(all.will.correlation_data.as_deref(), Some(&b"c d"[..]));
        assert_eq!(all.will_delay, Some(5));
    }

    #[test]
    fn mistakes_are_told_apart() {
        for (text, expected) in [
            ("bogus user-property a b", "Invalid command bogus"),
            ("publish bogus 1", "Invalid property name bogus"),
            (
                "subscribe content-type x",
                "content-type property not allowed for subscribe",
            ),
            ("connect will-delay-interval 4", "not allowed for connect"),
            ("publish receive-maximum 4", "not allowed for publish"),
            ("publish message-expiry-interval x", "not a number"),
            ("connect receive-maximum 65536", "out of range"),
            ("connect receive-maximum 0", "out of range"),
            ("publish payload-format-indicator 2", "out of range"),
            ("publish response-topic a/#", "response-topic"),
            ("auth reason-string x", "not allowed for auth"),
            ("subscribe subscription-identifier 0", "out of range"),
            (
                "subscribe subscription-identifier 268435456",
                "out of range",
            ),
        ] {
            let error = parse(text).unwrap_err().0;
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
