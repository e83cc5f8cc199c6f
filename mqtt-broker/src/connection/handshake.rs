//! From the open stream to a CONNECT that may be accepted.

use core::fmt;
use core::future::pending;
use core::num::NonZeroU32;
use std::io;
use std::sync::Arc;

use mqtt_codec::{
    ConnAck, Connect, DecodeError, FixedHeader, PacketType, ProtocolVersion, ReasonCode,
};
use mqtt_session::{Negotiated, ServerLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

use crate::auth::{Access, Owner, SERVER_FINAL};
use crate::config::Config;
use crate::connection::enhanced::{self, Enhanced};
use crate::connection::input::has_more_levels;
use crate::connection::{Arrival, login};
use crate::counters::RefusalReason;
use crate::gate::{self, Entrant, Place, Visit};
use crate::hub::Hub;
use crate::mount::{self, Mounted};
use crate::policy::ListenerOptions;
use crate::transport::Stream;
use crate::will::StoredWill;

/// Bytes read at once while CONNECT is awaited.
const READ: usize = 1_024;

/// Bytes that are read of a client before it is let in.
const AHEAD: usize = 16 * 1_024;

/// Bytes of a CONNACK of 5.0 without properties.
const SMALLEST_CONNACK: u32 = 5;

/// A CONNECT that may be accepted.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// What the session goes by, the mount point of the listener included.
    pub(crate) client_id: Arc<str>,
    /// The identifier was made by the broker.
    pub(crate) assigned: bool,
    pub(crate) clean_start: bool,
    pub(crate) will: Option<StoredWill>,
    /// Who it is; none where nobody was asked.
    pub(crate) access: Option<Access>,
    /// The exchange by which it has shown who it is, if it was one.
    pub(crate) enhanced: Option<Enhanced>,
    pub(crate) packet: ConnectPacket,
    /// What was read after it.
    pub(crate) rest: Vec<u8>,
    pub(crate) place: Place,
    /// The user name in CONNECT; another one may own the session.
    pub(crate) claimed_user: Option<Box<str>>,
}

/// The bytes of a whole CONNECT.
#[derive(Debug)]
pub(crate) struct ConnectPacket {
    bytes: Vec<u8>,
    header: FixedHeader,
}

impl ConnectPacket {
    fn body(&self) -> &[u8] {
        self.bytes
            .get(usize::from(self.header.header_len)..self.header.frame_len())
            .unwrap_or_default()
    }

    /// Whether it is of version 5.0, as far as it can be told when it is malformed.
    fn is_of_5(&self) -> bool {
        self.body().starts_with(b"\0\x04MQTT\x05")
    }

    fn connect(&self) -> Result<Connect<'_>, DecodeError> {
        Connect::decode(self.body())
    }

    /// Lends the packet; it was decoded once, so it can be decoded again.
    pub(crate) fn with_connect<T>(&self, use_it: impl FnOnce(&Connect<'_>) -> T) -> T {
        match self.connect() {
            Ok(connect) => use_it(&connect),
            Err(_) => use_it(&Connect::new(ProtocolVersion::V3_1_1, "")),
        }
    }
}

/// Why a client does not get in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It closed the stream, or the stream failed.
    Gone(io::Error),
    /// No whole CONNECT within the connect timeout.
    TimedOut,
    /// Others that came later needed its place.
    PushedOut,
    /// The first packet is no CONNECT.
    NotConnect(PacketType),
    /// CONNECT, or its header, is malformed.
    Malformed {
        error: DecodeError,
        /// The version to answer in, if it is answered.
        answer: Option<ProtocolVersion>,
    },
    /// CONNECT is well-formed; CONNACK says why it is refused.
    Refused {
        /// The version to answer in, unless the client takes no packet of that size.
        answer: Option<ProtocolVersion>,
        client_id: String,
        reason: ReasonCode,
        detail: &'static str,
        /// The limit that it is beyond, if there is one.
        limit: Option<RefusalReason>,
    },
    /// Another connection came for its session before it had it.
    TakenOver,
    /// The broker shuts down.
    ShuttingDown,
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Malformed {
            error,
            answer: error.answer_version(),
        }
    }
}

