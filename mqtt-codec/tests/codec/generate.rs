//! Strategies for packets that can be written. What a packet borrows is leaked: a few bytes a case.

use core::num::{NonZeroU16, NonZeroU32};
use std::sync::{Mutex, PoisonError};

use mqtt_codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, PacketType,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionIdentifier, SubscriptionOptions,
    TopicFilter, TopicName, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperty, Will,
    WillProperties,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// A packet that borrows leaked memory.
pub(crate) type Static = Packet<'static>;

/// What was leaked, so that whoever looks for memory that was lost finds it here.
static LEAKED: Mutex<Vec<&[u8]>> = Mutex::new(Vec::new());

fn leak_bytes(bytes: Vec<u8>) -> &'static [u8] {
    let leaked: &[u8] = Box::leak(bytes.into_boxed_slice());
    let mut all = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(leaked);
    leaked
}

fn leak(text: String) -> &'static str {
    core::str::from_utf8(leak_bytes(text.into_bytes())).unwrap()
}

fn text() -> impl Strategy<Value = &'static str> {
    "[^\0]{0,12}".prop_map(leak)
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(leak_bytes)
}

fn payload() -> impl Strategy<Value = &'static [u8]> {
    // Now and then over the edges of the remaining length.
    prop_oneof![
        9 => binary().boxed(),
        1 => (100..17_000_usize)
            .prop_map(|len| leak_bytes(vec![0x5A; len]))
            .boxed(),
    ]
}

pub(crate) fn topic() -> impl Strategy<Value = TopicName<'static>> {
    prop_oneof!["[ab$/]{1,6}", "[^\0+#]{1,12}"].prop_map(|text| TopicName::new(leak(text)).unwrap())
}

pub(crate) fn filter() -> impl Strategy<Value = TopicFilter<'static>> {
    let level = || prop_oneof![Just("+".to_owned()), "[ab$]{0,2}", "[^\0+#/]{0,4}"];
    let share = of("[^\0+#/]{1,4}".prop_map(|group| format!("$share/{group}/")));
    (share, vec(level(), 1..5), any::<bool>()).prop_filter_map(
        "not a filter",
        |(share, mut levels, all)| {
            if all {
                levels.push("#".to_owned());
            }
            let text = share.unwrap_or_default() + &levels.join("/");
            TopicFilter::new(leak(text)).ok()
        },
    )
}

pub(crate) fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(&ProtocolVersion::ALL[..])
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId::from)
}

fn identifier() -> impl Strategy<Value = SubscriptionIdentifier> {
    (1..=268_435_455_u32, 0..28_u32).prop_map(|(value, shift)| {
        // All lengths of the encoding.
        SubscriptionIdentifier::new((value >> shift).max(1)).unwrap()
    })
}

fn users() -> impl Strategy<Value = Vec<UserProperty<'static>>> {
    vec((text(), text()), 0..3).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(name, value)| UserProperty { name, value })
            .collect()
    })
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<_> = (0..=255)
        .map(ReasonCode)
        .filter(|code| code.is_allowed_in(packet))
        .collect();
    select(codes)
}

/// Method and data, the latter only with the former.
fn authentication() -> impl Strategy<Value = (Option<&'static str>, Option<&'static [u8]>)> {
    of((text(), of(binary()))).prop_map(|pair| match pair {
        Some((method, data)) => (Some(method), data),
        None => (None, None),
    })
}

prop_compose! {
    fn will_properties()(
        delay_interval in of(any::<u32>()),
        payload_format_utf8 in of(any::<bool>()),
        message_expiry_interval in of(any::<u32>()),
        content_type in of(text()),
        response_topic in of(topic()),
        correlation_data in of(binary()),
        user_properties in users(),
    ) -> WillProperties<'static> {
        WillProperties {
            delay_interval,
            payload_format_utf8,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        }
    }
}

prop_compose! {
    fn will()(
        topic in topic(),
        payload in binary(),
        qos in qos(),
        retain in any::<bool>(),
        properties in will_properties(),
    ) -> Will<'static> {
        Will { topic, payload, qos, retain, properties }
    }
}

