//! TLS: who is let in, what the broker learns of them, and certificates that change.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mqtt_broker::{
    Broker, Listener, ListenerOptions, Peer as Address, RefusalReason, Tls, TlsOptions, TlsVersion,
    Transport,
};
use mqtt_codec::{Packet, QoS, ReasonCode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::harness::{ALL, Peer, V5, broker, message};

/// An authority, and the files that it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, serial: u64) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Writes a list of revoked certificates.
    fn revoke(&self, serial: u64) -> PathBuf {
        let date = |year| rcgen::date_time_ymd(year, 1, 1);
        let params = CertificateRevocationListParams {
            this_update: date(2020),
            next_update: date(2080),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date(2020),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        let file = self.file("list.pem");
        fs::write(&file, list.pem().unwrap()).unwrap();
        file
    }

    fn options(&self) -> TlsOptions {
        TlsOptions::new(self.file("server.pem"), self.file("server.key"))
    }

    /// A client that trusts the authority and shows the certificate of a name, if one is given.
    fn client(&self, identity: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.file("ca.pem"))).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![certificate(&self.file(&format!("{name}.pem")))];
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn through(options: &TlsOptions) -> Transport {
    let mut transport = Transport::default();
    transport.tls = Some(Tls::load(options).unwrap());
    transport
}

async fn shake_hands(
    broker: &Broker,
    transport: &Transport,
    client: ClientConfig,
) -> std::io::Result<TlsStream<DuplexStream>> {
    let (near, far) = tokio::io::duplex(1 << 16);
    broker.serve_through(
        far,
        Address::named("tls"),
        Arc::default(),
        transport.clone(),
    );
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client))
        .connect(name, near)
        .await
}

/// Whether a client is let in. In TLS 1.3 it learns that it is not only when it reads.
async fn is_let_in(broker: &Broker, transport: &Transport, client: ClientConfig) -> bool {
    let Ok(stream) = shake_hands(broker, transport, client).await else {
        return false;
    };
    let mut peer = Peer::over(stream, V5);
    let connect = crate::harness::hello(V5, "client");
    peer.send(&Packet::Connect(Box::new(connect))).await;
    peer.next().await.is_some()
}

#[tokio::test(start_paused = true)]
async fn messages_of_any_size_pass_in_every_version() {
    let broker = broker();
    let authority = Authority::new();
    authority.sign("server", 1);
    let transport = through(&authority.options());
    for version in ALL {
        let stream = shake_hands(&broker, &transport, authority.client(None)).await;
        let mut peer = Peer::over(stream.unwrap(), version);
        peer.introduce("client").await;
        peer.subscribe("topic", QoS::AtLeastOnce).await;
        for size in [0, 1, 20_000, 1_500_000] {
            let payload = "x".repeat(size);
            let sent = message("topic", &payload, QoS::AtLeastOnce);
            peer.send_publish(&sent).await;
            // The acknowledgement and the message come in any order.
            let mut received = 0;
            for _ in 0..2 {
                if let Packet::Publish(publish) = peer.receive().await.packet() {
                    received = publish.payload.len();
                }
            }
            assert_eq!(received, size);
        }
    }
}

/// TLS 1.2 as well, unless the listener says otherwise.
#[tokio::test(start_paused = true)]
async fn old_versions_are_refused_where_configured() {
    let broker = broker();
    let authority = Authority::new();
    authority.sign("server", 1);
    let mut options = authority.options();
    let old = || {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&authority.file("ca.pem"))).unwrap();
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    assert!(is_let_in(&broker, &through(&options), old()).await);
    options.minimum_version = TlsVersion::V1_3;
    assert!(!is_let_in(&broker, &through(&options), old()).await);
    assert!(is_let_in(&broker, &through(&options), authority.client(None)).await);
    assert_eq!(broker.counters().refused(RefusalReason::Tls), 1);
}

