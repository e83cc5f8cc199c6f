//! How to connect: the builder of CONNECT and of the limits of this end.

mod connect;
mod disconnect;
mod url;

use std::num::{NonZeroU16, NonZeroU32};
#[cfg(unix)]
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use mqtt_codec::ProtocolVersion;

use crate::authentication::Authentication;
#[cfg(feature = "outbox")]
use crate::outbox::Outbox;
#[cfg(feature = "proxy")]
use crate::transport::proxy::Proxy;
#[cfg(feature = "tls")]
use crate::transport::tls::Tls;
#[cfg(feature = "websocket")]
use crate::transport::websocket::WebSocket;
use crate::{Authenticator, Message};

pub use disconnect::DisconnectOptions;

/// Where and how to connect. Every method takes and returns the options.
///
/// ```
/// use mqtt_client::{Options, ProtocolVersion};
///
/// let options = Options::new("localhost", 1883)
///     .version(ProtocolVersion::V5)
///     .client_id("sensor-1")
///     .clean_start(false)
///     .session_expiry_interval(3600);
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    #[cfg(unix)]
    pub(crate) unix_path: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
    #[cfg(feature = "websocket")]
    pub(crate) websocket: Option<WebSocket>,
    #[cfg(feature = "proxy")]
    pub(crate) proxy: Option<Proxy>,
    pub(crate) bind_address: Option<String>,
    pub(crate) nodelay: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) version: ProtocolVersion,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) adopt_session: bool,
    pub(crate) keep_alive: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
    pub(crate) will: Option<(Message, Option<u32>)>,
    pub(crate) session_expiry_interval: Option<u32>,
    pub(crate) receive_maximum: NonZeroU16,
    pub(crate) maximum_packet_size: Option<NonZeroU32>,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) request_response_information: Option<bool>,
    pub(crate) request_problem_information: Option<bool>,
    pub(crate) authentication_method: Option<String>,
    pub(crate) authentication_data: Option<Bytes>,
    pub(crate) user_properties: Vec<(String, String)>,
    pub(crate) send_maximum: Option<NonZeroU16>,
    pub(crate) queue_capacity: usize,
    pub(crate) unreliable_capacity: usize,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) reconnect: Option<Backoff>,
    pub(crate) when_uncertain: Uncertain,
    pub(crate) redirections: u32,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) response_topic: Option<String>,
    #[cfg(feature = "outbox")]
    pub(crate) outbox: Option<Outbox>,
}

/// What becomes of a message of QoS 2 that was sent, but not taken over (PUBREC), when the server loses
/// the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Uncertain {
    /// Its receipt resolves to [`Error::Uncertain`](crate::Error::Uncertain): the message is not sent
    /// again, so that it does not arrive twice.
    #[default]
    Tell,
    /// It is published anew: it arrives, perhaps twice.
    PublishAnew,
}

/// When a received message of QoS 1 or 2 is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Acknowledge {
    /// When it is taken out of its stream.
    #[default]
    WhenTaken,
    /// By [`Received::acknowledge`](crate::Received::acknowledge). Acknowledgements leave in the
    /// order the messages came [MQTT-4.6.0-2]: one that is missing holds back the later ones.
    Manually,
}

/// How long to wait between attempts to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first attempt.
    pub first: Duration,
    /// Each wait is twice the one before, up to this. Of each, up to a half is left out at random. A
    /// connection that lasts longer than the last wait begins anew with the first.
    pub longest: Duration,
}

