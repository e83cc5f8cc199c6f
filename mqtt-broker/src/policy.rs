//! What holds for the connections of one listener, and what a transport knows of a peer.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mqtt_codec::{ProtocolVersion, QoS};

use crate::config::{Config, Durability};
use crate::transport::Shown;

/// What holds for the connections that come through one listener. What is not said here is as in [`Config`].
///
/// A connection keeps those that held when it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// Versions of the protocol that are served. Default: all.
    pub versions: Vec<ProtocolVersion>,
    /// Highest QoS of a PUBLISH and of a subscription, where it is lower than [`Config::maximum_qos`].
    pub maximum_qos: Option<QoS>,
    /// Largest packet accepted from a client, in bytes, where it is less than [`Config::max_packet_size`].
    pub max_packet_size: Option<u32>,
    /// Whether a client is let in that does not show who it is. Default yes.
    pub allow_anonymous: bool,
    /// The realm of [`AuthPlan`](crate::auth::AuthPlan) that says how clients are let in here. Default: none.
    pub realm: Option<Arc<str>>,
    /// Clients that may be connected through the listener. Default: no bound of its own.
    pub max_connections: Option<usize>,
    /// What the topics of the clients begin with, without their knowing: whole levels, ending with `/`. Client
    /// identifiers are told apart by it. Default: nothing.
    pub mount_point: Option<Arc<str>>,
    /// What the acknowledgement of a message waits for that a session takes which was made through this listener,
    /// where it is not [`Config::durability`].
    pub durability: Option<Durability>,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            versions: ProtocolVersion::ALL.to_vec(),
            maximum_qos: None,
            max_packet_size: None,
            allow_anonymous: true,
            realm: None,
            max_connections: None,
            mount_point: None,
            durability: None,
        }
    }
}

impl ListenerOptions {
    /// The highest QoS that clients may use here.
    pub(crate) fn maximum_qos(&self, config: &Config) -> QoS {
        let own = self.maximum_qos.unwrap_or(config.maximum_qos);
        own.min(config.maximum_qos)
    }

    /// What is promised to the sessions that are made here.
    pub(crate) fn durability(&self, config: &Config) -> Durability {
        self.durability.unwrap_or(config.durability)
    }

    /// The largest packet that is accepted here.
    pub(crate) fn max_packet_size(&self, config: &Config) -> u32 {
        let own = self.max_packet_size.unwrap_or(config.max_packet_size);
        own.min(config.max_packet_size)
    }
}

/// The other end of a stream, as far as its transport knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Where it is.
    pub address: PeerAddress,
    /// The certificate that the client proved to own, in DER, checked against the listener's authorities.
    pub certificate: Option<Arc<[u8]>>,
    /// The same with those that it came by, as long as the connection lasts.
    pub(crate) shown: Option<Arc<Shown>>,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// On a network; the address that a trusted proxy names, where there is one.
    Socket(SocketAddr),
    /// In another process of this machine.
    Local(Arc<str>),
}

impl Peer {
    /// A peer at this address, without a certificate.
    #[must_use]
    pub fn new(address: PeerAddress) -> Self {
        Self {
            address,
            certificate: None,
            shown: None,
        }
    }

    /// A peer that is known by a name only.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::new(PeerAddress::Local(name.into()))
    }

    /// Its address, if it is on a network.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.address {
            PeerAddress::Socket(address) => Some(address.ip().to_canonical()),
            PeerAddress::Local(_) => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::new(PeerAddress::Socket(address))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            PeerAddress::Socket(address) => write!(f, "{address}"),
            PeerAddress::Local(name) => f.write_str(name),
        }
    }
}