impl Refusal {
    pub(crate) fn of(connect: &Connect<'_>, reason: ReasonCode, detail: &'static str) -> Self {
        let fits = connect
            .properties
            .maximum_packet_size
            .is_none_or(|size| size.get() >= SMALLEST_CONNACK);
        Self::Refused {
            answer: fits.then_some(connect.version),
            client_id: connect.client_id.into(),
            reason,
            detail,
            limit: None,
        }
    }

    /// A client that would be let in, were it not for a limit.
    fn beyond(connect: &Connect<'_>, exceeded: RefusalReason) -> Self {
        let code = match exceeded {
            // No code of 3.1.1 says more than that.
            RefusalReason::Banned if !connect.version.has_reason_codes() => {
                ReasonCode::NOT_AUTHORIZED
            }
            exceeded => gate::refusal_code(exceeded),
        };
        let mut refusal = Self::of(connect, code, exceeded.name());
        if let Self::Refused { limit, .. } = &mut refusal {
            *limit = Some(exceeded);
        }
        refusal
    }

    /// A will that is refused for a limit of its own, with a code that says so.
    fn of_will(connect: &Connect<'_>, reason: ReasonCode, exceeded: RefusalReason) -> Self {
        let mut refusal = Self::of(connect, reason, exceeded.name());
        if let Self::Refused { limit, .. } = &mut refusal {
            *limit = Some(exceeded);
        }
        refusal
    }

    /// Whether it counts for a ban of the address: who comes in earnest seldom does it.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::NotConnect(_) | Self::Malformed { .. } => true,
            Self::Refused { reason, .. } => *reason == ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Self::Gone(error) => is_broken(error),
            Self::TimedOut | Self::PushedOut | Self::TakenOver | Self::ShuttingDown => false,
        }
    }

    /// Under what it is counted.
    pub(crate) fn counted_as(&self) -> Option<RefusalReason> {
        match self {
            Self::TimedOut => Some(RefusalReason::TimedOut),
            Self::PushedOut => Some(RefusalReason::PushedOut),
            Self::NotConnect(_) | Self::Malformed { .. } => Some(RefusalReason::NoConnect),
            Self::Refused { limit, .. } => *limit,
            Self::Gone(error) => is_broken(error).then_some(RefusalReason::BrokenFrames),
            Self::TakenOver | Self::ShuttingDown => None,
        }
    }

    /// The identifier of the client, as far as it is known.
    pub(crate) fn client_id(&self) -> &str {
        match self {
            Self::Refused { client_id, .. } => client_id,
            _ => "",
        }
    }

    /// Answers where the standard has an answer; returns whether something was sent.
    pub(crate) async fn answer<S: Stream>(&self, stream: &mut S) -> bool {
        let (version, reason) = match self {
            Self::Refused {
                answer: Some(version),
                reason,
                ..
            } => (*version, *reason),
            Self::Malformed {
                error,
                answer: Some(version),
            } => (*version, error.reason_code()),
            _ => return false,
        };
        // [MQTT-3.2.2-6] of 3.1.1: no return code says that the will asks for too much.
        let is_of_5 = matches!(
            reason,
            ReasonCode::QOS_NOT_SUPPORTED | ReasonCode::RETAIN_NOT_SUPPORTED
        );
        if is_of_5 && !version.has_reason_codes() {
            return false;
        }
        let mut packet = Vec::new();
        let connack = ConnAck::new(reason);
        connack.encode(version, &mut packet).is_ok() && stream.write_all(&packet).await.is_ok()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(error) => write!(f, "connection lost before CONNECT: {error}"),
            Self::TimedOut => f.write_str("no CONNECT in time"),
            Self::PushedOut => f.write_str(RefusalReason::PushedOut.name()),
            Self::NotConnect(packet_type) => {
                write!(f, "the first packet is {packet_type:?}, not CONNECT")
            }
            Self::Malformed { error, .. } => write!(f, "{error}"),
            Self::Refused { detail, .. } => f.write_str(detail),
            Self::TakenOver => f.write_str("another connection came for its session"),
            Self::ShuttingDown => f.write_str("the broker shuts down"),
        }
    }
}

