//! SUBSCRIBE and SUBACK.

use alloc::vec::Vec;

use bytes::BufMut;

use crate::packet::{AckProperties, Body, encoder};
use crate::parse::{self, Step};
use crate::property::{self, Owner, property_set};
use crate::write;
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, PacketId, PacketType, ProtocolVersion, QoS,
    ReasonCode, SubscriptionIdentifier, TopicFilter, UserProperty,
};

/// A client subscribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The identifier that SUBACK repeats.
    pub packet_id: PacketId,
    /// The filters, at least one.
    pub filters: Vec<SubscribeFilter<'a>>,
    /// The properties (5.0).
    pub properties: SubscribeProperties<'a>,
}

/// A filter of a SUBSCRIBE, with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscribeFilter<'a> {
    /// What to subscribe to.
    pub filter: TopicFilter<'a>,
    /// How.
    pub options: SubscriptionOptions,
}

/// The options of a subscription. All but the QoS are of 5.0; before, they have their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    /// The highest QoS of a delivery.
    pub qos: QoS,
    /// The client does not get its own messages. Not allowed on a shared subscription.
    pub no_local: bool,
    /// A message keeps the RETAIN flag that it was published with.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// The options of a subscription that states no more than its QoS.
    #[must_use]
    pub const fn new(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        }
    }
}

/// When a subscription gets the retained messages that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Each time it is made.
    #[default]
    Always = 0,
    /// When it did not exist before.
    IfNew = 1,
    /// Never.
    Never = 2,
}

property_set! {
    /// The properties of a SUBSCRIBE.
    pub struct SubscribeProperties<'a> {
        /// The number that messages of these subscriptions bear.
        pub subscription_identifier: Option<SubscriptionIdentifier> = SubscriptionIdentifier,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED: u8 = 0b1100_0000;
/// Reserved where there is nothing but the QoS.
const RESERVED_QOS_ONLY: u8 = 0b1111_1100;

impl<'a> SubscribeFilter<'a> {
    /// A filter that states no more than its QoS.
    #[must_use]
    pub const fn new(filter: TopicFilter<'a>, qos: QoS) -> Self {
        Self {
            filter,
            options: SubscriptionOptions::new(qos),
        }
    }

    fn parse(input: &'a [u8], version: ProtocolVersion) -> Step<'a, Self> {
        const PLACE: &str = "subscription options";
        let (rest, filter) = parse::topic_filter(input, "topic filter")?;
        let (rest, bits) = parse::byte(rest, PLACE)?;
        let (reserved, clause) = if version.has_subscription_options() {
            (RESERVED, "MQTT-3.8.3-5")
        } else {
            (RESERVED_QOS_ONLY, "MQTT3-3.8.3-4")
        };
        if bits & reserved != 0 {
            let kind = DecodeErrorKind::SubscriptionOptions(bits);
            return Err(DecodeError::new(kind, PLACE, clause).into());
        }
        let qos = QoS::from_bits(bits & 0b11).ok_or_else(|| {
            // A Protocol Error of 5.0, unlike in other packets.
            let (kind, clause) = if version.has_subscription_options() {
                (DecodeErrorKind::SubscriptionQoS, "section 3.8.3.1")
            } else {
                (DecodeErrorKind::QoS, clause)
            };
            DecodeError::new(kind, PLACE, clause)
        })?;
        let retain_handling = match bits >> RETAIN_HANDLING_SHIFT & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => {
                let kind = DecodeErrorKind::RetainHandling;
                return Err(DecodeError::new(kind, PLACE, "section 3.8.3.1").into());
            }
        };
        let no_local = bits & NO_LOCAL != 0;
        if no_local && filter.shared().is_some() {
            let kind = DecodeErrorKind::NoLocalShared;
            return Err(DecodeError::new(kind, PLACE, "MQTT-3.8.3-4").into());
        }
        let options = SubscriptionOptions {
            qos,
            no_local,
            retain_as_published: bits & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        };
        Ok((rest, Self { filter, options }))
    }
}

impl SubscriptionOptions {
    fn bits(self, version: ProtocolVersion) -> u8 {
        let qos = self.qos as u8;
        if !version.has_subscription_options() {
            return qos;
        }
        qos | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published {
                RETAIN_AS_PUBLISHED
            } else {
                0
            }
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }
}

impl<'a> Subscribe<'a> {
    /// A SUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: Vec<SubscribeFilter<'a>>) -> Self {
        Self {
            packet_id,
            filters,
            properties: SubscribeProperties::default(),
        }
    }

    /// Decodes the body of a SUBSCRIBE.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let (rest, packet_id) = parse::packet_id(body)?;
        let (rest, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::Subscribe))?
        } else {
            (rest, SubscribeProperties::default())
        };
        let filters = parse::list(
            rest,
            || DecodeError::new(DecodeErrorKind::EmptyList, "SUBSCRIBE", "MQTT-3.8.3-2"),
            |input| SubscribeFilter::parse(input, version),
        )?;
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyList(PacketType::Subscribe));
        }
        let mut size = 2;
        if version.has_properties() {
            size += property::section_size(&self.properties)?;
        }
        for SubscribeFilter { filter, options } in &self.filters {
            if version.has_subscription_options() && options.no_local && filter.shared().is_some() {
                return Err(EncodeError::NoLocalShared);
            }
            size += 2 + filter.as_str().len() + 1;
        }
        Ok(size)
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u16(self.packet_id.get());
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
        for SubscribeFilter { filter, options } in &self.filters {
            write::binary(filter.as_str().as_bytes(), out);
            out.put_u8(options.bits(version));
        }
    }
}

