//! A sequence of packets, made of the input field by field. Each that can be written is read as it was; together they
//! are a stream that gives the same packets again.
#![no_main]

use core::num::{NonZeroU16, NonZeroU32};

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mqtt_codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeFilter, SubscribeProperties, SubscriptionIdentifier, SubscriptionOptions, TopicFilter,
    TopicName, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperty, Will, WillProperties,
    decode,
};

/// Packets of one sequence.
const MOST: usize = 32;

/// Takes the fields of packets from the input.
struct Source<'a>(Unstructured<'a>);

impl<'a> Source<'a> {
    fn any<T: Arbitrary<'a>>(&mut self) -> Result<T> {
        self.0.arbitrary()
    }

    fn some<T>(&mut self, one: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        self.any::<bool>()?.then(|| one(self)).transpose()
    }

    fn list<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.0.int_in_range(0..=most)?;
        (0..count).map(|_| one(self)).collect()
    }

    fn maybe<T: Arbitrary<'a>>(&mut self) -> Result<Option<T>> {
        self.any()
    }

    fn qos(&mut self) -> Result<QoS> {
        Ok(*self
            .0
            .choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?)
    }

    fn packet_id(&mut self) -> Result<PacketId> {
        Ok(PacketId::from(self.any::<NonZeroU16>()?))
    }

    fn reason(&mut self) -> Result<ReasonCode> {
        Ok(ReasonCode(self.any()?))
    }

    fn topic(&mut self) -> Result<TopicName<'a>> {
        let text: &str = self.any()?;
        TopicName::new(text).or(Ok(TopicName::assume_valid("a")))
    }

    fn filter(&mut self) -> Result<TopicFilter<'a>> {
        let text: &str = self.any()?;
        TopicFilter::new(text).or(Ok(TopicFilter::assume_valid("$share/g/+/#")))
    }

    fn identifier(&mut self) -> Result<SubscriptionIdentifier> {
        let value = self.any::<u32>()? >> self.0.int_in_range(4..=31)?;
        SubscriptionIdentifier::new(value.max(1)).ok_or(arbitrary::Error::IncorrectFormat)
    }

    fn users(&mut self) -> Result<Vec<UserProperty<'a>>> {
        self.list(3, |it| {
            Ok(UserProperty {
                name: it.any()?,
                value: it.any()?,
            })
        })
    }

    fn ack_properties(&mut self) -> Result<AckProperties<'a>> {
        Ok(AckProperties {
            reason_string: self.maybe()?,
            user_properties: self.users()?,
        })
    }

    fn ack(&mut self) -> Result<Ack<'a>> {
        let mut ack = Ack::new(self.packet_id()?, self.reason()?);
        ack.properties = self.ack_properties()?;
        Ok(ack)
    }

    fn will(&mut self) -> Result<Will<'a>> {
        let mut will = Will::new(self.topic()?, self.any()?);
        will.qos = self.qos()?;
        will.retain = self.any()?;
        will.properties = WillProperties {
            delay_interval: self.maybe()?,
            payload_format_utf8: self.maybe()?,
            message_expiry_interval: self.maybe()?,
            content_type: self.maybe()?,
            response_topic: self.some(Self::topic)?,
            correlation_data: self.maybe()?,
            user_properties: self.users()?,
        };
        Ok(will)
    }

    fn connect(&mut self, version: ProtocolVersion) -> Result<Connect<'a>> {
        let mut connect = Connect::new(version, self.any()?);
        connect.clean_start = self.any()?;
        connect.keep_alive = self.any()?;
        connect.will = self.some(Self::will)?;
        connect.username = self.maybe()?;
        connect.password = self.maybe()?;
        connect.properties = ConnectProperties {
            session_expiry_interval: self.maybe()?,
            receive_maximum: self.maybe()?,
            maximum_packet_size: self.maybe::<NonZeroU32>()?,
            topic_alias_maximum: self.maybe()?,
            request_response_information: self.maybe()?,
            request_problem_information: self.maybe()?,
            authentication_method: self.maybe()?,
            authentication_data: self.maybe()?,
            user_properties: self.users()?,
        };
        Ok(connect)
    }

    fn connack(&mut self) -> Result<ConnAck<'a>> {
        let mut connack = ConnAck::new(self.reason()?);
        connack.session_present = self.any()?;
        connack.properties = ConnAckProperties {
            session_expiry_interval: self.maybe()?,
            receive_maximum: self.maybe()?,
            maximum_qos: self.some(Self::qos)?,
            retain_available: self.maybe()?,
            maximum_packet_size: self.maybe()?,
            assigned_client_identifier: self.maybe()?,
            topic_alias_maximum: self.maybe()?,
            reason_string: self.maybe()?,
            user_properties: self.users()?,
            wildcard_subscription_available: self.maybe()?,
            subscription_identifiers_available: self.maybe()?,
            shared_subscription_available: self.maybe()?,
            server_keep_alive: self.maybe()?,
            response_information: self.maybe()?,
            server_reference: self.maybe()?,
            authentication_method: self.maybe()?,
            authentication_data: self.maybe()?,
        };
        Ok(connack)
    }

    fn publish(&mut self) -> Result<Publish<'a>> {
        let mut publish = Publish::new(self.topic()?, self.any()?);
        publish.qos = self.qos()?;
        publish.packet_id = match publish.qos {
            QoS::AtMostOnce => None,
            _ => Some(self.packet_id()?),
        };
        publish.dup = self.any()?;
        publish.retain = self.any()?;
        publish.properties = PublishProperties {
            payload_format_utf8: self.maybe()?,
            message_expiry_interval: self.maybe()?,
            topic_alias: self.maybe()?,
            response_topic: self.some(Self::topic)?,
            correlation_data: self.maybe()?,
            subscription_identifiers: self.list(3, Self::identifier)?,
            content_type: self.maybe()?,
            user_properties: self.users()?,
        };
        if self.any()? {
            publish.topic = None;
        }
        Ok(publish)
    }

    fn subscribe_filter(&mut self) -> Result<SubscribeFilter<'a>> {
        let options = SubscriptionOptions {
            qos: self.qos()?,
            no_local: self.any()?,
            retain_as_published: self.any()?,
            retain_handling: *self.0.choose(&[
                RetainHandling::Always,
                RetainHandling::IfNew,
                RetainHandling::Never,
            ])?,
        };
        let mut filter = SubscribeFilter::new(self.filter()?, options.qos);
        filter.options = options;
        Ok(filter)
    }

    fn subscribe(&mut self) -> Result<Subscribe<'a>> {
        let mut subscribe =
            Subscribe::new(self.packet_id()?, self.list(3, Self::subscribe_filter)?);
        subscribe.properties = SubscribeProperties {
            subscription_identifier: self.some(Self::identifier)?,
            user_properties: self.users()?,
        };
        Ok(subscribe)
    }

    fn suback(&mut self) -> Result<SubAck<'a>> {
        let mut suback = SubAck::new(self.packet_id()?, self.list(3, Self::reason)?);
        suback.properties = self.ack_properties()?;
        Ok(suback)
    }

    fn unsubscribe(&mut self) -> Result<Unsubscribe<'a>> {
        let mut unsubscribe = Unsubscribe::new(self.packet_id()?, self.list(3, Self::filter)?);
        unsubscribe.properties = UnsubscribeProperties {
            user_properties: self.users()?,
        };
        Ok(unsubscribe)
    }

    fn unsuback(&mut self) -> Result<UnsubAck<'a>> {
        let mut unsuback = UnsubAck::new(self.packet_id()?, self.list(3, Self::reason)?);
        unsuback.properties = self.ack_properties()?;
        Ok(unsuback)
    }

    fn disconnect(&mut self) -> Result<Disconnect<'a>> {
        let mut disconnect = Disconnect::new(self.reason()?);
        disconnect.properties = DisconnectProperties {
            session_expiry_interval: self.maybe()?,
            reason_string: self.maybe()?,
            server_reference: self.maybe()?,
            user_properties: self.users()?,
        };
        Ok(disconnect)
    }

    fn auth(&mut self) -> Result<Auth<'a>> {
        let mut auth = Auth::new(self.reason()?, "");
        auth.properties = AuthProperties {
            authentication_method: self.maybe()?,
            authentication_data: self.maybe()?,
            reason_string: self.maybe()?,
            user_properties: self.users()?,
        };
        Ok(auth)
    }

    fn packet(&mut self, version: ProtocolVersion) -> Result<Packet<'a>> {
        Ok(match self.0.int_in_range(1..=15)? {
            1 => Packet::Connect(Box::new(self.connect(version)?)),
            2 => Packet::ConnAck(Box::new(self.connack()?)),
            3 => Packet::Publish(self.publish()?),
            4 => Packet::PubAck(self.ack()?),
            5 => Packet::PubRec(self.ack()?),
            6 => Packet::PubRel(self.ack()?),
            7 => Packet::PubComp(self.ack()?),
            8 => Packet::Subscribe(self.subscribe()?),
            9 => Packet::SubAck(self.suback()?),
            10 => Packet::Unsubscribe(self.unsubscribe()?),
            11 => Packet::UnsubAck(self.unsuback()?),
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(self.disconnect()?),
            _ => Packet::Auth(self.auth()?),
        })
    }
}