impl Default for Backoff {
    /// From one second to one minute.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// A clean session of MQTT 5 with a keep alive of 60 s at this host and port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            #[cfg(unix)]
            unix_path: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "websocket")]
            websocket: None,
            #[cfg(feature = "proxy")]
            proxy: None,
            bind_address: None,
            nodelay: true,
            connect_timeout: Duration::from_secs(30),
            version: ProtocolVersion::V5,
            client_id: String::new(),
            clean_start: true,
            adopt_session: false,
            keep_alive: 60,
            username: None,
            password: None,
            will: None,
            session_expiry_interval: None,
            receive_maximum: NonZeroU16::new(1024).unwrap_or(NonZeroU16::MAX),
            maximum_packet_size: None,
            topic_alias_maximum: 16,
            request_response_information: None,
            request_problem_information: None,
            authentication_method: None,
            authentication_data: None,
            user_properties: Vec::new(),
            send_maximum: None,
            queue_capacity: 1024,
            unreliable_capacity: 8192,
            acknowledge: Acknowledge::WhenTaken,
            reconnect: None,
            when_uncertain: Uncertain::Tell,
            redirections: 0,
            authentication: None,
            response_topic: None,
            #[cfg(feature = "outbox")]
            outbox: None,
        }
    }

    /// Another host and port than those that the options began with.
    #[must_use]
    pub fn server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Connects to a Unix domain socket instead of host and port.
    #[cfg(unix)]
    #[must_use]
    pub fn unix_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix_path = Some(path.into());
        self
    }

    /// Connects with TLS. Default: without.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects over WebSocket. Default: without.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket(mut self, websocket: WebSocket) -> Self {
        self.websocket = Some(websocket);
        self
    }

    /// Connects through a proxy. Default: without.
    #[cfg(feature = "proxy")]
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Local address or host name to connect from. Default: the system chooses.
    #[must_use]
    pub fn bind_address(mut self, address: impl Into<String>) -> Self {
        self.bind_address = Some(address.into());
        self
    }

    /// Whether small packets leave at once (TCP_NODELAY). Default: yes.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How long to wait for the TCP connection and for CONNACK. Default: 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The protocol version. Default: 5.0.
    #[must_use]
    pub fn version(mut self, version: ProtocolVersion) -> Self {
        self.version = version;
        self
    }

    /// The Client Identifier. Default: empty, the server chooses one; MQTT 3.1 needs one.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Whether to begin with a new session. In MQTT 3 this also decides whether the session
    /// outlives the connection. Default: yes.
    #[must_use]
    pub fn clean_start(mut self, clean_start: bool) -> Self {
        self.clean_start = clean_start;
        self
    }

    /// Whether to go on with a session that the server has and this client does not, as a program
    /// does that was started again without a store of its own. Its subscriptions and the messages
    /// it missed are there; what it had in flight itself is gone. Without this such a session is
    /// an error [MQTT-3.2.2-4]. Default: no.
    #[must_use]
    pub fn adopt_session(mut self, adopt: bool) -> Self {
        self.adopt_session = adopt;
        self
    }

    /// Seconds without a packet after which PINGREQ is sent; 0: never. Default: 60.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// The user name. Default: none.
    #[must_use]
    pub fn username(mut self, name: impl Into<String>) -> Self {
        self.username = Some(name.into());
        self
    }

    /// The password. MQTT 3 allows it only with a user name. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<Bytes>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The Will: what the server publishes if the connection ends without DISCONNECT,
    /// `delay_interval` seconds later (MQTT 5). Default: none.
    #[must_use]
    pub fn will(mut self, message: Message, delay_interval: Option<u32>) -> Self {
        self.will = Some((message, delay_interval));
        self
    }

    /// Seconds that the session outlives the connection; `u32::MAX`: for ever (MQTT 5). Default: 0.
    #[must_use]
    pub fn session_expiry_interval(mut self, seconds: u32) -> Self {
        self.session_expiry_interval = Some(seconds);
        self
    }

    /// How many messages of QoS 1 and 2 the server may send without an acknowledgement, which is
    /// also how many wait here to be taken. Servers of MQTT 3 are not told.
    /// 0 stands for 1. Default: 1,024.
    #[must_use]
    pub fn receive_maximum(mut self, count: u16) -> Self {
        self.receive_maximum = NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN);
        self
    }

    /// The largest packet to accept, in bytes. Servers of MQTT 3 are not told, but held to it.
    /// 0 stands for 1. Default: what the protocol allows.
    #[must_use]
    pub fn maximum_packet_size(mut self, size: u32) -> Self {
        self.maximum_packet_size = Some(NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN));
        self
    }

    /// How many topic aliases the server may use (MQTT 5). Default: 16.
    #[must_use]
    pub fn topic_alias_maximum(mut self, count: u16) -> Self {
        self.topic_alias_maximum = count;
        self
    }

    /// Whether the server may send Response Information (MQTT 5).
    #[must_use]
    pub fn request_response_information(mut self, wanted: bool) -> Self {
        self.request_response_information = Some(wanted);
        self
    }

    /// Whether the server may send reasons in words (MQTT 5).
    #[must_use]
    pub fn request_problem_information(mut self, wanted: bool) -> Self {
        self.request_problem_information = Some(wanted);
        self
    }

    /// Authentication Method (MQTT 5) that needs no more than CONNECT and CONNACK; for others there is
    /// [`authenticator`](Self::authenticator).
    #[must_use]
    pub fn authentication_method(mut self, name: impl Into<String>) -> Self {
        self.authentication_method = Some(name.into());
        self
    }

    /// Authentication Data (MQTT 5).
    #[must_use]
    pub fn authentication_data(mut self, data: impl Into<Bytes>) -> Self {
        self.authentication_data = Some(data.into());
        self
    }

    /// Adds a User Property to CONNECT (MQTT 5).
    #[must_use]
    pub fn user_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }

    /// How many messages of QoS 1 and 2 to send without an acknowledgement, within what the server
    /// allows. 0 stands for 1. Default: what the server allows; in MQTT 3, where it cannot say, 20,
    /// because Mosquitto 2.0 loses messages of QoS 2 beyond that.
    #[must_use]
    pub fn send_maximum(mut self, count: u16) -> Self {
        self.send_maximum = Some(NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN));
        self
    }

    /// How many messages may wait to be sent before [`publish`](crate::Client::publish) waits.
    /// 0 stands for 1. Default: 1,024.
    #[must_use]
    pub fn queue_capacity(mut self, count: usize) -> Self {
        self.queue_capacity = count.max(1);
        self
    }

    /// How many received messages of QoS 0 may wait to be taken, in each stream; further ones are dropped
    /// and counted. Default: 8,192.
    #[must_use]
    pub fn unreliable_capacity(mut self, count: usize) -> Self {
        self.unreliable_capacity = count;
        self
    }

    /// When received messages are acknowledged. Default: when they are taken.
    #[must_use]
    pub fn acknowledge(mut self, when: Acknowledge) -> Self {
        self.acknowledge = when;
        self
    }

    /// Whether to connect again after a connection that was made is lost; not on a connection of
    /// [`Client::connect_with`](crate::Client::connect_with). The session goes on; if the server
    /// lost it, the subscriptions are made again. Default: no.
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.reconnect = Some(backoff);
        self
    }

    /// What becomes of a message of QoS 2 that was sent, but not taken over, when the server loses the
    /// session. Default: the receipt tells.
    #[must_use]
    pub fn when_uncertain(mut self, what: Uncertain) -> Self {
        self.when_uncertain = what;
        self
    }

    /// How many times in a row to follow a server that says to use another one (MQTT 5), be it instead of accepting
    /// the connection or soon after; one that lasted longer than the first wait of [`Backoff`] begins a new row. User
    /// name and password go to whatever server it names. Default: 0.
    #[must_use]
    pub fn redirections(mut self, count: u32) -> Self {
        self.redirections = count;
        self
    }

    /// Enhanced authentication (MQTT 5): makes the exchange of each connection. It sets Authentication
    /// Method and Data.
    #[must_use]
    pub fn authenticator(
        mut self,
        make: impl Fn() -> Box<dyn Authenticator> + Send + Sync + 'static,
    ) -> Self {
        self.authentication = Some(Authentication::new(make));
        self
    }

    /// Below which topic the answers to [`Client::request`](crate::Client::request) come. Default: the
    /// server's Response Information, or else `responses/` and the Client Identifier.
    #[must_use]
    pub fn response_topic(mut self, prefix: impl Into<String>) -> Self {
        self.response_topic = Some(prefix.into());
        self
    }

    /// Keeps the messages of QoS 1 and 2 on disk until they are complete. The Client Identifier must not be
    /// empty, and the session should outlive the connection
    /// ([`session_expiry_interval`](Self::session_expiry_interval); in MQTT 3 no
    /// [`clean_start`](Self::clean_start)). In MQTT 5 a clean start is asked for only when the outbox has not been
    /// used with this Client Identifier. Default: none.
    #[cfg(feature = "outbox")]
    #[must_use]
    pub fn outbox(mut self, outbox: Outbox) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// Lets go of the outbox.
    pub(crate) fn release_outbox(&mut self) {
        #[cfg(feature = "outbox")]
        {
            self.outbox = None;
        }
    }
}