prop_compose! {
    fn connect_properties()(
        session_expiry_interval in of(any::<u32>()),
        receive_maximum in of(any::<NonZeroU16>()),
        maximum_packet_size in of(any::<NonZeroU32>()),
        topic_alias_maximum in of(any::<u16>()),
        request_response_information in of(any::<bool>()),
        request_problem_information in of(any::<bool>()),
        (authentication_method, authentication_data) in authentication(),
        user_properties in users(),
    ) -> ConnectProperties<'static> {
        ConnectProperties {
            session_expiry_interval,
            receive_maximum,
            maximum_packet_size,
            topic_alias_maximum,
            request_response_information,
            request_problem_information,
            authentication_method,
            authentication_data,
            user_properties,
        }
    }
}

prop_compose! {
    /// The version is that of the argument, so that every strategy is used alike.
    fn connect(version: ProtocolVersion)(
        client_id in text(),
        clean_start in any::<bool>(),
        keep_alive in any::<u16>(),
        will in of(will()),
        username in of(text()),
        password in of(binary()),
        properties in connect_properties(),
    ) -> Connect<'static> {
        let password = password
            .filter(|_| username.is_some() || version.has_password_without_username());
        Connect { version, client_id, clean_start, keep_alive, will, username, password, properties }
    }
}

prop_compose! {
    fn connack_limits()(
        session_expiry_interval in of(any::<u32>()),
        receive_maximum in of(any::<NonZeroU16>()),
        maximum_qos in of(select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])),
        retain_available in of(any::<bool>()),
        maximum_packet_size in of(any::<NonZeroU32>()),
        topic_alias_maximum in of(any::<u16>()),
        wildcard_subscription_available in of(any::<bool>()),
        subscription_identifiers_available in of(any::<bool>()),
        shared_subscription_available in of(any::<bool>()),
        server_keep_alive in of(any::<u16>()),
    ) -> ConnAckProperties<'static> {
        ConnAckProperties {
            session_expiry_interval,
            receive_maximum,
            maximum_qos,
            retain_available,
            maximum_packet_size,
            topic_alias_maximum,
            wildcard_subscription_available,
            subscription_identifiers_available,
            shared_subscription_available,
            server_keep_alive,
            ..ConnAckProperties::default()
        }
    }
}

prop_compose! {
    fn connack()(
        present in any::<bool>(),
        reason_code in reason(PacketType::ConnAck),
        limits in connack_limits(),
        assigned_client_identifier in of(text()),
        reason_string in of(text()),
        response_information in of(text()),
        server_reference in of(text()),
        authentication_method in of(text()),
        authentication_data in of(binary()),
        user_properties in users(),
    ) -> ConnAck<'static> {
        let properties = ConnAckProperties {
            assigned_client_identifier,
            reason_string,
            response_information,
            server_reference,
            authentication_method,
            authentication_data,
            user_properties,
            ..limits
        };
        let session_present = present && reason_code == ReasonCode::SUCCESS;
        ConnAck { session_present, reason_code, properties }
    }
}

prop_compose! {
    fn publish_properties()(
        payload_format_utf8 in of(any::<bool>()),
        message_expiry_interval in of(any::<u32>()),
        topic_alias in of(any::<NonZeroU16>()),
        response_topic in of(topic()),
        correlation_data in of(binary()),
        subscription_identifiers in vec(identifier(), 0..4),
        content_type in of(text()),
        user_properties in users(),
    ) -> PublishProperties<'static> {
        PublishProperties {
            payload_format_utf8,
            message_expiry_interval,
            topic_alias,
            response_topic,
            correlation_data,
            subscription_identifiers,
            content_type,
            user_properties,
        }
    }
}

prop_compose! {
    fn publish(version: ProtocolVersion)(
        dup in any::<bool>(),
        qos in qos(),
        retain in any::<bool>(),
        topic in topic(),
        omit in any::<bool>(),
        packet_id in packet_id(),
        payload in payload(),
        properties in prop_oneof![
            Just(PublishProperties::default()).boxed(),
            publish_properties().boxed(),
        ],
    ) -> Publish<'static> {
        let omit = omit && version.has_properties() && properties.topic_alias.is_some();
        let acknowledged = qos != QoS::AtMostOnce;
        Publish {
            dup: dup && acknowledged,
            qos,
            retain,
            topic: (!omit).then_some(topic),
            packet_id: acknowledged.then_some(packet_id),
            payload,
            properties,
        }
    }
}

