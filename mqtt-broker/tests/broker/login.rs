//! Who is let in, and whose session is whose.

use std::fs;

use mqtt_broker::Peer as Address;
use mqtt_broker::auth::{AuthSettings, Authority, CertificateIdentity, Denial};
use mqtt_codec::{QoS, ReasonCode};

use crate::guarded::{Files, denied, refused, user, with_user};
use crate::harness::{ALL, Peer, V3_1_1, V5, broker, hello, lasting, message, settle};

/// Wrong user, wrong password, none: refused, and who guesses learns nothing from the answer.
#[tokio::test(start_paused = true)]
async fn only_who_shows_the_password_is_let_in() {
    for version in ALL {
        let files = Files::without_permissions();
        let broker = files.broker();
        let peer = Peer::accepted(&broker, &user(version, "anna", "one")).await;
        peer.disconnect().await;

        let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
        refused(&broker, &user(version, "nobody", "one"), wrong).await;
        let mut connect = user(version, "anna", "one");
        for password in [&b"ben-secret"[..], b"", b"anna-secret ", b"Anna-secret"] {
            connect.password = Some(password);
            refused(&broker, &connect, wrong).await;
        }
        connect.password = None;
        refused(&broker, &connect, wrong).await;
        assert_eq!(denied(&broker, Denial::Login), 6);
        let nameless = hello(version, "one");
        refused(&broker, &nameless, ReasonCode::NOT_AUTHORIZED).await;
        assert_eq!(denied(&broker, Denial::Login), 7);
    }
}

/// Nobody is asked where nothing says so, whatever name they give.
#[tokio::test(start_paused = true)]
async fn without_settings_everybody_is_let_in() {
    let broker = broker();
    Peer::accepted(&broker, &user(V5, "anybody", "one")).await;
    Peer::accepted(&broker, &hello(V5, "two")).await;
}

/// Who gives a name must prove it, though clients without one are let in.
#[tokio::test(start_paused = true)]
async fn anonymous_clients_are_let_in_where_they_may() {
    let mut files = Files::without_permissions();
    files.settings.allow_anonymous = Some(true);
    let broker = files.broker();
    Peer::accepted(&broker, &hello(V5, "one")).await;
    let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    refused(&broker, &user(V5, "nobody", "two"), wrong).await;

    let mut closed = AuthSettings::default();
    closed.allow_anonymous = Some(false);
    let mut config = mqtt_broker::Config::default();
    config.auth = Authority::load(&closed).unwrap();
    let broker = crate::harness::broker_with(config);
    refused(&broker, &hello(V5, "one"), ReasonCode::NOT_AUTHORIZED).await;
    refused(&broker, &user(V5, "anna", "two"), wrong).await;
}

/// A session belongs to the user who made it: nobody else resumes it, replaces it or ends its connection.
#[tokio::test(start_paused = true)]
async fn a_session_belongs_to_its_user() {
    for version in ALL {
        let files = Files::without_permissions();
        let broker = files.broker();
        let own = with_user(lasting(version, "device"), "anna");
        let mut owner = Peer::accepted(&broker, &own).await;
        owner.subscribe("for/anna", QoS::AtLeastOnce).await;

        let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
        let mut other = with_user(lasting(version, "device"), "ben");
        refused(&broker, &other, not_valid).await;
        other.clean_start = true;
        refused(&broker, &other, not_valid).await;
        owner.expect_nothing().await;

        owner.abort().await;
        refused(&broker, &other, not_valid).await;
        other.clean_start = false;
        refused(&broker, &other, not_valid).await;
        assert_eq!(denied(&broker, Denial::Session), 4);

        let mut ben = Peer::accepted(&broker, &user(version, "ben", "another")).await;
        ben.publish(&message("for/anna", "kept", QoS::AtLeastOnce))
            .await;
        let (mut owner, present) = Peer::resumed(&broker, &own).await;
        assert_eq!(present, version.has_session_present());
        owner
            .expect_message("for/anna", "kept", QoS::AtLeastOnce)
            .await;

        // What has ended belongs to nobody.
        owner.abort().await;
        let mut last = own.clone();
        last.clean_start = true;
        last.properties.session_expiry_interval = None;
        Peer::accepted(&broker, &last).await.disconnect().await;
        Peer::accepted(&broker, &other).await;
    }
}

