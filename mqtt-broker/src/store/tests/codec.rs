//! Records come back from their bytes, and other bytes do no harm.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use mqtt_codec::{PacketId, QoS, RetainHandling, SubscriptionIdentifier, SubscriptionOptions};
use mqtt_router::Subscription;
use mqtt_session::Time;

use crate::auth::Owner;
use crate::message::{Message, Parts};
use crate::store::codec::*;
use crate::store::record::{Entry, SessionRecord, WallTime, WillRecord};

fn any_qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn any_identifier() -> impl Strategy<Value = SubscriptionIdentifier> {
    (1..268_435_456_u32).prop_map(|id| SubscriptionIdentifier::new(id).unwrap())
}

fn any_time() -> impl Strategy<Value = Option<WallTime>> {
    proptest::option::of((0..u64::MAX).prop_map(WallTime))
}

fn any_message() -> impl Strategy<Value = Arc<Message>> {
    (
        ".{1,20}",
        vec(any::<u8>(), 0..20),
        vec(any::<u8>(), 0..300),
        any_qos(),
    )
        .prop_map(|(topic, properties, payload, qos)| {
            let parts = Parts {
                topic: topic.as_bytes(),
                properties: &properties,
                payload: &payload,
            };
            Arc::new(Message::new(parts, qos, None))
        })
}

fn shown(message: &Message) -> String {
    format!("{:?} {:?}", message.qos, message.parts())
}

fn any_owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        Just(Owner::Anybody),
        Just(Owner::Anonymous),
        ".{0,30}".prop_map(|user| Owner::User(user.into())),
    ]
}

/// A record that was written before sessions had owners belongs to whoever comes.
#[test]
fn sessions_of_format_1_are_read() {
    // Length and client identifier, expiry interval, no end, and no will.
    let record = decode_session(b"\x03dev\x3c\x00").unwrap();
    assert_eq!(&*record.client_id, "dev");
    assert_eq!(record.owner, Owner::Anybody);
    assert_eq!((record.expiry_interval, record.expires_at), (60, None));
    assert_eq!(decode_session(&encode_session(&record)), Ok(record));
}

proptest! {
    #[test]
    fn entries_come_back(
        message in any_message(),
        expires_at in any_time(),
        body in proptest::option::of(any::<u64>()),
        qos in any_qos(),
        retain in any::<bool>(),
        identifiers in proptest::option::of(vec(any_identifier(), 0..4)),
        group in proptest::option::of(".{0,20}"),
    ) {
        let entry = Entry {
            message: Arc::clone(&message),
            expires_at,
            body,
            qos,
            retain,
            identifiers: identifiers.map(Arc::from),
            group: group.map(Arc::from),
        };
        let value = encode_entry(&entry);
        prop_assert_eq!(entry_body(&value), Ok(body));
        let time = |at: WallTime| Time::from_millis(at.0);
        let back = decode_entry(&value, time, |_| Some(message)).unwrap();
        prop_assert_eq!(shown(&back.message), shown(&entry.message));
        prop_assert_eq!(
            (back.expires_at, back.body, back.qos, back.retain, back.identifiers, back.group),
            (expires_at, body, qos, retain, entry.identifiers, entry.group)
        );
    }

    #[test]
    fn messages_come_back(message in any_message(), expires_at in any_time()) {
        let value = encode_message(&message, expires_at);
        let time = |at: WallTime| Time::from_millis(at.0);
        let (back, at) = decode_message(&value, time).unwrap();
        prop_assert_eq!(shown(&back), shown(&message));
        prop_assert_eq!((at, back.expires_at), (expires_at, expires_at.map(time)));
    }

    #[test]
    fn sessions_come_back(
        client_id in ".{0,30}",
        owner in any_owner(),
        expiry_interval in any::<u32>(),
        times in (any_time(), any_time()),
        will in proptest::option::of((any::<u32>(), any::<u8>(), vec(any::<u8>(), 0..40))),
    ) {
        let will = will.map(|(delay, level, publish)| WillRecord {
            delay,
            due: times.1,
            level,
            publish: publish.into(),
        });
        let record = SessionRecord {
            client_id: client_id.into(),
            owner,
            expiry_interval,
            expires_at: times.0,
            will,
        };
        prop_assert_eq!(decode_session(&encode_session(&record)), Ok(record));
    }

    #[test]
    fn subscriptions_come_back(
        session in any::<u64>(),
        filter in prop_oneof![".{1,40}", (59_990..60_020_usize).prop_map(|n| "\u{e4}".repeat(n / 2))],
        bits in (any_qos(), any::<bool>(), any::<bool>(), 0..3_u8),
        identifier in proptest::option::of(any_identifier()),
    ) {
        let options = SubscriptionOptions {
            qos: bits.0,
            no_local: bits.1,
            retain_as_published: bits.2,
            retain_handling: match bits.3 {
                0 => RetainHandling::Always,
                1 => RetainHandling::IfNew,
                _ => RetainHandling::Never,
            },
        };
        let subscription = Subscription { options, identifier };
        let key = subscription_key(session, &filter);
        let Ok(StateKey::Subscription(number, in_key)) = decode_state_key(&key) else {
            panic!("a subscription");
        };
        let value = encode_subscription(&filter, &subscription);
        let back = decode_subscription(in_key, &value).unwrap();
        prop_assert_eq!((number, &*back.0, back.1), (session, &*filter, subscription));
    }

    #[test]
    fn numbers_come_back_and_keys_are_in_order(
        (a, b) in any::<(u64, u64)>(), (c, d) in any::<(u64, u64)>(), id in 1..=u16::MAX,
    ) {
        let id = PacketId::new(id).unwrap();
        prop_assert_eq!(decode_entry_key(&entry_key(a, b)), Ok((a, b)));
        prop_assert_eq!(entry_key(a, b).cmp(&entry_key(c, d)), (a, b).cmp(&(c, d)));
        prop_assert_eq!(decode_body_key(&body_key(a)), Ok(a));
        let key = flight_key(a, id);
 prop_assert_eq!(decode_state_key(&key), Ok(StateKey::Flight(a, id)));
        let key = received_key(a, id);
 prop_assert_eq!(decode_state_key(&key), Ok(StateKey::Received(a, id)));
        let key = session_key(a);
 prop_assert_eq!(decode_state_key(&key), Ok(StateKey::Session(a)));
        let marks = Marks { at: WallTime(a), next_session: b, next_body: c };
        prop_assert_eq!(decode_marks(&encode_marks(marks)), Ok(marks));
        for flight in [Flight::Sent { order: a, key: b }, Flight::Released { order: a }] {
            prop_assert_eq!(decode_flight(&encode_flight(flight)), Ok(flight));
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in vec(any::<u8>(), 0..60)) {
        let time = |at: WallTime| Time::from_millis(at.0);
        let _ = decode_state_key(&bytes);
        let _ = decode_entry_key(&bytes);
        let _ = decode_body_key(&bytes);
        let _ = decode_marks(&bytes);
        let _ = decode_flight(&bytes);
        let _ = decode_session(&bytes);
        let _ = decode_subscription(&bytes, &bytes);
        let _ = decode_message(&bytes, time);
        let _ = entry_body(&bytes);
        let _ = decode_entry(&bytes, time, |_| None);
    }
}