prop_compose! {
    fn ack_properties()(
        reason_string in of(text()),
        user_properties in users(),
    ) -> AckProperties<'static> {
        AckProperties { reason_string, user_properties }
    }
}

prop_compose! {
    fn ack(packet: PacketType)(
        packet_id in packet_id(),
        reason_code in reason(packet),
        properties in ack_properties(),
    ) -> Ack<'static> {
        Ack { packet_id, reason_code, properties }
    }
}

prop_compose! {
    fn subscribe_filter()(
        filter in filter(),
        qos in qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        retain_handling in select(vec![
            RetainHandling::Always,
            RetainHandling::IfNew,
            RetainHandling::Never,
        ]),
    ) -> SubscribeFilter<'static> {
        let no_local = no_local && filter.shared().is_none();
        let options = SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
        SubscribeFilter { filter, options }
    }
}

prop_compose! {
    fn subscribe()(
        packet_id in packet_id(),
        filters in vec(subscribe_filter(), 1..5),
        subscription_identifier in of(identifier()),
        user_properties in users(),
    ) -> Subscribe<'static> {
        let properties = SubscribeProperties { subscription_identifier, user_properties };
        Subscribe { packet_id, filters, properties }
    }
}

prop_compose! {
    fn suback()(
        packet_id in packet_id(),
        reason_codes in vec(reason(PacketType::SubAck), 1..5),
        properties in ack_properties(),
    ) -> SubAck<'static> {
        SubAck { packet_id, reason_codes, properties }
    }
}

prop_compose! {
    fn unsubscribe()(
        packet_id in packet_id(),
        filters in vec(filter(), 1..5),
        user_properties in users(),
    ) -> Unsubscribe<'static> {
        let properties = UnsubscribeProperties { user_properties };
        Unsubscribe { packet_id, filters, properties }
    }
}

prop_compose! {
    fn unsuback()(
        packet_id in packet_id(),
        reason_codes in vec(reason(PacketType::UnsubAck), 1..5),
        properties in ack_properties(),
    ) -> UnsubAck<'static> {
        UnsubAck { packet_id, reason_codes, properties }
    }
}

prop_compose! {
    fn disconnect()(
        reason_code in reason(PacketType::Disconnect),
        session_expiry_interval in of(any::<u32>()),
        reason_string in of(text()),
        server_reference in of(text()),
        user_properties in users(),
    ) -> Disconnect<'static> {
        let properties = DisconnectProperties {
            session_expiry_interval,
            reason_string,
            server_reference,
            user_properties,
        };
        Disconnect { reason_code, properties }
    }
}

prop_compose! {
    fn auth()(
        reason_code in reason(PacketType::Auth),
        method in text(),
        authentication_data in of(binary()),
        reason_string in of(text()),
        user_properties in users(),
    ) -> Auth<'static> {
        let properties = AuthProperties {
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        };
        Auth { reason_code, properties }
    }
}

/// Every packet that the version has.
pub(crate) fn packet(version: ProtocolVersion) -> BoxedStrategy<Static> {
    let packets = prop_oneof![
        connect(version).prop_map(|packet| Packet::Connect(packet.into())),
        connack().prop_map(|packet| Packet::ConnAck(packet.into())),
        publish(version).prop_map(Packet::Publish),
        ack(PacketType::PubAck).prop_map(Packet::PubAck),
        ack(PacketType::PubRec).prop_map(Packet::PubRec),
        ack(PacketType::PubRel).prop_map(Packet::PubRel),
        ack(PacketType::PubComp).prop_map(Packet::PubComp),
        subscribe().prop_map(Packet::Subscribe),
        suback().prop_map(Packet::SubAck),
        unsubscribe().prop_map(Packet::Unsubscribe),
        unsuback().prop_map(Packet::UnsubAck),
        select(vec![Packet::PingReq, Packet::PingResp]),
        disconnect().prop_map(Packet::Disconnect),
    ];
    if version.has_enhanced_authentication() {
        prop_oneof![13 => packets, 1 => auth().prop_map(Packet::Auth)].boxed()
    } else {
        packets.boxed()
    }
}

/// Every packet of every version, with the version.
pub(crate) fn any_packet() -> impl Strategy<Value = (ProtocolVersion, Static)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}