/// What was written is read whole, and gives the same bytes again; where the version carries everything, the same packet.
fn check(packet: &Packet<'_>, version: ProtocolVersion, written: &[u8]) {
    assert_eq!(packet.encoded_len(version), Ok(written.len()));
    let read = decode(written, version, u32::MAX);
    let Ok(Some((read, len))) = read else {
        panic!("{packet:?} was written and is not read: {read:?}");
    };
    assert_eq!(len, written.len());
    if version.has_properties() {
        assert_eq!(read, *packet);
    }
    assert_eq!(read.to_vec(version).as_deref(), Ok(written));
    for end in 0..written.len().min(64) {
        let part = decode(&written[..end], version, u32::MAX);
        assert_eq!(part, Ok(None), "{end} bytes of {packet:?}");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut source = Source(Unstructured::new(input));
    let number = source.0.int_in_range(0..=2).unwrap_or(0);
    let version = ProtocolVersion::ALL[number];
    let mut stream = Vec::new();
    let mut count = 0;
    for _ in 0..MOST {
        let Ok(packet) = source.packet(version) else {
            break;
        };
        let Ok(written) = packet.to_vec(version) else {
            let mut nothing = Vec::new();
            assert!(packet.encode(version, &mut nothing).is_err() && nothing.is_empty());
            continue;
        };
        check(&packet, version, &written);
        stream.extend(written);
        count += 1;
        if source.0.is_empty() {
            break;
        }
    }
    let mut rest = stream.as_slice();
    let mut read = 0;
    while let Ok(Some((_, len))) = decode(rest, version, u32::MAX) {
        rest = &rest[len..];
        read += 1;
    }
    assert_eq!((read, rest.len()), (count, 0));
});