/// A session of nobody in particular is not resumed by a user, nor a user's by nobody in particular.
#[tokio::test(start_paused = true)]
async fn anonymous_sessions_are_apart() {
    let mut files = Files::without_permissions();
    files.settings.allow_anonymous = Some(true);
    let broker = files.broker();
    let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
    let nameless = Peer::accepted(&broker, &lasting(V5, "one")).await;
    refused(&broker, &with_user(lasting(V5, "one"), "anna"), not_valid).await;
    nameless.abort().await;
    refused(&broker, &with_user(lasting(V5, "one"), "anna"), not_valid).await;
    let (_, present) = Peer::resumed(&broker, &lasting(V5, "one")).await;
    assert!(present);

    Peer::accepted(&broker, &with_user(lasting(V5, "two"), "anna")).await;
    refused(&broker, &lasting(V5, "two"), not_valid).await;
}

/// Whose session it is stands in the data directory. One from before users were asked is the first user's.
#[tokio::test]
async fn owners_outlive_the_broker() {
    let files = Files::without_permissions();
    let directory = tempfile::TempDir::new().unwrap();
    let start = |config: mqtt_broker::Config| {
        let broker = mqtt_broker::Broker::open(config, directory.path()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let run = broker.clone().run(Vec::new(), async move {
            let _ = stopped.await;
        });
        (broker, stop, tokio::spawn(run))
    };
    let (broker, stop, running) = start(mqtt_broker::Config::default());
    Peer::accepted(&broker, &lasting(V3_1_1, "early"))
        .await
        .disconnect()
        .await;
    drop((stop, broker));
    running.await.unwrap();

    let (broker, stop, running) = start(files.config());
    let anna = Peer::accepted(&broker, &with_user(lasting(V3_1_1, "late"), "anna")).await;
    anna.disconnect().await;
    let (anna, present) =
        Peer::resumed(&broker, &with_user(lasting(V3_1_1, "early"), "anna")).await;
    assert!(present);
    anna.disconnect().await;
    drop((stop, broker));
    running.await.unwrap();

    let (broker, stop, running) = start(files.config());
    for id in ["early", "late"] {
        let ben = with_user(lasting(V3_1_1, id), "ben");
        refused(&broker, &ben, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID).await;
        let (_, present) = Peer::resumed(&broker, &with_user(lasting(V3_1_1, id), "anna")).await;
        assert!(present);
    }
    drop((stop, broker));
    running.await.unwrap();
}

/// Who would no longer be let in is disconnected by a reload; a bad file changes nothing.
#[tokio::test(start_paused = true)]
async fn a_reload_disconnects_whom_it_does_not_let_in() {
    let files = Files::without_permissions();
    let broker = files.broker();
    let mut anna = Peer::accepted(&broker, &user(V5, "anna", "one")).await;
    let mut ben = Peer::accepted(&broker, &user(V5, "ben", "two")).await;
    let passwords = files.settings.password_file.as_ref().unwrap();
    let text = fs::read_to_string(passwords).unwrap();
    fs::write(passwords, "anna\n").unwrap();
    let error = broker.reload_auth(&files.settings).unwrap_err().to_string();
    assert!(error.contains("passwords:1: "), "{error}");
    anna.expect_nothing().await;

    let without_anna: String = text
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(passwords, without_anna).unwrap();
    broker.reload_auth(&files.settings).unwrap();
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    ben.expect_nothing().await;
    let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    refused(&broker, &user(V5, "anna", "one"), wrong).await;
    settle().await;
}

/// A peer with a certificate of this name.
fn of(name: &str) -> Address {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let mut address = Address::named("test");
    address.certificate = Some(params.self_signed(&key).unwrap().der().as_ref().into());
    address
}

async fn come_as(
    broker: &mqtt_broker::Broker,
    address: Address,
    connect: &mqtt_codec::Connect<'_>,
) -> (Peer, ReasonCode) {
    let (near, far) = tokio::io::duplex(1 << 16);
    broker.serve_with(far, address, std::sync::Arc::default());
    let mut peer = Peer::over(near, V5);
    peer.send(&mqtt_codec::Packet::Connect(Box::new(connect.clone())))
        .await;
    let code = peer.receive().await.connack().reason_code;
    (peer, code)
}

/// Whom a certificate names otherwise after a reload, or not at all, does not stay as who it was.
#[tokio::test(start_paused = true)]
async fn a_reload_reads_certificates_as_it_says() {
    use CertificateIdentity::{Cn, Dn, San};
    let cases = [
        (Some(Cn), hello(V5, "a"), Some(Cn), true),
        // A DN of this name is another user, and there is no SAN.
        (Some(Cn), hello(V5, "a"), Some(Dn), false),
        (Some(Cn), hello(V5, "a"), Some(San), false),
        (Some(Cn), hello(V5, "a"), None, false),
        // With a password it was who the certificate names as well, or is not.
        (None, user(V5, "anna", "a"), Some(Cn), true),
        (None, user(V5, "ben", "a"), Some(Cn), false),
        (None, hello(V5, "a"), Some(Cn), false),
    ];
    for (before, connect, after, stays) in cases {
        let mut files = Files::without_permissions();
        files.settings.allow_anonymous = Some(true);
        files.settings.certificate_identity = before;
        let broker = files.broker();
        let (mut peer, code) = come_as(&broker, of("anna"), &connect).await;
        assert_eq!(code, ReasonCode::SUCCESS);
        let mut other = Peer::accepted(&broker, &user(V5, "ben", "b")).await;
        files.settings.certificate_identity = after;
        broker.reload_auth(&files.settings).unwrap();
        if stays {
            peer.expect_nothing().await;
        } else {
            peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
        }
        other.expect_nothing().await;
    }
}

/// A certificate that its listener checked is the user, whatever CONNECT says; without one the password counts.
#[tokio::test(start_paused = true)]
async fn a_certificate_is_the_user() {
    let mut files = Files::new("user pump\ntopic write up\nuser anna\ntopic read up\n");
    files.settings.certificate_identity = Some(CertificateIdentity::Cn);
    let broker = files.broker();
    let connect_as = async |address: Address, connect: &mqtt_codec::Connect<'_>| {
        come_as(&broker, address, connect).await
    };
    let mut anna = Peer::accepted(&broker, &user(V5, "anna", "anna")).await;
    anna.subscribe("up", QoS::AtMostOnce).await;
    let claims_to_be_anna = user(V5, "anna", "one");
    for connect in [hello(V5, "two"), claims_to_be_anna] {
        let (mut pump, code) = connect_as(of("pump"), &connect).await;
        assert_eq!(code, ReasonCode::SUCCESS);
        pump.publish(&message("up", "text", QoS::AtLeastOnce)).await;
        anna.expect_message("up", "text", QoS::AtMostOnce).await;
        let wanted = vec![crate::harness::filter("up", QoS::AtMostOnce)];
        let codes = pump.subscribe_with(wanted, None).await;
        assert_eq!(codes, [ReasonCode::NOT_AUTHORIZED]);
    }
    let (_, code) = connect_as(of(""), &user(V5, "anna", "three")).await;
    assert_eq!(code, ReasonCode::NOT_AUTHORIZED);
    refused(&broker, &hello(V5, "four"), ReasonCode::NOT_AUTHORIZED).await;
}
