//! Options from a URL.

use bytes::Bytes;

#[cfg(feature = "tls")]
use crate::Tls;
#[cfg(feature = "websocket")]
use crate::WebSocket;
use crate::url::Url;
use crate::{Error, Options};

impl Options {
    /// The defaults at the place that a URL names, with its user name and password (`%` sequences are
    /// decoded):
    ///
    /// | URL | | port |
    /// |---|---|---|
    /// | `mqtt://host` | TCP | 1883 |
    /// | `mqtts://host` | TLS, feature `tls` | 8883 |
    /// | `ws://host/path` | WebSocket, feature `websocket`; path `/mqtt` if none | 80 |
    /// | `wss://host/path` | WebSocket over TLS | 443 |
    /// | `unix:/path`, `unix:///path` | Unix domain socket | |
    ///
    /// `tcp` stands for `mqtt`, `ssl` and `tls` for `mqtts`.
    ///
    /// ```
    /// use mqtt_client::Options;
    ///
    /// let options = Options::from_url("mqtt://user:secret@localhost:1884")?.client_id("sensor-1");
    /// # Ok::<(), mqtt_client::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no such URL, or this build lacks the feature.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Self::unix(path.strip_prefix("//").unwrap_or(path));
        }
        let url = Url::parse(url)?;
        let (port, tls, websocket) = match url.scheme.as_str() {
            "mqtt" | "tcp" => (1883, false, false),
            "mqtts" | "ssl" | "tls" => (8883, true, false),
            "ws" => (80, false, true),
            "wss" => (443, true, true),
            scheme => {
                return Err(Error::Invalid {
                    what: "URL",
                    why: format!("{scheme} is none of mqtt, mqtts, ws, wss, unix"),
                });
            }
        };
        let mistake = match url.path {
            _ if url.host.is_empty() => Some("no host"),
            "" | "/" => None,
            _ if websocket => None,
            _ => Some("only WebSocket has a path"),
        };
        if let Some(why) = mistake {
            return Err(Error::Invalid {
                what: "URL",
                why: why.to_owned(),
            });
        }
        let mut options = Self::new(url.host, url.port.unwrap_or(port));
        options.username = url.username;
        options.password = url.password.map(Bytes::from);
        if tls {
            options = options.with_tls()?;
        }
        if websocket {
            options = options.with_websocket(url.path)?;
        }
        Ok(options)
    }

    #[cfg(unix)]
    fn unix(path: &str) -> Result<Self, Error> {
        if path.is_empty() {
            return Err(Error::Invalid {
                what: "URL",
                why: "no path of a socket".to_owned(),
            });
        }
        Ok(Self::new("localhost", 0).unix_path(path))
    }

    #[cfg(not(unix))]
    fn unix(_path: &str) -> Result<Self, Error> {
        Err(Error::Unsupported("Unix domain sockets, on this system"))
    }

    #[cfg(feature = "tls")]
    fn with_tls(self) -> Result<Self, Error> {
        Ok(self.tls(Tls::new()))
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls(self) -> Result<Self, Error> {
        Err(Error::Unsupported("TLS, without the feature `tls`"))
    }

    #[cfg(feature = "websocket")]
    fn with_websocket(self, path: &str) -> Result<Self, Error> {
        let path = if matches!(path, "" | "/") {
            "/mqtt"
        } else {
            path
        };
        Ok(self.websocket(WebSocket::new(path)))
    }

    #[cfg(not(feature = "websocket"))]
    fn with_websocket(self, _path: &str) -> Result<Self, Error> {
        Err(Error::Unsupported(
            "WebSocket, without the feature `websocket`",
        ))
    }
}
