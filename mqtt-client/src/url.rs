//! URLs of servers: `mqtt://`, `mqtts://`, `ws://`, `wss://`, `unix:`, and those of proxies.

use crate::Error;

/// A URL taken apart, `%` sequences decoded in user name, password and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    /// Lower case.
    pub(crate) scheme: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// An IPv6 address without brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    /// With its first `/`, and a query; empty if there is none.
    pub(crate) path: &'a str,
}

fn invalid(why: impl Into<String>) -> Error {
    Error::Invalid {
        what: "URL",
        why: why.into(),
    }
}

impl<'a> Url<'a> {
    /// Takes `scheme://user:password@host:port/path` apart.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Error> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("no scheme such as mqtt://"))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, "")))
        {
            None => (None, None),
            Some((name, password)) => {
                let name = String::from_utf8(decoded(name)?)
                    .map_err(|_| invalid("the user name is not UTF-8"))?;
                let has_password = user.is_some_and(|user| user.contains(':'));
                let password = has_password.then(|| decoded(password)).transpose()?;
                (Some(name), password)
            }
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once(']')
                    .ok_or_else(|| invalid("an address without its closing bracket"))?;
                match port.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if port.is_empty() => (host, None),
                    None => return Err(invalid("something between address and port")),
                }
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port
            .filter(|port| !port.is_empty())
            .map(|port| {
                port.parse()
                    .map_err(|_| invalid(format!("{port:?} is no port")))
            })
            .transpose()?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            username,
            password,
            host,
            port,
            path,
        })
    }
}

/// Decodes `%` sequences.
fn decoded(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(invalid("a % without two hexadecimal digits"));
        };
        out.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found() {
        let url = Url::parse("MQTT://us%40er:p%3a%25@host:1884/a/b?c").unwrap();
        assert_eq!(url.scheme, "mqtt");
        assert_eq!(url.username.as_deref(), Some("us@er"));
        assert_eq!(url.password.as_deref(), Some(&b"p:%"[..]));
        assert_eq!(
            (url.host, url.port, url.path),
            ("host", Some(1884), "/a/b?c")
        );
        let url = Url::parse("wss://[::1]:443/mqtt").unwrap();
        assert_eq!((url.host, url.port, url.path), ("::1", Some(443), "/mqtt"));
        let url = Url::parse("mqtt://[::1]").unwrap();
        assert_eq!((url.host, url.port, url.path), ("::1", None, ""));
        let url = Url::parse("mqtt://name@host").unwrap();
        assert_eq!(url.username.as_deref(), Some("name"));
        assert_eq!(url.password, None);
        let url = Url::parse("mqtt://name:@host").unwrap();
        assert_eq!(url.password.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn mistakes_are_found() {
        for text in [
            "",
            "host",
            "mqtt:host",
            "mqtt://[::1",
            "mqtt://[::1]1",
            "mqtt://host:x",
            "mqtt://host:70000",
            "mqtt://u%4:x@host",
            "mqtt://u%zz@host",
            "mqtt://%ff@host",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }
}
