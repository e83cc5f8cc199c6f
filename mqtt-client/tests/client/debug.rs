//! `-d`: the packets on standard output, as mosquitto_pub and mosquitto_sub print them.

use mqtt_client::{ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::Packet;

use crate::peer::ack;
use crate::program::{broker, start, start_against, text};

/// What the program prints when it has ended well.
async fn printed(arguments: &[&str]) -> String {
    let output = start(arguments, "").await.unwrap();
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn pub_and_sub_tell_what_they_send_and_receive() {
    let port = broker().await.to_string();
    let place = ["-h", "127.0.0.1", "-p", &port, "-d", "-i", "X"];
    // Nobody is subscribed: a code of 5.0 that is no error.
    for (version, reason) in [("31", 0), ("311", 0), ("5", 16)] {
        let publish = ["pub", "-V", version, "-t", "a/b", "-m", "hello", "-q"];
        let run = |more: &'static [&'static str]| [&publish[..], more, &place].concat();
        let head = "Client X sending CONNECT\nClient X received CONNACK (0)\n";
        assert_eq!(
            printed(&run(&["0"])).await,
            format!(
                "{head}\
                Client X sending PUBLISH (d0, q0, r0, m0, 'a/b', ... (5 bytes))\n\
                Client X sending DISCONNECT\n"
            )
        );
        assert_eq!(
            printed(&run(&["1", "-r"])).await,
            format!(
                "{head}\
                Client X sending PUBLISH (d0, q1, r1, m1, 'a/b', ... (5 bytes))\n\
                Client X received PUBACK (Mid: 1, RC:{reason})\n\
                Client X sending DISCONNECT\n"
            )
        );
        assert_eq!(
            printed(&run(&["2"])).await,
            format!(
                "{head}\
                Client X sending PUBLISH (d0, q2, r0, m1, 'a/b', ... (5 bytes))\n\
                Client X received PUBREC (Mid: 1)\n\
                Client X sending PUBREL (m1)\n\
                Client X received PUBCOMP (Mid: 1, RC:0)\n\
                Client X sending DISCONNECT\n"
            )
        );
        let subscribe = ["sub", "-V", version, "-t", "a/b", "-t", "c/#", "-q", "1"];
        let more = ["-U", "d", "-C", "1"];
        let printed = printed(&[&subscribe[..], &more, &place].concat()).await;
        // What leaves while something comes has no order.
        let mut lines: Vec<_> = printed.lines().collect();
        assert_eq!(format!("{}\n{}\n", lines[0], lines[1]), head);
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "Client X received CONNACK (0)",
                "Client X received PUBLISH (d0, q1, r1, m1, 'a/b', ... (5 bytes))",
                "Client X received SUBACK",
                "Client X received UNSUBACK",
                "Client X sending CONNECT",
                "Client X sending DISCONNECT",
                "Client X sending PUBACK (m1, rc0)",
                "Client X sending SUBSCRIBE (Mid: 1, Topic: a/b, QoS: 1, Options: 0x00)",
                "Client X sending SUBSCRIBE (Mid: 1, Topic: c/#, QoS: 1, Options: 0x00)",
                "Client X sending UNSUBSCRIBE (Mid: 2, Topic: d)",
                "Subscribed (mid: 1): 1, 1",
                "hello",
            ]
        );
    }
}

#[tokio::test]
async fn a_client_without_identifier_and_a_refusal_are_shown() {
    const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
    let arguments = ["pub", "-t", "t", "-m", "x", "-q", "1", "-d"];
    let (output, mut peer) = start_against(V3, ReasonCode::SUCCESS, &arguments, "").await;
    peer.expect(|packet| match packet {
        Packet::Publish(publish) => assert_eq!(publish.qos, QoS::AtLeastOnce),
        packet => panic!("{packet:?}"),
    })
    .await;
    peer.send(Packet::PubAck(ack(1))).await;
    peer.expect(|packet| assert!(matches!(packet, Packet::Disconnect(_))))
        .await;
    drop(peer);
    let output = output.await.unwrap();
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with("Client (null) sending CONNECT\n"),
        "{stdout}"
    );

    let (output, peer) = start_against(V3, ReasonCode::NOT_AUTHORIZED, &arguments, "").await;
    drop(peer);
    let output = output.await.unwrap();
    let stdout = text(&output.stdout);
    assert!(
        stdout.ends_with("Client (null) received CONNACK (5)\n"),
        "{stdout}"
    );
}
