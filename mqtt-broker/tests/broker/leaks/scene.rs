//! A broker with one source of permissions, and clients that come to it.

use core::time::Duration;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use mqtt_broker::auth::{AuthPlan, AuthSettings, Authority, Denial, HashKind, set_password};
use mqtt_broker::settings::Span;
use mqtt_broker::{Broker, Config, DropReason, ListenerOptions, MemoryStore, Peer as Address};
use mqtt_codec::{Auth, Connect, Packet, PacketType, ProtocolVersion, Publish, QoS, ReasonCode};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::guarded::{Files, with_user};
use crate::harness::{Peer, V5, hello, lasting, settle};
use crate::leaks::sources::{Shows, Source};
use crate::scram;
use crate::service::{Answer, Service};

pub(super) const SECRET: &str = "of thirty-two bytes, or of more!";

/// One broker, and what its clients need.
pub(super) struct Scene {
    pub(super) broker: Broker,
    pub(super) version: ProtocolVersion,
    pub(super) source: &'static Source,
    files: Arc<Files>,
    /// Who is asked about clients, where somebody is.
    service: Option<Arc<Service>>,
    mount: &'static str,
    inner: Arc<ListenerOptions>,
    outer: Arc<ListenerOptions>,
}

/// A client of 3.1.1 has one message in flight, one of 5.0 says so itself; and nearly all that waits is in the store
/// alone, where there is one.
fn config(plan: &AuthPlan) -> Config {
    let mut config = Config::default();
    config.auth = Authority::load_plan(plan).unwrap();
    config.receive_maximum_v3 = core::num::NonZeroU16::MIN;
    config.stored_window_bytes = 1_000;
    config
}

impl Scene {
    pub(super) fn new(
        source: &'static Source,
        mount: &'static str,
        version: ProtocolVersion,
    ) -> Self {
        let files = Files::without_permissions();
        if source.shows == Shows::Scram {
            let passwords = files.settings.password_file.as_ref().unwrap();
            for name in ["anna", "ben"] {
                let password = format!("{name}-scram");
                set_password(passwords, name, password.as_bytes(), HashKind::ScramSha256).unwrap();
            }
        }
        let mut inner = ListenerOptions::default();
        let mut outer = ListenerOptions::default();
        if mount.is_empty() {
            outer.realm = Some("outer".into());
        } else {
            inner.mount_point = Some(mount.into());
            inner.realm = Some("inner".into());
        }
        let mut scene = Self {
            broker: Broker::new(Config::default()),
            version,
            source,
            files: Arc::new(files),
            service: service(source, mount),
            mount,
            inner: Arc::new(inner),
            outer: Arc::new(outer),
        };
        scene.broker = Broker::new(config(&scene.plan(false)));
        tokio::spawn(
            scene
                .broker
                .clone()
                .run(Vec::new(), core::future::pending()),
        );
        scene
    }

    /// Anna's settings are those of the broker, or, behind the mount point, of a listener.
    fn plan(&self, narrowed: bool) -> AuthPlan {
        let mut settings = self.source.settings(&self.files, self.mount, narrowed);
        if let Some(service) = &self.service {
            let asked = service.settings(|http| http.cache = Span(Duration::ZERO));
            settings.http = asked.http;
        }
        let (main, other, realm) = match self.mount {
            "" => (settings, AuthSettings::default(), "outer"),
            _ => (AuthSettings::default(), settings, "inner"),
        };
        let mut plan = AuthPlan::new(main);
        plan.realms.insert(realm.into(), other);
        plan
    }

    /// Takes the messages of `late` from anna, or gives them back.
    pub(super) fn narrow(&self, narrowed: bool) {
        self.broker.reload_auth_plan(&self.plan(narrowed)).unwrap();
    }