/// Whether a stream has failed for what its peer sent: frames of WebSocket, or records of TLS, that are none.
fn is_broken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Reads CONNECT and checks what can be checked without the session.
pub(crate) async fn receive_connect<S: Stream>(
    hub: &Hub,
    arrival: &Arrival,
    stream: &mut S,
) -> Result<Handshake, Refusal> {
    let mut bytes = Vec::with_capacity(READ);
    let read = read_packet(hub, stream, &mut bytes, PacketType::Connect);
    let header = in_time(hub, arrival, read).await??;
    let mut rest = bytes.split_off(header.frame_len());
    let packet = ConnectPacket { bytes, header };
    let mut connect = packet.connect().map_err(|error| Refusal::Malformed {
        error,
        answer: error
            .answer_version()
            .or(packet.is_of_5().then_some(ProtocolVersion::V5)),
    })?;
    let options = &*arrival.options;
    check_version(options, &connect)?;
    check_levels(&hub.limits.load(), &connect)?;
    enhanced::check_method(hub, arrival, &connect)?;
    let mount = options.mount_point.as_deref();
    let mounted = mount
        .zip(connect.will.as_ref())
        .map(|(mount, will)| Mounted::of_will(mount, will));
    mount_will(&mut connect, mounted.as_ref())?;
    let (client_id, assigned) = client_id(&connect)?;
    let limits = limits(&hub.limits.load(), options);
    check_will(&limits, &connect)?;
    check_bans(hub, &connect, &client_id, connect.username)?;
    check_connack(&limits, &connect, assigned.then_some(&client_id))?;
    let visit = visit(hub, arrival, &connect, &client_id)?;
    let (access, enhanced) = match connect.properties.authentication_method {
        None => {
            let admitted = login::admit(hub, arrival, &connect, &client_id);
            let admitted = while_there(hub, &arrival.entrant, stream, &mut rest, admitted);
            (admitted.await??, None)
        }
        Some(method) => {
            let exchange = enhanced::exchange(hub, arrival, &connect, method, stream, &mut rest);
            let (proven, enhanced) = Box::pin(in_time(hub, arrival, exchange)).await??;
            let realm = enhanced.realm.clone();
            let auth = &hub.config.auth;
            let access = auth.proven(&proven, Arc::clone(&client_id), realm);
            let checked = login::check_will(hub, &connect, &access);
            while_there(hub, &arrival.entrant, stream, &mut rest, checked).await??;
            (Some(access), Some(enhanced))
        }
    };
    // A certificate may have said who it is, or an exchange.
    let user = access.as_ref().and_then(|access| access.owner.user());
    check_bans(hub, &connect, &client_id, user.map(|user| &**user))?;
    check_identity(arrival, &connect, access.as_ref())?;
    let place = admit(hub, arrival, &connect, visit)?;
    let clean_start = connect.clean_start;
    let will = connect
        .will
        .as_ref()
        .map(|will| StoredWill::new(will, connect.version));
    let claimed_user = connect.username.map(Into::into);
    Ok(Handshake {
        client_id: match mount {
            None => client_id,
            mount => mount::scoped(mount, &client_id).into(),
        },
        assigned,
        clean_start,
        will,
        access,
        enhanced,
        packet,
        rest,
        place,
        claimed_user,
    })
}

/// Puts the mount point of the listener before the topics of the will.
fn mount_will<'c>(connect: &mut Connect<'c>, mounted: Option<&'c Mounted>) -> Result<(), Refusal> {
    let Some(mounted) = mounted else {
        return Ok(());
    };
    let Some((topic, response)) = mounted.names() else {
        return Err(Refusal::of(
            connect,
            ReasonCode::TOPIC_NAME_INVALID,
            "topic of the will too long behind the mount point",
        ));
    };
    if let Some(will) = &mut connect.will {
        will.topic = topic;
        will.properties.response_topic = response;
    }
    Ok(())
}

/// What a client has until its CONNECT is accepted: so much time, and its place.
async fn in_time<T>(
    hub: &Hub,
    arrival: &Arrival,
    work: impl Future<Output = T>,
) -> Result<T, Refusal> {
    tokio::select! {
        // Not by chance, so that a simulated run can be repeated.
        biased;
        done = timeout_at(arrival.deadline, work) => done.map_err(|_| Refusal::TimedOut),
        () = arrival.entrant.pushed_out() => Err(Refusal::PushedOut),
        () = hub.closed() => Err(Refusal::ShuttingDown),
    }
}

/// Waits for what others say of a client, as long as that has not gone.
pub(super) async fn while_there<S: Stream, T>(
    hub: &Hub,
    entrant: &Entrant,
    stream: &mut S,
    rest: &mut Vec<u8>,
    work: impl Future<Output = T>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        error = gone(stream, rest) => Err(Refusal::Gone(error)),
        () = entrant.pushed_out() => Err(Refusal::PushedOut),
        () = hub.closed() => Err(Refusal::ShuttingDown),
    }
}