#[tokio::test(start_paused = true)]
async fn clients_show_certificates_where_they_must() {
    let broker = broker();
    let authority = Authority::new();
    let stranger = Authority::new();
    for (name, serial) in [("server", 1), ("good", 2), ("revoked", 3)] {
        authority.sign(name, serial);
    }
    stranger.sign("good", 2);
    fs::copy(authority.file("ca.pem"), stranger.file("ca.pem")).unwrap();
    let mut options = authority.options();
    options.client_authorities = Some(authority.file("ca.pem"));

    let transport = through(&options);
    let let_in = async |identity: Option<&str>| {
        is_let_in(&broker, &transport, authority.client(identity)).await
    };
    assert!(let_in(Some("good")).await);
    assert!(let_in(Some("revoked")).await);
    assert!(!let_in(None).await);
    assert!(!is_let_in(&broker, &transport, stranger.client(Some("good"))).await);
    assert_eq!(broker.counters().refused(RefusalReason::Tls), 2);

    options.revocation_lists = vec![authority.revoke(3)];
    let transport = through(&options);
    assert!(is_let_in(&broker, &transport, authority.client(Some("good"))).await);
    assert!(!is_let_in(&broker, &transport, authority.client(Some("revoked"))).await);

    options.require_client_certificate = false;
    let transport = through(&options);
    assert!(is_let_in(&broker, &transport, authority.client(None)).await);
    assert!(!is_let_in(&broker, &transport, authority.client(Some("revoked"))).await);
}

/// A list that comes later ends the connections of those whom it names, and no others; what had been shown is looked at
/// after each reload.
#[tokio::test]
async fn a_new_list_ends_connections() {
    let authority = Authority::new();
    authority.sign("server", 1);
    let broker = broker();
    let mut options = authority.options();
    options.client_authorities = Some(authority.file("ca.pem"));
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let listener = listener.with_transport(through(&options));
    let (address, control) = (listener.local_addr().unwrap(), listener.control());
    broker.listen(listener);
    let mut left = Vec::new();
    for serial in 2..5 {
        let name = format!("client-{serial}");
        authority.sign(&name, serial);
        let connector = TlsConnector::from(Arc::new(authority.client(Some(&name))));
        let stream = TcpStream::connect(address).await.unwrap();
        let server = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(server, stream).await.unwrap();
        let mut peer = Peer::over(stream, V5);
        peer.introduce(&name).await;
        left.push(peer);
    }
    for serial in 2..4 {
        options.revocation_lists = vec![authority.revoke(serial)];
        control.replace(ListenerOptions::default(), through(&options));
        let mut gone = left.remove(0);
        gone.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
        for peer in &mut left {
            peer.expect_nothing().await;
        }
    }
    control.replace(ListenerOptions::default(), through(&options));
    left[0].expect_nothing().await;
}

/// Who came without TLS does not stay when its listener comes to speak it; who came with it stays when it does not any
/// more, or with another certificate.
#[tokio::test]
async fn a_listener_that_comes_to_speak_tls_ends_plain_connections() {
    let authority = Authority::new();
    authority.sign("server", 1);
    let broker = broker();
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (address, control) = (listener.local_addr().unwrap(), listener.control());
    broker.listen(listener);
    let mut plain = Peer::over(TcpStream::connect(address).await.unwrap(), V5);
    plain.introduce("plain").await;
    control.replace(ListenerOptions::default(), Transport::default());
    broker.look_again();
    plain.expect_nothing().await;
    let encrypted = through(&authority.options());
    control.replace(ListenerOptions::default(), encrypted);
    broker.look_again();
    let told = plain.expect_disconnect(ReasonCode::NOT_AUTHORIZED);
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    told.expect("it stays");

    let connector = TlsConnector::from(Arc::new(authority.client(None)));
    let stream = TcpStream::connect(address).await.unwrap();
    let server = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(server, stream).await.unwrap();
    let mut secret = Peer::over(stream, V5);
    secret.introduce("secret").await;
    authority.sign("server", 2);
    for transport in [through(&authority.options()), Transport::default()] {
        control.replace(ListenerOptions::default(), transport);
        broker.look_again();
        secret.expect_nothing().await;
    }
}

/// Who came while a listener asked for no certificate, or for one only if there is one, does not stay when it comes to
/// ask for it; nor is a certificate worth anything that is not asked for any more.
#[tokio::test]
async fn a_listener_that_comes_to_ask_for_certificates_asks_those_who_are_there() {
    let authority = Authority::new();
    authority.sign("server", 1);
    authority.sign("pump", 2);
    let broker = broker();
    let open = authority.options();
    let mut asks = open.clone();
    asks.client_authorities = Some(authority.file("ca.pem"));
    let mut may = asks.clone();
    may.require_client_certificate = false;
    for before in [&open, &may] {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let listener = listener.with_transport(through(before));
        let (address, control) = (listener.local_addr().unwrap(), listener.control());
        broker.listen(listener);
        let come = async |identity: Option<&str>, client_id: &str| {
            let connector = TlsConnector::from(Arc::new(authority.client(identity)));
            let stream = TcpStream::connect(address).await.unwrap();
            let server = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(server, stream).await.unwrap();
            let mut peer = Peer::over(stream, V5);
            peer.introduce(client_id).await;
            peer
        };
        let mut nobody = come(None, "nobody").await;
        let mut pump = come(Some("pump"), "pump").await;
        control.replace(ListenerOptions::default(), through(&asks));
        broker.look_again();
        nobody.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
        if before == &open {
            // It was not asked, so it has shown nothing.
            pump.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
            continue;
        }
        pump.expect_nothing().await;

        let mut known = ListenerOptions::default();
        known.allow_anonymous = false;
        control.replace(known.clone(), through(&asks));
        broker.look_again();
        pump.expect_nothing().await;
        control.replace(known, through(&open));
        broker.look_again();
        pump.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    }
}

