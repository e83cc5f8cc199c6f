//! From the common options to a connection.

use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use mqtt_client::{
    Client, Error, Incoming, Message, Options, ProtocolVersion, Proxy, QoS, Tls, TopicName,
    WebSocket,
};

use super::args::CommonArgs;
use super::property::Properties;
use super::url::Url;
use super::{Failure, UsageError, service, tls};

/// The bytes of an argument, as the system passed them.
pub(crate) fn bytes(text: OsString) -> Vec<u8> {
    text.into_encoded_bytes()
}

/// What the commands have in common after their arguments are read.
pub(crate) struct Setup {
    /// How to connect.
    pub(crate) options: Options,
    /// The properties of `-D`.
    pub(crate) properties: Properties,
    /// The version in use.
    pub(crate) version: ProtocolVersion,
    /// The topic of `-L`.
    pub(crate) url_topic: Option<String>,
    /// Another one stands behind it.
    topic_is_after: bool,
    /// The name whose SRV records say where to connect.
    pub(crate) service: Option<String>,
    /// Where the options lead.
    pub(crate) destination: Destination,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Over TCP.
    Host {
        host: String,
        port: u16,
        /// With TLS, for the certificate of which name.
        tls: Option<String>,
    },
    /// On this machine.
    Unix(PathBuf),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Setup {
    /// Checks the common options against each other and turns them into connect options; `default` is
    /// the version if none is asked for.
    pub(crate) fn new(common: &CommonArgs, default: ProtocolVersion) -> Result<Self, UsageError> {
        let properties = Properties::parse(common.properties.iter().map(String::as_str))?;
        let needs_properties = !common.properties.is_empty() || common.session_expiry.is_some();
        let version = match common.version {
            _ if needs_properties => ProtocolVersion::V5,
            Some(version) => version,
            None => default,
        };
        let Server {
            options,
            service,
            username,
            password,
            topic: url_topic,
            destination,
        } = server(common)?;
        let mut options = options
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
        let username = username.or_else(|| common.username.clone());
        let password = password
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
        Ok(Self {
            options,
            properties,
            version,
            url_topic,
            topic_is_after: common.after_url.topic,
            service,
            destination,
        })
    }

    /// The topic of `-L` or of `-t`, whichever stands later.
    pub(crate) fn topic(&self, given: Option<&String>) -> Option<String> {
        let (first, second) = match self.topic_is_after {
            true => (given, self.url_topic.as_ref()),
            false => (self.url_topic.as_ref(), given),
        };
        first.or(second).cloned()
    }

    /// Connects; with SRV records to the first of the servers that can be reached.
    pub(crate) async fn connect(&self) -> Result<(Client, Incoming), Failure> {
        let mut places = match &self.service {
            None => vec![self.options.clone()],
            Some(name) => {
                let servers = service::look_up(name).await.map_err(Failure::Message)?;
                let options =
                    |server: service::Server| self.options.clone().server(server.host, server.port);
                servers.into_iter().map(options).collect()
            }
        }
        .into_iter();
        let mut failure = Error::ConnectionLost;
        for options in places.by_ref() {
            match Client::connect(options).await {
                Ok(client) => {
                    let incoming = client.unclaimed();
                    return Ok((client, incoming));
                }
                Err(error @ (Error::Io(_) | Error::TimedOut)) => failure = error,
                Err(error) => {
                    failure = error;
                    break;
                }
            }
        }
        Err(Failure::Connection(failure, self.version))
    }
}

/// Where to connect, and what a URL says besides.
struct Server {
    options: Options,
    service: Option<String>,
    username: Option<String>,
    password: Option<String>,
    topic: Option<String>,
    destination: Destination,
}

/// What the options of host, port, URL and transport say together.
fn server(common: &CommonArgs) -> Result<Server, UsageError> {
    let url = common.url.as_deref().map(Url::parse).transpose()?;
    let (place, socket) = match url {
        Some(Url::Network(place)) => (Some(place), None),
        Some(Url::Unix(path)) => (None, Some(path)),
        None => (None, common.unix.clone()),
    };
    let topic = place.as_ref().map(|place| place.topic.clone());
    let is_url = place.is_some();
    let mut place = place.unwrap_or_default();
    let after = common.after_url;
    if let Some(host) = common.host.clone().filter(|_| after.host || !is_url) {
        place.host = host;
    }
    if let Some(port) = common.port.filter(|_| after.port || !is_url) {
        place.port = port;
    }
    place.username = place.username.filter(|_| !after.username);
    place.password = place.password.filter(|_| !after.password);
    let args = &common.tls;
    let trusted = args.cafile.is_some() || args.capath.is_some() || args.tls_use_os_certs;
    let mistake = |text: &str| Err(UsageError(format!("Error: {text}")));
    if args.no_tls && place.tls {
        return mistake("--no-tls does not go with a URL that asks for TLS.");
    }
    let with_tls =
        !args.no_tls && (trusted || place.tls || (place.port == 8883 && socket.is_none()));
    if !with_tls && !args.no_tls && (args.cert.is_some() || args.insecure) {
        return mistake(
            "--cert, --key and --insecure are for TLS: add --cafile, --capath or --tls-use-os-certs.",
        );
    }
    let host = match place.host.is_empty() {
        true => "localhost".to_owned(),
        false => place.host,
    };
    let port = match (place.port, with_tls) {
        (0, true) => 8883,
        (0, false) => 1883,
        (port, _) => port,
    };
    let mut options = Options::new(&host, port);
    let local = socket.is_some();
    let destination = match &socket {
        Some(path) => Destination::Unix(path.clone()),
        None => Destination::Host {
            host: host.clone(),
            port,
            tls: with_tls.then(|| host.clone()),
        },
    };
    if let Some(path) = socket {
        options = options.unix_path(path);
    }
    if with_tls {
        let mut settings: Tls = tls::settings(args)?;
        if common.srv {
            // A forged record must not choose the name that is checked.
            settings = settings.server_name(&host);
        }
        options = options.tls(settings);
    }
    if place.websocket || common.ws || common.ws_path.is_some() {
        options = options.websocket(match &common.ws_path {
            Some(path) => WebSocket::new(path),
            None => WebSocket::default(),
        });
    }
    if let Some(url) = &common.proxy {
        if local {
            return mistake("A proxy cannot reach a Unix socket.");
        }
        let proxy = Proxy::from_url(url)
            .map_err(|error| UsageError(format!("Error: Invalid --proxy: {error}.")))?;
        options = options.proxy(proxy);
    }
    let service = match (common.srv, local) {
        (false, _) => None,
        (true, true) => return mistake("A Unix socket has no SRV records."),
        (true, false) => Some(service::name(&host, with_tls)),
    };
    Ok(Server {
        options,
        service,
        username: place.username,
        password: place.password,
        topic,
        destination,
    })
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