encoder!(Subscribe);

/// The answer to a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One code for each filter, in order. Versions without reason codes have the granted QoS and
    /// 0x80, as which every failure is written.
    pub reason_codes: Vec<ReasonCode>,
    /// The properties (5.0).
    pub properties: AckProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// A SUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason_codes: Vec<ReasonCode>) -> Self {
        Self {
            packet_id,
            reason_codes,
            properties: AckProperties::default(),
        }
    }

    /// Decodes the body of a SUBACK.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        const PLACE: &str = "SUBACK";
        let (rest, packet_id) = parse::packet_id(body)?;
        let (rest, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::SubAck))?
        } else {
            (rest, AckProperties::default())
        };
        let reason_codes = parse::list(
            rest,
            || DecodeError::new(DecodeErrorKind::EmptyList, PLACE, "MQTT-3.8.4-6"),
            |input| {
                let (rest, code) = PacketType::SubAck.reason_code(input)?;
                let known = !code.is_error() || code == ReasonCode::UNSPECIFIED_ERROR;
                if !version.has_reason_codes() && !known {
                    let kind = DecodeErrorKind::ReasonCode(code.0);
                    return Err(DecodeError::new(kind, PLACE, "MQTT3-3.9.3-2").into());
                }
                Ok((rest, code))
            },
        )?;
        Ok(Self {
            packet_id,
            reason_codes,
            properties,
        })
    }
}

impl Body for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::SubAck.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.reason_codes.is_empty() {
            return Err(EncodeError::EmptyList(PacketType::SubAck));
        }
        for code in &self.reason_codes {
            PacketType::SubAck.check_reason(*code)?;
        }
        let properties = if version.has_properties() {
            property::section_size(&self.properties)?
        } else {
            0
        };
        Ok(2 + properties + self.reason_codes.len())
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u16(self.packet_id.get());
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
        for code in &self.reason_codes {
            let code = if code.is_error() && !version.has_reason_codes() {
                ReasonCode::UNSPECIFIED_ERROR
            } else {
                *code
            };
            out.put_u8(code.0);
        }
    }
}

encoder!(SubAck);