    /// The same scene with a broker that has a store, until that is stopped.
    pub(super) fn with_store(&self, store: &MemoryStore, narrowed: bool) -> (Self, Running) {
        let config = config(&self.plan(narrowed));
        let scene = Self {
            broker: Broker::open_in_memory(config, store).unwrap(),
            files: Arc::clone(&self.files),
            service: self.service.clone(),
            inner: Arc::clone(&self.inner),
            outer: Arc::clone(&self.outer),
            ..*self
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let run = scene.broker.clone().run(Vec::new(), async move {
            // Stopped or dropped, it ends.
            let _ = stopped.await;
        });
        let running = tokio::spawn(run);
        (scene, Running { stop, running })
    }

    /// A topic of anna's.
    pub(super) fn own(&self, tail: &str) -> String {
        format!("t/{}/{tail}", self.source.own)
    }

    /// A topic that is not hers.
    pub(super) fn other(&self, tail: &str) -> String {
        format!("t/ben/{tail}")
    }

    /// The same as everybody else knows it.
    pub(super) fn whole(&self, topic: &str) -> String {
        format!("{}{topic}", self.mount)
    }

    pub(super) fn has_mount(&self) -> bool {
        !self.mount.is_empty()
    }

    /// Who may do everything, with a session that ends with the connection.
    pub(super) async fn root(&self, client_id: &str) -> Peer {
        let connect = hello(V5, client_id);
        let (peer, answer) = Peer::connect_through(&self.broker, &self.outer, &connect).await;
        assert_eq!(answer.connack().reason_code, ReasonCode::SUCCESS);
        peer
    }

    /// CONNECT of anna's, with a session that ends with the connection, and one message in flight at a time.
    pub(super) fn hello(&self) -> Connect<'static> {
        let mut connect = hello(self.version, "anna-c");
        self.set_window(&mut connect);
        connect
    }

    /// The same with a session that does not end.
    pub(super) fn lasting(&self) -> Connect<'static> {
        let mut connect = lasting(self.version, "anna-c");
        self.set_window(&mut connect);
        connect
    }

    fn set_window(&self, connect: &mut Connect<'_>) {
        if self.version.has_properties() {
            connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
        }
    }

    pub(super) async fn anna(&self) -> Peer {
        self.come(&self.hello()).await.0
    }

    /// Anna with this CONNECT, and whether her session was there.
    pub(super) async fn come(&self, connect: &Connect<'_>) -> (Peer, bool) {
        let (peer, reason, present) = self.knock("anna", connect).await;
        assert_eq!(reason, ReasonCode::SUCCESS);
        (peer, present)
    }

    /// Somebody must be refused for this reason.
    pub(super) async fn refused(&self, who: &str, connect: &Connect<'_>, expected: ReasonCode) {
        let (mut peer, reason, present) = self.knock(who, connect).await;
        assert_eq!(reason, expected, "{who}");
        assert!(!present);
        peer.expect_closed().await;
    }

    /// Somebody comes; returns what CONNACK says.
    async fn knock(&self, who: &str, connect: &Connect<'_>) -> (Peer, ReasonCode, bool) {
        let mut address = Address::named("test");
        let token;
        let first = scram::first(who);
        let mut connect = connect.clone();
        match self.source.shows {
            Shows::Nothing if who == "anna" => {}
            Shows::Nothing | Shows::Password | Shows::Service { .. } => {
                connect.username = Some(who);
                connect.password = with_user(hello(V5, ""), who).password;
            }
            Shows::Token { claims } => {
                token = self.token(who, claims.then(|| stated(self.mount, false)));
                connect.username = Some("whoever");
                connect.password = Some(token.as_bytes());
            }
            Shows::Certificate => address.certificate = Some(certificate(who)),
            Shows::Scram => {
                connect.properties.authentication_method = Some(scram::METHOD);
                connect.properties.authentication_data = Some(first.as_bytes());
            }
        }
        self.enter(address, who, &connect).await
    }

    /// Anna with a token that does not allow the messages of `late`, or with one that says nothing of permissions.
    pub(super) async fn come_with_token(&self, connect: &Connect<'_>, free: bool) -> (Peer, bool) {
        let token = self.token("anna", (!free).then(|| stated(self.mount, true)));
        let mut connect = connect.clone();
        connect.username = Some("whoever");
        connect.password = Some(token.as_bytes());
        let (peer, reason, present) = self.enter(Address::named("test"), "anna", &connect).await;
        assert_eq!(reason, ReasonCode::SUCCESS);
        (peer, present)
    }

    async fn enter(
        &self,
        address: Address,
        who: &str,
        connect: &Connect<'_>,
    ) -> (Peer, ReasonCode, bool) {
        let _still = self.service.is_some().then(Still::new);
        let mut peer = Peer::open_from(&self.broker, &self.inner, address, connect.version);
        peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
        let mut received = peer.receive().await;
        if let Packet::Auth(auth) = received.packet() {
            let server_first = auth.properties.authentication_data.unwrap_or_default();
            let server_first = core::str::from_utf8(server_first).unwrap();
            let (last, _) = scram::last(who, &format!("{who}-scram"), server_first);
            let mut answer = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, scram::METHOD);
            answer.properties.authentication_data = Some(last.as_bytes());
            peer.send(&Packet::Auth(answer)).await;
            received = peer.receive().await;
        }
        let connack = received.connack();
        let (reason, present) = (connack.reason_code, connack.session_present);
        (peer, reason, present)
    }

    fn token(&self, who: &str, claims: Option<Value>) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut body = json!({ "sub": who, "exp": since.unwrap().as_secs() + 1_000_000_000 });
        if let Some(claims) = claims {
            body["mqtt"] = claims;
        }
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::new(Algorithm::HS256), &body, &key).unwrap()
    }

    /// A message must be refused where the version can say so, acknowledged where it cannot, and counted.
    pub(super) async fn deny(&self, peer: &mut Peer, publish: &Publish<'_>) {
        let before = self.denied(Denial::Publish);
        let number = peer.send_publish(publish).await;
        let reason = match self.version.has_reason_codes() {
            true => ReasonCode::NOT_AUTHORIZED,
            false => ReasonCode::SUCCESS,
        };
        match (publish.qos, number) {
            (QoS::AtLeastOnce, Some(number)) => {
                peer.expect_ack(PacketType::PubAck, number, reason).await;
            }
            (QoS::ExactlyOnce, Some(number)) => {
                peer.expect_ack(PacketType::PubRec, number, reason).await;
                if !reason.is_error() {
                    peer.send_ack(PacketType::PubRel, number, reason).await;
                    peer.expect_ack(PacketType::PubComp, number, reason).await;
                }
            }
            _ => {}
        }
        peer.expect_nothing().await;
        assert_eq!(self.denied(Denial::Publish), before + 1);
    }

    pub(super) fn denied(&self, what: Denial) -> u64 {
        self.broker.counters().denied(what)
    }

    /// Messages that waited for somebody who may not receive them any more.
    pub(super) fn kept_from_reader(&self) -> u64 {
        self.broker.counters().dropped(DropReason::NotAuthorized)
    }
}