/// Resolves when the peer has gone. One that has said something before it closed its half is heard all the same.
async fn gone<S: Stream>(stream: &mut S, rest: &mut Vec<u8>) -> io::Error {
    while rest.len() < AHEAD {
        rest.reserve(READ);
        match stream.read_buf(rest).await {
            Ok(0) if rest.is_empty() => return io::ErrorKind::UnexpectedEof.into(),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    pending().await
}

/// Reads until a whole packet of this type is there; what follows it may be there as well.
pub(super) async fn read_packet<S: Stream>(
    hub: &Hub,
    stream: &mut S,
    bytes: &mut Vec<u8>,
    wanted: PacketType,
) -> Result<FixedHeader, Refusal> {
    loop {
        if let Some(header) = FixedHeader::parse(bytes)? {
            if header.packet_type != wanted {
                return Err(Refusal::NotConnect(header.packet_type));
            }
            header.check_size(hub.limits.load().max_connect_size)?;
            if bytes.len() >= header.frame_len() {
                return Ok(header);
            }
        }
        bytes.reserve(READ);
        match stream.read_buf(bytes).await {
            Ok(0) => return Err(Refusal::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Refusal::Gone(error)),
        }
    }
}

/// What clients are granted.
pub(crate) fn limits(config: &Config, options: &ListenerOptions) -> ServerLimits {
    let mut limits = ServerLimits::default();
    limits.receive_maximum = config.receive_maximum;
    limits.send_maximum_v3 = config.receive_maximum_v3;
    limits.maximum_packet_size = NonZeroU32::new(options.max_packet_size(config));
    limits.topic_alias_maximum = config.topic_alias_maximum;
    limits.keep_alive_maximum = config.keep_alive_maximum;
    limits.session_expiry_maximum = config.session_expiry_maximum;
    limits.maximum_qos = options.maximum_qos(config);
    limits.retain_available = config.retain_available;
    limits.wildcard_subscription_available = config.wildcard_subscription_available;
    limits.subscription_identifiers_available = config.subscription_identifiers_available;
    limits.shared_subscription_available = config.shared_subscription_available;
    limits
}

/// Whether a client has shown who it is.
pub(super) fn has_shown_itself(certificate: Option<&[u8]>, access: Option<&Access>) -> bool {
    let is_user = access.is_some_and(|access| matches!(access.owner, Owner::User(_)));
    is_user || certificate.is_some()
}

/// A listener may let in only those who have shown who they are, by a certificate or a password.
fn check_identity(
    arrival: &Arrival,
    connect: &Connect<'_>,
    access: Option<&Access>,
) -> Result<(), Refusal> {
    let certificate = arrival.peer.certificate.as_deref();
    if arrival.options.allow_anonymous || has_shown_itself(certificate, access) {
        return Ok(());
    }
    Err(Refusal::of(
        connect,
        ReasonCode::NOT_AUTHORIZED,
        "anonymous clients are not let in by this listener",
    ))
}

/// Whether a client may come that is yet to show who it is.
fn visit(
    hub: &Hub,
    arrival: &Arrival,
    connect: &Connect<'_>,
    client_id: &str,
) -> Result<Visit, Refusal> {
    if arrival.too_fast {
        return Err(Refusal::beyond(connect, RefusalReason::TooFast));
    }
    // Who comes for a session takes what it holds in memory.
    let resumes = || {
        let id = mount::scoped(arrival.options.mount_point.as_deref(), client_id);
        !connect.clean_start && hub.client(&id).is_some()
    };
    if hub.pressure.refuses_all() || (hub.pressure.refuses() && !resumes()) {
        return Err(Refusal::beyond(connect, RefusalReason::MemoryFull));
    }
    hub.gate
        .visit(&arrival.peer, &hub.limits.load())
        .map_err(|reason| Refusal::beyond(connect, reason))
}

/// Takes a place among those who are connected.
fn admit(
    hub: &Hub,
    arrival: &Arrival,
    connect: &Connect<'_>,
    visit: Visit,
) -> Result<Place, Refusal> {
    let (options, doorway) = (&arrival.options, &arrival.doorway);
    let mut place = hub
        .gate
        .admit(visit, &hub.limits.load(), options, doorway)
        .map_err(|reason| Refusal::beyond(connect, reason))?;
    place.is_encrypted = arrival.is_encrypted;
    Ok(place)
}

/// A listener may serve some versions only.
fn check_version(options: &ListenerOptions, connect: &Connect<'_>) -> Result<(), Refusal> {
    if options.versions.contains(&connect.version) {
        return Ok(());
    }
    Err(Refusal::of(
        connect,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        "version of the protocol not served by this listener",
    ))
}

/// The identifier that the session goes by, and whether the client must be told about it.
fn client_id(connect: &Connect<'_>) -> Result<(Arc<str>, bool), Refusal> {
    let version = connect.version;
    if !connect.client_id.is_empty() {
        return Ok((connect.client_id.into(), false));
    }
    // [MQTT-3.1.3-8] of 3.1.1: nobody can come back to a session whose identifier the client does not know.
    if version.has_properties() || (version.has_empty_client_id() && connect.clean_start) {
        return Ok((assigned_id(), true));
    }
    Err(Refusal::of(
        connect,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        "empty client identifier",
    ))
}

/// The CONNACK that accepts a client.
pub(crate) fn accepting<'a>(
    negotiated: &Negotiated,
    connect: &Connect<'_>,
    assigned: Option<&'a str>,
) -> ConnAck<'a> {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    negotiated.fill_connack(connect, &mut connack.properties);
    connack.properties.assigned_client_identifier = assigned;
    connack
}

