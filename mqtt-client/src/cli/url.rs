//! The URL of `-L`: where to connect, as whom, and the topic.

use std::path::PathBuf;

use super::UsageError;

/// A parsed `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Url {
    /// `mqtt://[user[:password]@]host[:port]/topic`, also mqtts, ws and wss.
    Network(Place),
    /// `unix:/path`; the topic stands elsewhere.
    Unix(PathBuf),
}

/// What the URL of a host says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Empty: the local host.
    pub(crate) host: String,
    /// The scheme's, if there is none in the URL: 1883, with TLS 8883.
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: bool,
    pub(crate) websocket: bool,
    /// What follows the host; never empty.
    pub(crate) topic: String,
}

impl Url {
    /// Parses the text.
    pub(crate) fn parse(text: &str) -> Result<Self, UsageError> {
        let error = |what: &str| Err(UsageError(format!("Error: {what}")));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return error("Invalid URL for -L argument specified - path missing.");
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (tls, websocket) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => (false, false),
            "mqtts" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => {
                return error("Unsupported URL scheme: it must be mqtt, mqtts, ws, wss or unix.");
            }
        };
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
            None if tls => 8883,
            None => 1883,
            Some(Ok(port)) => port,
            Some(Err(_)) => return error("Invalid URL for -L argument specified - invalid port."),
        };
        Ok(Self::Network(Place {
            host: host.to_owned(),
            port,
            username,
            password,
            tls,
            websocket,
            topic: topic.to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        match Url::parse(text).unwrap() {
            Url::Network(place) => place,
            Url::Unix(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = place("mqtt://user:pass@host:1884/a/b");
        assert_eq!(
            (url.host.as_str(), url.port, url.topic.as_str()),
            ("host", 1884, "a/b")
        );
        assert_eq!(
            (url.username.as_deref(), url.password.as_deref()),
            (Some("user"), Some("pass"))
        );
        let url = place("MQTT://[::1]:1884/#");
        assert_eq!(
            (url.host.as_str(), url.port, url.topic.as_str()),
            ("::1", 1884, "#")
        );
        let url = place("mqtt://u@h/t");
        assert_eq!(
            (url.username.as_deref(), url.password, url.port),
            (Some("u"), None, 1883)
        );
        assert_eq!(
            Url::parse("unix:/run/mqtt.sock").unwrap(),
            Url::parse("unix:///run/mqtt.sock").unwrap()
        );
    }

    #[test]
    fn schemes_have_their_transports_and_ports() {
        for (text, tls, websocket, port) in [
            ("mqtt://h/t", false, false, 1883),
            ("mqtts://h/t", true, false, 8883),
            ("ws://h/t", false, true, 1883),
            ("WSS://h/t", true, true, 8883),
            ("wss://h:443/t", true, true, 443),
        ] {
            let url = place(text);
            assert_eq!(
                (url.tls, url.websocket, url.port),
                (tls, websocket, port),
                "{text}"
            );
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for text in [
            "foo://h/t",
            "h/t",
            "mqtt://h",
            "mqtt://h/",
            "mqtts://h",
            "mqtt://h:x/t",
            "ws://h:70000/t",
            "unix:",
            "unix://",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
