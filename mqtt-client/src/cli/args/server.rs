//! The options that say where and how to connect.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args};
use mqtt_client::{ProtocolVersion, QoS};

use super::{quality, session_expiry, topic_name, version};

/// Options of every command but `bench`: where and how to connect.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Host to connect to [default: localhost, or MQTT_HOST]
    #[arg(short = 'h', long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port to connect to [default: 1883, or 8883 with TLS, or MQTT_PORT]; 8883 means TLS
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Where to connect and the topic at once: mqtt://[user[:password]@]host[:port]/topic, also mqtts, ws and wss; or unix:/path/of/socket
    #[arg(short = 'L', long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// What stands behind the URL, and so goes before it.
    #[arg(skip)]
    pub(crate) after_url: AfterUrl,
    /// Connect to this Unix domain socket
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,
    /// Connect over WebSocket
    #[arg(long)]
    pub(crate) ws: bool,
    /// Path of the WebSocket [default: /mqtt]; implies --ws
    #[arg(long, value_name = "PATH")]
    pub(crate) ws_path: Option<String>,
    /// Look up SRV records for the host, _mqtt._tcp.HOST or, with TLS, _secure-mqtt._tcp.HOST
    #[arg(short = 'S')]
    pub(crate) srv: bool,
    /// Connect through this proxy: socks5h://[user[:password]@]host[:port], or http://
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Local address to connect from
    #[arg(short = 'A', value_name = "ADDRESS")]
    pub(crate) bind_address: Option<String>,
    /// Client identifier
    #[arg(short, long, value_name = "ID", conflicts_with = "id_prefix")]
    pub(crate) id: Option<String>,
    /// Client identifier: this prefix and the process id
    #[arg(short = 'I', long, value_name = "PREFIX")]
    pub(crate) id_prefix: Option<String>,
    /// Keep the session: no clean start, and no end of it in MQTT 5
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(crate) keep_session: bool,
    /// Session expiry interval in seconds, -1 or ∞ for none (MQTT 5)
    #[arg(short = 'x', value_name = "SECONDS", value_parser = session_expiry)]
    pub(crate) session_expiry: Option<u32>,
    /// Seconds between PINGREQ packets [default: 60]
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60, hide_default_value = true, value_parser = clap::value_parser!(u16).range(5..))]
    pub(crate) keepalive: u16,
    /// Username [default: MQTT_USERNAME]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password [default: MQTT_PASSWORD]
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    pub(crate) password: Option<OsString>,
    /// Quality of service: 0, 1 or 2 [default: 0]
    #[arg(short, long, value_name = "QOS", default_value = "0", hide_default_value = true, value_parser = quality)]
    pub(crate) qos: QoS,
    /// Protocol version: 31, 311 or 5 [default: 311, of rr and doctor 5; 5 with -D or -x]
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION", value_parser = version)]
    pub(crate) version: Option<ProtocolVersion>,
    /// Property: packet, name and value, or packet, user-property, name and value (MQTT 5)
    #[arg(short = 'D', long = "property", value_name = "PACKET NAME VALUE", action = ArgAction::Append)]
    pub(crate) properties: Vec<String>,
    /// Most QoS 1 and 2 messages in flight [default: what the server allows; 20 in MQTT 3]
    #[arg(short = 'M', value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_inflight: Option<u16>,
    /// File of options, one a line [default: $XDG_CONFIG_HOME/mqtt-client/COMMAND, else $XDG_CONFIG_HOME/mosquitto_COMMAND]
    #[arg(short, value_name = "FILE")]
    options_file: Option<OsString>,
    /// Topic of the Will
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) will_topic: Option<String>,
    /// Payload of the Will
    #[arg(long, value_name = "TEXT", requires = "will_topic")]
    pub(crate) will_payload: Option<OsString>,
    /// Quality of service of the Will
    #[arg(long, value_name = "QOS", default_value = "0", hide_default_value = true, value_parser = quality)]
    pub(crate) will_qos: QoS,
    /// Retain the Will
    #[arg(long, requires = "will_topic")]
    pub(crate) will_retain: bool,
    /// Disable Nagle's algorithm
    #[arg(long)]
    pub(crate) nodelay: bool,
    /// Print each packet to standard output as it comes or leaves, and what else is of interest to standard error
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print no errors
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long = "version", action = ArgAction::Version)]
    show_version: Option<bool>,
    /// Whom to trust; last, as its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// Which options that a URL stands for as well were given after it: the later one counts, and what a file of options
/// or the environment says comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AfterUrl {
    pub(crate) host: bool,
    pub(crate) port: bool,
    pub(crate) username: bool,
    pub(crate) password: bool,
    pub(crate) topic: bool,
}

impl AfterUrl {
    /// As the arguments of a command that has a URL stand.
    pub(crate) fn of(given: &ArgMatches) -> Self {
        let place = |name: &str| {
            let is_given = given.ids().any(|id| id == name);
            is_given.then(|| given.indices_of(name)?.max()).flatten()
        };
        let Some(url) = place("url") else {
            return Self::default();
        };
        let is_after = |name: &str| place(name).is_some_and(|place| place > url);
        Self {
            host: is_after("host"),
            port: is_after("port"),
            username: is_after("username"),
            password: is_after("password"),
            topic: is_after("topic"),
        }
    }
}

/// Options of TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Use TLS, and trust the certificates of this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) cafile: Option<PathBuf>,
    /// Use TLS, and trust the certificates in the PEM files of this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) capath: Option<PathBuf>,
    /// Use TLS, and trust the certificates of the operating system
    #[arg(long)]
    pub(crate) tls_use_os_certs: bool,
    /// Certificate of this client, a PEM file
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of this client, a PEM file without a password
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Form of the private key: pem, the only one
    #[arg(long, value_name = "FORM", requires = "key", value_parser = key_form)]
    keyform: Option<String>,
    /// Oldest version of TLS: tlsv1.2 or tlsv1.3 [default: tlsv1.2]
    #[arg(long, value_name = "VERSION", value_parser = tls_version)]
    pub(crate) tls_version: Option<TlsVersion>,
    /// Protocol to offer (ALPN)
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) tls_alpn: Option<String>,
    /// Append the secrets of the connection to this file, for a program such as Wireshark
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_keylog: Option<PathBuf>,
    /// Do not check that the server's certificate is for this host: whoever has a trusted one can pose as it
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Do not use TLS, even at port 8883
    #[arg(long)]
    pub(crate) no_tls: bool,
}

/// The oldest version of TLS to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    /// 1.2 and later.
    Tls12,
    /// 1.3 and later.
    Tls13,
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "tlsv1.3" => Ok(TlsVersion::Tls13),
        "tlsv1.2" => Ok(TlsVersion::Tls12),
        "tlsv1" | "tlsv1.0" | "tlsv1.1" => Err(
            "rustls, which this program uses, has no TLS older than 1.2, as it is broken"
                .to_owned(),
        ),
        _ => Err("it must be tlsv1.2 or tlsv1.3".to_owned()),
    }
}

fn key_form(text: &str) -> Result<String, String> {
    match text {
        "pem" => Ok(text.to_owned()),
        "engine" => Err("engines are a part of OpenSSL, and this program uses rustls".to_owned()),
        _ => Err("it must be pem".to_owned()),
    }
}