/// What a token or a service says that its user may do.
fn stated(mount: &str, narrowed: bool) -> Value {
    let own = format!("{mount}t/%u/#");
    let late = format!("{mount}t/%u/late/#");
    let denied: &[&String] = if narrowed { &[&late] } else { &[] };
    json!({
        "publish": [own],
        "subscribe": ["#"],
        "receive": [own],
        "deny_publish": denied,
        "deny_subscribe": denied,
    })
}

/// The service that lets clients in under their names, where the source is one.
fn service(source: &Source, mount: &'static str) -> Option<Arc<Service>> {
    let Shows::Service { claims: says_more } = source.shows else {
        return None;
    };
    let service = Service::start(None, move |_| {
        let mut answer = json!({ "result": "allow" });
        if says_more {
            answer["permissions"] = stated(mount, false);
        }
        Answer::json(&answer)
    });
    Some(Arc::new(service))
}

/// Time stands still while this is there, though everybody waits: for a socket of the system.
struct Still {
    _over: mpsc::Sender<()>,
}

impl Still {
    fn new() -> Self {
        let (over, waits) = mpsc::channel();
        // Time that is virtual does not move by itself while something blocks.
        tokio::task::spawn_blocking(move || waits.recv());
        Self { _over: over }
    }
}

/// A broker that can be stopped.
pub(super) struct Running {
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(super) async fn stop(self) {
        settle().await;
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
    }
}

/// A certificate of this name. Who checks it is not asked here.
fn certificate(name: &str) -> Arc<[u8]> {
    static BOTH: OnceLock<[Arc<[u8]>; 2]> = OnceLock::new();
    let [anna, ben] = BOTH.get_or_init(|| {
        ["anna", "ben"].map(|name| {
            let mut params = CertificateParams::default();
            let mut subject = DistinguishedName::new();
            subject.push(DnType::CommonName, name);
            params.distinguished_name = subject;
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().to_vec().into()
        })
    });
    Arc::clone(if name == "anna" { anna } else { ben })
}
