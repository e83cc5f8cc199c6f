//! Keep alive: section 3.1.2.10, in virtual time.

use std::time::Duration;

use mqtt_codec::{ConnAck, ReasonCode};
use mqtt_session::{ClientConfig, Persistence, ServerLimits, Session, Time, Timeout};

use crate::end::{End, NOW, V3, V5, VERSIONS, connect};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn server(version: mqtt_codec::ProtocolVersion, keep_alive: u16) -> End {
    let mut connect = connect(version);
    connect.keep_alive = keep_alive;
    End::server(
        Session::new(Persistence::Ephemeral),
        &ServerLimits::default(),
        &connect,
    )
}

fn client(config: ClientConfig) -> End {
    End::client(
        Session::new(Persistence::Ephemeral),
        config,
        &ConnAck::new(ReasonCode::SUCCESS),
    )
}

/// [MQTT-3.1.2-22], [MQTT3-3.1.2-24]
#[test]
fn a_server_gives_up_after_one_and_a_half_times_the_keep_alive() {
    for version in VERSIONS {
        let mut end = server(version, 10);
        assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(15)));
        end.connection.received(NOW + secs(6));
        assert_eq!(
            end.connection.handle_timeout(NOW + secs(15)),
            Timeout::Nothing
        );
        assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(21)));
        assert_eq!(
            end.connection.handle_timeout(NOW + secs(21)),
            Timeout::KeepAlive
        );
    }
}

#[test]
fn without_keep_alive_there_is_no_timer() {
    let mut end = server(V5, 0);
    assert_eq!(end.connection.poll_timeout(), None);
    assert_eq!(
        end.connection.handle_timeout(Time::from_secs(u64::MAX)),
        Timeout::Nothing
    );
    let mut config = ClientConfig::new(V5);
    config.keep_alive = 0;
    assert_eq!(client(config).connection.poll_timeout(), None);
}

/// [MQTT-3.2.2-21] [MQTT-3.1.2-21]: the server's word counts at both ends.
#[test]
fn the_server_shortens_the_keep_alive_of_v5() {
    let mut limits = ServerLimits::default();
    limits.keep_alive_maximum = std::num::NonZeroU16::new(30);
    for (version, asked, expected) in [
        (V5, 60, 30),
        (V5, 0, 30),
        (V5, 20, 20),
        (V3, 60, 60),
        (V3, 0, 0),
    ] {
        let mut connect = connect(version);
        connect.keep_alive = asked;
        let end = End::server(Session::new(Persistence::Ephemeral), &limits, &connect);
        assert_eq!(end.connection.negotiated().keep_alive, expected);
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        end.connection
            .negotiated()
            .fill_connack(&connect, &mut connack.properties);
        let told = connack.properties.server_keep_alive;
        assert_eq!(
            told,
            (asked != expected).then_some(expected),
            "[MQTT-3.2.2-22]"
        );

        let mut config = ClientConfig::new(version);
        config.keep_alive = asked;
        let end = End::client(Session::new(Persistence::Ephemeral), config, &connack);
        assert_eq!(end.connection.negotiated().keep_alive, expected);
    }
}

/// Reading that is paused cannot see what the client sends.
#[test]
fn a_pause_in_reading_does_not_count() {
    let mut end = server(V5, 10);
    end.connection.pause_reading(NOW + secs(5));
    assert_eq!(end.connection.poll_timeout(), None);
    assert_eq!(
        end.connection.handle_timeout(NOW + secs(100)),
        Timeout::Nothing
    );
    end.connection.resume_reading(NOW + secs(100));
    assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(110)));
    end.connection.resume_reading(NOW + secs(500));
    assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(110)));
}

/// [MQTT-3.12.4-1]
#[test]
fn pingreq_is_answered() {
    let mut end = server(V5, 10);
    end.connection.handle_ping(NOW);
    assert_eq!(end.connection.unsent_acks(), 1);
    assert_eq!(end.written(), ["PINGRESP"]);
    assert!(end.written().is_empty());
}

/// [MQTT-3.1.2-20], [MQTT3-3.1.2-23]
#[test]
fn a_client_pings_when_it_has_sent_nothing_else() {
    for version in VERSIONS {
        let mut config = ClientConfig::new(version);
        config.keep_alive = 10;
        let mut end = client(config);
        end.now = NOW + secs(4);
        end.push(1, mqtt_codec::QoS::AtMostOnce);
        end.written();
        assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(14)));
        end.connection.sent(NOW + secs(5));
        assert_eq!(
            end.connection.handle_timeout(NOW + secs(14)),
            Timeout::Nothing
        );

        end.now = NOW + secs(15);
        assert_eq!(end.connection.handle_timeout(end.now), Timeout::Transmit);
        assert_eq!(end.written(), ["PINGREQ"]);
        assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(25)));
        end.connection.handle_ping(NOW + secs(16));
        assert_eq!(
            end.connection.handle_timeout(NOW + secs(24)),
            Timeout::Nothing
        );
        assert_eq!(
            end.connection.handle_timeout(NOW + secs(25)),
            Timeout::Transmit
        );
    }
}

#[test]
fn a_client_gives_up_without_pingresp() {
    let mut config = ClientConfig::new(V5);
    config.keep_alive = 10;
    config.ping_timeout = Some(secs(3));
    let mut end = client(config);
    end.connection.ping();
    assert_eq!(end.written(), ["PINGREQ"]);
    assert_eq!(end.connection.poll_timeout(), Some(NOW + secs(3)));
    end.connection.received(NOW + secs(1));
    assert_eq!(
        end.connection.handle_timeout(NOW + secs(3)),
        Timeout::KeepAlive
    );
}

/// A long wait for PINGRESP does not end the client's own duty to be heard.
#[test]
fn a_client_pings_again_while_it_waits() {
    let mut config = ClientConfig::new(V5);
    config.keep_alive = 10;
    config.ping_timeout = Some(secs(25));
    let mut end = client(config);
    for (at, outcome) in [
        (10, Timeout::Transmit),
        (20, Timeout::Transmit),
        (30, Timeout::Transmit),
        (35, Timeout::KeepAlive),
    ] {
        end.now = NOW + secs(at);
        assert_eq!(end.connection.poll_timeout(), Some(end.now));
        assert_eq!(end.connection.handle_timeout(end.now), outcome);
        if outcome == Timeout::Transmit {
            assert_eq!(end.written(), ["PINGREQ"]);
        }
    }
}
