//! SUBSCRIBE and UNSUBSCRIBE.

use mqtt_client::{
    Error, Filter, PacketId, ProtocolVersion, QoS, ReasonCode, RetainHandling, SubscribeOptions,
    SubscriptionIdentifier,
};
use mqtt_codec::{Packet, SubAck, UnsubAck};

use crate::peer::{connect, options};

async fn subscribe_packet_id(peer: &mut crate::peer::Peer) -> PacketId {
    peer.expect(|packet| match packet {
        Packet::Subscribe(subscribe) => subscribe.packet_id,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.packet_id,
        packet => panic!("{packet:?}"),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn subscribe_resolves_to_the_codes() {
    for version in ProtocolVersion::ALL {
        let (client, _incoming, mut peer) = connect(options(version)).await;
        let filters = [
            Filter::new("a/#").unwrap().qos(QoS::ExactlyOnce),
            Filter::new("b").unwrap(),
        ];
        let server = async {
            let id = subscribe_packet_id(&mut peer).await;
            let codes = vec![ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR];
            peer.send(Packet::SubAck(SubAck::new(id, codes))).await;
        };
        let (codes, ()) = tokio::join!(
            client.subscribe_unclaimed(filters, SubscribeOptions::new()),
            server
        );
        assert_eq!(
            codes.unwrap(),
            [ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR]
        );

        let server = async {
            let id = subscribe_packet_id(&mut peer).await;
            let codes = if version.has_reason_codes() {
                vec![ReasonCode::SUCCESS]
            } else {
                Vec::new()
            };
            peer.send(Packet::UnsubAck(UnsubAck::new(id, codes.clone())))
                .await;
            codes
        };
        let (codes, expected) = tokio::join!(client.unsubscribe(["a/#"]), server);
        assert_eq!(codes.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn options_and_properties_are_sent() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    let filter = Filter::new("a")
        .unwrap()
        .no_local(true)
        .retain_as_published(true);
    let filter = filter.retain_handling(RetainHandling::IfNew);
    let identifier = SubscriptionIdentifier::new(7).unwrap();
    let options = SubscribeOptions::new()
        .identifier(identifier)
        .user_property("k", "v");
    let _pending = tokio::spawn(async move { client.subscribe_unclaimed([filter], options).await });
    peer.expect(|packet| {
        let Packet::Subscribe(subscribe) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(
            subscribe.properties.subscription_identifier,
            Some(identifier)
        );
        assert_eq!(subscribe.properties.user_properties.len(), 1);
        let options = subscribe.filters[0].options;
        assert!(options.no_local && options.retain_as_published);
        assert_eq!(options.retain_handling, RetainHandling::IfNew);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_ends_the_connection() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    let server = async {
        let id = subscribe_packet_id(&mut peer).await;
        let codes = vec![ReasonCode::SUCCESS, ReasonCode::SUCCESS];
        peer.send(Packet::SubAck(SubAck::new(id, codes))).await;
        peer.expect_end(ReasonCode::PROTOCOL_ERROR).await;
        drop(peer);
    };
    let (answer, ()) = tokio::join!(client.subscribe(Filter::new("a").unwrap()), server);
    assert!(
        matches!(answer, Err(Error::Closed | Error::Unexpected(_))),
        "{answer:?}"
    );
    assert!(matches!(
        client.closed().await,
        Err(Error::Unexpected("SUBACK"))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_empty_request_is_refused_here() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    assert!(matches!(
        client.subscribe_with([], SubscribeOptions::new()).await,
        Err(Error::Encode(_))
    ));
    assert!(matches!(
        client.unsubscribe(["a#"]).await,
        Err(Error::Topic(_))
    ));
    peer.silent().await;
}
