//! The sections of the configuration file but `[limits]` and `[bans]`.

use std::path::PathBuf;

use mqtt_codec::ProtocolVersion;
use serde::Deserialize;

use crate::auth::AuthSettings;
use crate::config::Durability;
use crate::settings::bans::BanSettings;
use crate::settings::describe::section;
use crate::settings::limits::LimitSettings;
use crate::settings::value::{Quality, Size, Version};
use crate::transport::{Address, Network, TlsVersion};

section! {
    /// All of a configuration file.
    struct Settings {
        /// Where what is acknowledged is kept.
        store: StoreSettings = StoreSettings::default(), "";
        /// What is logged to standard error.
        log: LogSettings = LogSettings::default(), "";
        /// How the configuration is read again while the broker runs.
        reload: ReloadSettings = ReloadSettings::default(), "";
        /// What clients may make the broker do and keep.
        limits: LimitSettings = LimitSettings::default(), "";
        /// Who is not let in.
        bans: BanSettings = BanSettings::default(), "";
        /// Who clients are, and what they may do.
        auth: AuthSettings = AuthSettings::default(), "";
        /// Addresses to listen on, each with a section of its own.
        listener: Vec<ListenerSettings> = Vec::new(), "";
    }
}

section! {
    /// Where what is acknowledged is kept.
    struct StoreSettings {
        /// Directory for sessions, their messages and retained messages; made if it does not exist.
        directory: PathBuf = PathBuf::from("mqtt-data"), "\"mqtt-data\"" at_start;
        /// Keep nothing on disk: what was acknowledged is lost when the broker ends.
        in_memory: bool = false, "false" at_start;
        /// What the acknowledgement of a message waits for that is to be kept: "disk" survives a loss of
        /// power, "os" a crash of the broker.
        durability: Durability = Durability::Disk, "\"disk\"" at_start;
    }
}

section! {
    /// What is logged to standard error.
    struct LogSettings {
        /// How much: "off", "error", "warn", "info", "debug" or "trace".
        level: LogLevel = LogLevel::Info, "\"info\"";
        /// "text" for people, "json" for one object a line.
        format: LogForm = LogForm::Text, "\"text\"" at_start;
    }
}

section! {
    /// How the configuration is read again while the broker runs: SIGHUP always asks for it.
    struct ReloadSettings {
        /// Read it again when this file, or one that it names, changes.
        watch: bool = false, "false";
    }
}

section! {
    /// One address to listen on, and what holds for those who connect there.
    struct ListenerSettings {
        /// "IP:PORT" (port 0 takes a free one), "unix:PATH", or "systemd:NUMBER" for a socket that systemd
        /// opened.
        address: Option<Address> = None, "\"127.0.0.1:1883\"";
        /// Permissions of the file of a unix socket, in octal. Without it: as the process gives them.
        mode: Option<String> = None, "\"0660\"";
        /// Whether a client is let in that does not show who it is. Must be said where other machines reach
        /// the address, unless clients show certificates.
        allow_anonymous: Option<bool> = None, "true";
        /// Versions of the protocol that are served.
        versions: Vec<Version> = ProtocolVersion::ALL.map(Version).to_vec(), "[\"3.1\", \"3.1.1\", \"5.0\"]";
        /// Highest QoS that clients may use, if lower than that of the section `limits`.
        maximum_qos: Option<Quality> = None, "1";
        /// Largest packet accepted, if smaller than that of the section `limits`.
        max_packet_size: Option<Size> = None, "\"256 KiB\"";
        /// Clients that may be connected through this listener.
        max_connections: Option<usize> = None, "1000";
        /// What the topics of its clients begin with, without their knowing: whole levels, ending with `/`.
        /// Client identifiers are told apart by it. Files of permissions name whole topics, with it. What such a client
        /// publishes to a topic that begins with `$` is an ordinary topic for the broker, since it begins with the mount
        /// point: a filter such as `#` of a client behind the same mount point matches it.
        mount_point: Option<String> = None, "\"tenant/\"";
        /// As in the section `store`, for the sessions of this listener.
        durability: Option<Durability> = None, "\"os\"";
        /// Who the clients of this listener are, and what they may do: a section [listener.auth] holds in place
        /// of all that the section `auth` says.
        auth: Option<AuthSettings> = None, "";
        /// TLS: a section [listener.tls] turns it on.
        tls: Option<TlsSettings> = None, "";
        /// WebSocket: a section [listener.websocket] turns it on.
        websocket: Option<WebSocketSettings> = None, "";
        /// PROXY protocol, versions 1 and 2: a section [listener.proxy] turns it on.
        proxy: Option<ProxySettings> = None, "";
    }
}

section! {
    /// TLS of a listener. All files are PEM, and are read again with the configuration.
    struct TlsSettings {
        /// Certificate of the server, and those between it and its root.
        certificate: Option<PathBuf> = None, "\"server.pem\"";
        /// Its private key. Nobody else should be able to read it.
        key: Option<PathBuf> = None, "\"server.key\"";
        /// Roots of the certificates of clients. Without it clients are not asked for one.
        client_authorities: Option<PathBuf> = None, "\"clients.pem\"";
        /// Whether a client without a certificate is refused, where they are asked for one.
        require_client_certificate: bool = true, "true";
        /// Lists of revoked certificates of clients (CRL).
        revocation_lists: Vec<PathBuf> = Vec::new(), "[]";
        /// Lowest version that is spoken: "1.2" or "1.3".
        minimum_version: TlsMinimum = TlsMinimum(TlsVersion::V1_2), "\"1.2\"";
    }
}

section! {
    /// WebSocket of a listener.
    struct WebSocketSettings {
        /// Path of the request.
        path: String = "/mqtt".to_owned(), "\"/mqtt\"";
        /// Origins that a browser's page may have, such as `https://example.org`; none: any.
        origins: Vec<String> = Vec::new(), "[]";
    }
}

section! {
    /// PROXY protocol of a listener.
    struct ProxySettings {
        /// Addresses and networks of the proxies. Connections from elsewhere are closed.
        trusted: Vec<Network> = Vec::new(), "[]";
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A lowest version of TLS: `"1.2"` or `"1.3"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsMinimum(pub TlsVersion);

impl<'de> Deserialize<'de> for TlsMinimum {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*String::deserialize(deserializer)? {
            "1.2" => Ok(Self(TlsVersion::V1_2)),
            "1.3" => Ok(Self(TlsVersion::V1_3)),
            other => Err(serde::de::Error::custom(format_args!(
                "\"{other}\" is no version of TLS that is spoken: \"1.2\" and \"1.3\" are"
            ))),
        }
    }
}

impl ListenerSettings {
    /// A listener on this address, everything else as by default.
    #[must_use]
    pub fn on(address: Address) -> Self {
        Self {
            address: Some(address),
            ..Self::default()
        }
    }
}
