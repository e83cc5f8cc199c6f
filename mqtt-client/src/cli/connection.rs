//! From the common options to a connection.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};

use mqtt_client::{Client, Incoming, Message, Options, ProtocolVersion, QoS, TopicName};

use super::args::CommonArgs;
use super::property::Properties;
use super::{Failure, UsageError};

/// A parsed `-L`: `mqtt://[user[:password]@]host[:port]/topic`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Url {
    host: String,
    port: Option<u16>,
    username: Option<String>,
    password: Option<String>,
    /// What follows the host; never empty.
    pub(crate) topic: String,
}

impl Url {
    /// Parses the text.
    pub(crate) fn parse(text: &str) -> Result<Self, UsageError> {
        let error = |what: &str| Err(UsageError(format!("Error: {what}")));
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => {}
            "mqtts" | "wss" => {
                return error("-L is not available with TLS: this client has no TLS support.");
            }
            "ws" => {
                return error("-L is not available with ws: this client has no WebSocket support.");
            }
            _ => return error("Unsupported URL scheme."),
        }
        let Some((authority, topic)) = rest.split_once('/').filter(|(_, topic)| !topic.is_empty())
        else {
            return error("Invalid URL for -L argument specified - topic missing.");
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, "")))
        {
            None => (None, None),
            Some((name, "")) => (Some(name.to_owned()), None),
            Some((name, password)) => (Some(name.to_owned()), Some(password.to_owned())),
        };
        // An IPv6 address stands in brackets.
        let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => host
                .split_once(':')
                .map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return error("Invalid URL for -L argument specified - invalid port."),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            username,
            password,
            topic: topic.to_owned(),
        })
    }
}

/// The bytes of an argument, as the system passed them.
pub(crate) fn bytes(text: OsString) -> Vec<u8> {
    text.into_encoded_bytes()
}

/// What `pub` and `sub` have in common after their arguments are read.
pub(crate) struct Setup {
    /// How to connect.
    pub(crate) options: Options,
    /// The properties of `-D`.
    pub(crate) properties: Properties,
    /// The version in use.
    pub(crate) version: ProtocolVersion,
    /// The topic of `-L`.
    pub(crate) url_topic: Option<String>,
}

impl Setup {
    /// Checks the common options against each other and turns them into connect options.
    pub(crate) fn new(common: &CommonArgs) -> Result<Self, UsageError> {
        let url = common
            .url
            .as_deref()
            .map(Url::parse)
            .transpose()?
            .unwrap_or_default();
        let properties = Properties::parse(common.properties.iter().map(String::as_str))?;
        let needs_properties = !common.properties.is_empty() || common.session_expiry.is_some();
        let version = match common.version {
            _ if needs_properties => ProtocolVersion::V5,
            Some(version) => version,
            None => ProtocolVersion::V3_1_1,
        };
        let host = common
            .host
            .clone()
            .filter(|_| common.url.is_none())
            .or(Some(url.host));
        let host = host
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| "localhost".to_owned());
        let port = if common.url.is_some() {
            url.port
        } else {
            common.port
        }
        .unwrap_or(1883);

        let mut options = Options::new(host, port)
            .version(version)
            .clean_start(!common.keep_session)
            .adopt_session(common.keep_session)
            .keep_alive(common.keepalive)
            .nodelay(common.nodelay);
        options = properties.apply_to_connect(options);
        let expiry = common
            .session_expiry
            .or(common.keep_session.then_some(u32::MAX));
        if let Some(expiry) = expiry.filter(|_| version.has_session_expiry()) {
            if expiry == u32::MAX && common.id.is_none() {
                return Err(UsageError(
                    "Error: You must provide a client id if you are using an infinite session expiry interval."
                        .to_owned(),
                ));
            }
            options = options.session_expiry_interval(expiry);
        } else if common.keep_session && common.id.is_none() {
            return Err(UsageError(
                "Error: You must provide a client id if you are using the -c option.".to_owned(),
            ));
        }
        if let Some(id) = client_id(common, version) {
            options = options.client_id(id);
        }
        if let Some(address) = &common.bind_address {
            options = options.bind_address(address);
        }
        if let Some(count) = common.max_inflight {
            options = options.send_maximum(count);
        }
        let username = url.username.or_else(|| common.username.clone());
        let password = url
            .password
            .map(OsString::from)
            .or_else(|| common.password.clone());
        if password.is_some() && username.is_none() && !version.has_password_without_username() {
            return Err(UsageError(format!(
                "Error: A password needs a username (-u) in MQTT {version}."
            )));
        }
        if let Some(name) = username {
            options = options.username(name);
        }
        if let Some(password) = password {
            options = options.password(bytes(password));
        }
        if let Some(topic) = &common.will_topic {
            let payload = bytes(common.will_payload.clone().unwrap_or_default());
            let will = Message::new(topic, payload)
                .map_err(|error| {
                    UsageError(format!("Error: Invalid will topic '{topic}': {error}."))
                })?
                .qos(common.will_qos)
                .retain(common.will_retain)
                .properties(properties.will.clone());
            options = options.will(will, properties.will_delay);
        } else if common.will_qos != QoS::AtMostOnce {
            return Err(UsageError(
                "Error: Will QoS given, but no will topic given.".to_owned(),
            ));
        }
        let url_topic = common.url.is_some().then_some(url.topic);
        Ok(Self {
            options,
            properties,
            version,
            url_topic,
        })
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<(Client, Incoming), Failure> {
        let connected = Client::connect(self.options.clone()).await;
        let client = connected.map_err(|error| Failure::Connection(error, self.version))?;
        let incoming = client.unclaimed();
        Ok((client, incoming))
    }
}

fn client_id(common: &CommonArgs, version: ProtocolVersion) -> Option<String> {
    match (&common.id, &common.id_prefix) {
        (Some(id), _) => Some(id.clone()),
        (None, Some(prefix)) => Some(format!("{prefix}{}", std::process::id())),
        (None, None) if version.has_empty_client_id() => None,
        // 23 characters at most, in 3.1.
        (None, None) => Some(format!(
            "mqtt-{:016x}",
            RandomState::new().hash_one(std::process::id())
        )),
    }
}

/// Whether a topic of `-L` can be published to.
pub(crate) fn publishable(topic: &str) -> Result<(), UsageError> {
    TopicName::new(topic).map(drop).map_err(|_| {
        UsageError(format!(
            "Error: Invalid publish topic '{topic}', does it contain '+' or '#'?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("mqtt://user:pass@host:1884/a/b").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.topic.as_str()),
            ("host", Some(1884), "a/b")
        );
        assert_eq!(
            (url.username.as_deref(), url.password.as_deref()),
            (Some("user"), Some("pass"))
        );
        let url = Url::parse("MQTT://[::1]:1884/#").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.topic.as_str()),
            ("::1", Some(1884), "#")
        );
        let url = Url::parse("mqtt://u@h/t").unwrap();
        assert_eq!(
            (url.username.as_deref(), url.password, url.port),
            (Some("u"), None, None)
        );
        for text in [
            "mqtts://h/t",
            "ws://h/t",
            "foo://h/t",
            "h/t",
            "mqtt://h",
            "mqtt://h/",
            "mqtt://h:x/t",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