/// [MQTT-3.1.2-24]: a client that takes no packet of the size of its CONNACK cannot be accepted.
fn check_connack(
    limits: &ServerLimits,
    connect: &Connect<'_>,
    assigned: Option<&Arc<str>>,
) -> Result<(), Refusal> {
    let Some(maximum) = connect.properties.maximum_packet_size else {
        return Ok(());
    };
    let negotiated = Negotiated::server(limits, connect);
    let mut connack = accepting(&negotiated, connect, assigned.map(|id| &**id));
    if let Some(method) = connect.properties.authentication_method {
        connack.properties.authentication_method = Some(method);
        connack.properties.authentication_data = Some(&[0; SERVER_FINAL]);
    }
    match connack.encoded_len(connect.version) {
        Ok(len) if len <= maximum.get() as usize => Ok(()),
        _ => Err(Refusal::of(
            connect,
            ReasonCode::PACKET_TOO_LARGE,
            "CONNACK is larger than the client's maximum packet size",
        )),
    }
}

/// [MQTT-3.2.2-12] and [MQTT-3.2.2-13]: a will that could not be published as it is.
fn check_will(limits: &ServerLimits, connect: &Connect<'_>) -> Result<(), Refusal> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    let refused = |code| Refusal::of_will(connect, code, RefusalReason::WillNotOffered);
    if will.qos > limits.maximum_qos {
        return Err(refused(ReasonCode::QOS_NOT_SUPPORTED));
    }
    if will.retain && !limits.retain_available {
        return Err(refused(ReasonCode::RETAIN_NOT_SUPPORTED));
    }
    Ok(())
}

/// A client identifier or a user that is banned by name.
fn check_bans(
    hub: &Hub,
    connect: &Connect<'_>,
    client_id: &str,
    user: Option<&str>,
) -> Result<(), Refusal> {
    match hub.limits.load().bans.names_client(client_id, user) {
        true => Err(Refusal::beyond(connect, RefusalReason::Banned)),
        false => Ok(()),
    }
}

/// A will whose topic has too many levels.
fn check_levels(config: &Config, connect: &Connect<'_>) -> Result<(), Refusal> {
    match &connect.will {
        Some(will) if has_more_levels(will.topic.as_str(), config.topic_levels) => {
            let (code, limit) = (ReasonCode::TOPIC_NAME_INVALID, RefusalReason::WillTooDeep);
            Err(Refusal::of_will(connect, code, limit))
        }
        _ => Ok(()),
    }
}

/// An identifier that no other client can have by accident.
fn assigned_id() -> Arc<str> {
    use core::hash::BuildHasher;
    use core::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Keyed at random for each value, so that identifiers cannot be guessed one from the other.
    let random = std::hash::RandomState::new().hash_one(count);
    format!("auto-{random:016x}-{count:x}").into()
}