/// The error names the file at fault.
#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    authority.sign("server", 1);
    authority.sign("other", 2);
    fs::write(authority.file("empty"), "no PEM here").unwrap();
    let check = |change: &dyn Fn(&mut TlsOptions), file: &str| {
        let mut options = authority.options();
        change(&mut options);
        let error = Tls::load(&options).unwrap_err();
        assert_eq!(error.file, authority.file(file), "{error}");
    };
    check(
        &|options| options.certificate = authority.file("none"),
        "none",
    );
    check(
        &|options| options.certificate = authority.file("empty"),
        "empty",
    );
    check(&|options| options.key = authority.file("empty"), "empty");
    check(
        &|options| options.key = authority.file("other.key"),
        "other.key",
    );
    let roots = |options: &mut TlsOptions, file| {
        options.client_authorities = Some(authority.file(file));
    };
    check(&|options| roots(options, "empty"), "empty");
    check(
        &|options| {
            roots(options, "ca.pem");
            options.revocation_lists = vec![authority.file("empty")];
        },
        "empty",
    );
    let list = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
    fs::write(authority.file("broken.pem"), list).unwrap();
    check(
        &|options| {
            roots(options, "ca.pem");
            options.revocation_lists = vec![authority.revoke(3), authority.file("broken.pem")];
        },
        "broken.pem",
    );
}

/// Bytes that are no TLS end the connection and are counted; so does a handshake that does not go on.
#[tokio::test(start_paused = true)]
async fn garbage_and_silence_are_refused() {
    let broker = broker();
    let authority = Authority::new();
    authority.sign("server", 1);
    let transport = through(&authority.options());
    let serve = || {
        let (near, far) = tokio::io::duplex(1 << 16);
        broker.serve_through(
            far,
            Address::named("tls"),
            Arc::default(),
            transport.clone(),
        );
        near
    };
    let mut garbage = serve();
    tokio::io::AsyncWriteExt::write_all(&mut garbage, b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id")
        .await
        .unwrap();
    garbage.read_to_end(&mut Vec::new()).await.unwrap();
    let mut silence = serve();
    silence.read_to_end(&mut Vec::new()).await.unwrap();
    let counters = broker.counters();
    assert_eq!(counters.refused(RefusalReason::Tls), 1);
    assert_eq!(counters.refused(RefusalReason::TimedOut), 1);
}

/// An address that connects too fast is refused before the handshake: that would be the work.
#[tokio::test(start_paused = true)]
async fn the_rate_of_an_address_is_looked_at_before_the_handshake() {
    let authority = Authority::new();
    authority.sign("server", 1);
    let transport = through(&authority.options());
    let mut config = mqtt_broker::Config::default();
    config.connect_rate_per_address = core::num::NonZeroU32::new(2);
    let broker = crate::harness::broker_with(config);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let address: core::net::SocketAddr = "192.0.2.1:1000".parse().unwrap();
        broker.serve_through(far, address.into(), Arc::default(), transport.clone());
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(authority.client(None)));
        let Ok(stream) = connector.connect(name, near).await else {
            outcomes.push(None);
            continue;
        };
        let mut peer = Peer::over(stream, V5);
        let connect = crate::harness::hello(V5, "client");
        peer.send(&Packet::Connect(Box::new(connect))).await;
        outcomes.push(Some(peer.receive().await.connack().reason_code));
    }
    // Those who were let in are counted once.
    let success = Some(ReasonCode::SUCCESS);
    assert_eq!(outcomes, [success, success, None, None]);
    assert_eq!(broker.counters().refused(RefusalReason::TooFast), 2);
    assert_eq!(broker.counters().refused(RefusalReason::Tls), 0);
}
