//! The client against the server role of the session crate, which sends every message back.

use bytes::{Buf, BytesMut};
use mqtt_client::{Client, ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{ConnAck, Packet, PacketType, Publish, TopicName, decode};
use mqtt_session::{
    Connection, Durability, Negotiated, Outgoing, Persistence, ServerLimits, Session, Time,
    Transmission, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::peer::{message, options};

struct Echo {
    qos: QoS,
    topic: String,
    payload: Vec<u8>,
}

impl Echo {
    fn view(&self) -> Publish<'_> {
        let mut publish = Publish::new(TopicName::assume_valid(&self.topic), &self.payload);
        publish.qos = self.qos;
        publish
    }
}

impl Outgoing for Echo {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.qos
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        how.publish_len(self.view()).unwrap()
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        how.write_publish(self.view(), out).unwrap();
    }
}

async fn serve(mut stream: DuplexStream, limits: ServerLimits) {
    let now = Time::default();
    let mut input = BytesMut::new();
    let mut output = Vec::new();
    let mut connection: Option<Connection<Echo>> = None;
    let mut version = ProtocolVersion::V5;
    while stream.read_buf(&mut input).await.unwrap() > 0 {
        while let Some((packet, length)) = decode(&input, version, u32::MAX).unwrap() {
            match (packet, &mut connection) {
                (Packet::Connect(connect), None) => {
                    version = connect.version;
                    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
                    Negotiated::server(&limits, &connect)
                        .fill_connack(&connect, &mut connack.properties);
                    connack.encode(version, &mut output).unwrap();
                    let session = Session::new(Persistence::Ephemeral);
                    connection = Some(Connection::server(session, &limits, &connect, now));
                }
                (Packet::Publish(publish), Some(connection)) => {
                    let Verdict::Deliver(inbound) =
                        connection.handle_publish(now, &publish).unwrap()
                    else {
                        continue;
                    };
                    let token = inbound.token;
                    let echo = Echo {
                        qos: publish.qos,
                        topic: inbound.topic.as_str().to_owned(),
                        payload: publish.payload.to_vec(),
                    };
                    let _ = connection.accept(token, Durability::Now);
                    connection.push(echo);
                }
                (Packet::PubAck(ack), Some(connection)) => {
                    connection
                        .handle_ack(now, PacketType::PubAck, &ack)
                        .unwrap();
                }
                (Packet::PubRec(ack), Some(connection)) => {
                    connection
                        .handle_ack(now, PacketType::PubRec, &ack)
                        .unwrap();
                }
                (Packet::PubRel(ack), Some(connection)) => {
                    connection
                        .handle_ack(now, PacketType::PubRel, &ack)
                        .unwrap();
                }
                (Packet::PubComp(ack), Some(connection)) => {
                    connection
                        .handle_ack(now, PacketType::PubComp, &ack)
                        .unwrap();
                }
                (Packet::Disconnect(_), _) => return,
                (packet, _) => panic!("{packet:?}"),
            }
            input.advance(length);
        }
        if let Some(connection) = &mut connection {
            while connection.poll_transmit(now, &mut output, usize::MAX) {}
        }
        stream.write_all(&output).await.unwrap();
        output.clear();
    }
}

#[tokio::test(start_paused = true)]
async fn every_message_comes_back_once_and_in_order() {
    const COUNT: usize = 300;
    for version in ProtocolVersion::ALL {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            // A buffer of less than a packet: every packet arrives in pieces.
            let (near, far) = duplex(7);
            let server = tokio::spawn(serve(far, ServerLimits::default()));
            let options = options(version)
                .receive_maximum(16)
                .queue_capacity(8)
                .topic_alias_maximum(4);
            let client = Client::connect_with(near, options).await.unwrap();
            let mut incoming = client.unclaimed();
            let publisher = tokio::spawn({
                let client = client.clone();
                async move {
                    let mut receipts = Vec::new();
                    for number in 0..COUNT {
                        receipts.push(
                            client
                                .publish(message(qos, &number.to_string()))
                                .await
                                .unwrap(),
                        );
                    }
                    for receipt in receipts {
                        assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
                    }
                }
            });
            for number in 0..COUNT {
                let received = incoming.recv().await.unwrap();
                assert_eq!(received.payload()[..], *number.to_string().as_bytes());
                assert_eq!(received.quality(), qos);
            }
            publisher.await.unwrap();
            client.disconnect().await.unwrap();
            server.await.unwrap();
        }
    }
}
