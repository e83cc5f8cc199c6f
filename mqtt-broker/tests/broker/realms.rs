//! Listeners that let clients in in ways of their own.

use std::fs;
use std::sync::Arc;

use mqtt_broker::auth::{AuthPlan, AuthSettings, Authority};
use mqtt_broker::{Broker, Config, ListenerOptions, MemoryStore};
use mqtt_codec::{Connect, PacketType, QoS, ReasonCode, TopicName, Will};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::guarded::{Files, user, with_user};
use crate::harness::{Peer, V5, advance, broker_with, filter, hello, lasting, message, settle};

fn at(realm: &str) -> Arc<ListenerOptions> {
    let mut options = ListenerOptions::default();
    options.realm = Some(realm.into());
    Arc::new(options)
}

/// Everybody may come through the listeners but those named `staff`, who have permissions as well.
fn plan(files: &Files) -> AuthPlan {
    let mut plan = AuthPlan::new(AuthSettings::default());
    plan.realms.insert("staff".into(), files.settings.clone());
    plan
}

fn broker(plan: &AuthPlan) -> Broker {
    let mut config = Config::default();
    config.auth = Authority::load_plan(plan).unwrap();
    broker_with(config)
}

async fn accepted(broker: &Broker, realm: &str, connect: &Connect<'_>) -> Peer {
    let (peer, answer) = Peer::connect_through(broker, &at(realm), connect).await;
    assert_eq!(answer.connack().reason_code, ReasonCode::SUCCESS);
    peer
}

async fn refused(broker: &Broker, realm: &str, connect: &Connect<'_>, reason: ReasonCode) {
    let (mut peer, answer) = Peer::connect_through(broker, &at(realm), connect).await;
    assert_eq!(answer.connack().reason_code, reason);
    peer.expect_closed().await;
}

/// Each listener asks for what it asks for, and its permissions are those of its clients alone.
#[tokio::test(start_paused = true)]
async fn each_listener_has_its_own_users_and_permissions() {
    let files = Files::new("user anna\ntopic readwrite own/#\n");
    let broker = broker(&plan(&files));
    let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    refused(&broker, "staff", &user(V5, "nobody", "a"), wrong).await;
    refused(
        &broker,
        "staff",
        &hello(V5, "a"),
        ReasonCode::NOT_AUTHORIZED,
    )
    .await;
    let mut anna = accepted(&broker, "staff", &user(V5, "anna", "a")).await;
    let mut guest = accepted(&broker, "hall", &user(V5, "nobody", "b")).await;

    let wanted = vec![
        filter("other", QoS::AtMostOnce),
        filter("own/a", QoS::AtMostOnce),
    ];
    let codes = anna.subscribe_with(wanted, None).await;
    assert_eq!(codes, [ReasonCode::NOT_AUTHORIZED, ReasonCode(0)]);
    let mut writer = accepted(&broker, "hall", &hello(V5, "c")).await;
    guest.subscribe("#", QoS::AtMostOnce).await;
    writer
        .publish(&message("other", "x", QoS::AtLeastOnce))
        .await;
    guest.expect_message("other", "x", QoS::AtMostOnce).await;
    writer
        .publish(&message("own/a", "y", QoS::AtLeastOnce))
        .await;
    anna.expect_message("own/a", "y", QoS::AtMostOnce).await;
    guest.expect_message("own/a", "y", QoS::AtMostOnce).await;
    let id = anna
        .send_publish(&message("other", "z", QoS::AtLeastOnce))
        .await;
    let not = ReasonCode::NOT_AUTHORIZED;
    anna.expect_ack(PacketType::PubAck, id.unwrap(), not).await;
    guest.expect_nothing().await;
}

/// Whoever comes in without being asked does not get the session of a user by its identifier.
#[tokio::test(start_paused = true)]
async fn an_open_listener_is_no_way_to_the_sessions_of_others() {
    let files = Files::without_permissions();
    let broker = broker(&plan(&files));
    let anna = with_user(lasting(V5, "device"), "anna");
    let owner = accepted(&broker, "staff", &anna).await;
    let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
    refused(&broker, "hall", &lasting(V5, "device"), not_valid).await;
    refused(&broker, "hall", &anna, not_valid).await;
    owner.abort().await;
    refused(&broker, "hall", &anna, not_valid).await;
    let stranger = accepted(&broker, "hall", &lasting(V5, "other")).await;
    let ben = with_user(lasting(V5, "other"), "ben");
    refused(&broker, "staff", &ben, not_valid).await;
    drop(stranger);
}

/// A reload holds for the clients of each listener; those of others stay.
#[tokio::test(start_paused = true)]
async fn a_reload_looks_at_each_client_as_its_listener_does() {
    let files = Files::new("user anna\ntopic readwrite own/#\n");
    let mut plan = plan(&files);
    let broker = broker(&plan);
    let mut anna = accepted(&broker, "staff", &user(V5, "anna", "a")).await;
    let mut ben = accepted(&broker, "staff", &user(V5, "ben", "b")).await;
    let mut guest = accepted(&broker, "hall", &hello(V5, "c")).await;
    let passwords = files.settings.password_file.as_ref().unwrap();
    let text = fs::read_to_string(passwords).unwrap();
    let without_anna = text.split_once('\n').unwrap().1;
    fs::write(passwords, without_anna).unwrap();
    broker.reload_auth_plan(&plan).unwrap();
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    ben.expect_nothing().await;
    guest.expect_nothing().await;

    // The hall asks as well from now on.
    let mut closed = AuthSettings::default();
    closed.allow_anonymous = Some(false);
    plan.realms.insert("hall".into(), closed);
    broker.reload_auth_plan(&plan).unwrap();
    guest.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    ben.expect_nothing().await;
}

/// Who came when nobody was asked anywhere has to come again once its listener asks; who came through another stays,
/// with the permissions that hold there.
#[tokio::test(start_paused = true)]
async fn nobody_stays_unasked() {
    let files = Files::without_permissions();
    let broker = broker(&AuthPlan::default());
    let mut early = accepted(&broker, "staff", &hello(V5, "a")).await;
    let mut guest = accepted(&broker, "hall", &hello(V5, "b")).await;
    let mut passing = accepted(&broker, "yard", &hello(V5, "c")).await;
    let mut plan = plan(&files);
    let mut limited = AuthSettings::default();
    limited.acl_file = Some(files.write("limited", "topic readwrite hall/#\n"));
    plan.realms.insert("hall".into(), limited);
    broker.reload_auth_plan(&plan).unwrap();
    early.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    guest
        .publish(&message("hall/a", "x", QoS::AtLeastOnce))
        .await;
    let id = guest
        .send_publish(&message("yard/a", "x", QoS::AtLeastOnce))
        .await;
    let not = ReasonCode::NOT_AUTHORIZED;
    guest.expect_ack(PacketType::PubAck, id.unwrap(), not).await;
    passing
        .publish(&message("yard/a", "x", QoS::AtLeastOnce))
        .await;
}

/// A broker that finds what one before it has stored, what ends it, and its end.
fn start(plan: &AuthPlan, store: &MemoryStore) -> (Broker, oneshot::Sender<()>, JoinHandle<()>) {
    let mut config = Config::default();
    config.auth = Authority::load_plan(plan).unwrap();
    let broker = Broker::open_in_memory(config, store).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = broker
        .clone()
        .run(Vec::new(), async { drop(stopped.await) });
    (broker, stop, tokio::spawn(run))
}

/// A will that waits over a restart is published as its owner's permissions are then, though nobody knows through
/// which listener it came: where its user is known at one, that one decides, and a denial counts of each.
#[tokio::test(start_paused = true)]
async fn a_will_that_was_stored_is_not_published_where_that_is_denied_now() {
    let allowing = "user anna\ntopic readwrite a/#\n";
    for (hall_knows_her, now, published) in [
        (false, allowing, true),
        (false, "user anna\ntopic deny a/#\n", false),
        (false, "user anna\ntopic readwrite b/#\n", false),
        (true, "user anna\ntopic deny a/#\n", false),
        (true, "user anna\ntopic readwrite b/#\n", true),
    ] {
        for reloads in [false, true] {
            let files = Files::new(allowing);
            let mut plan = plan(&files);
            if hall_knows_her {
                plan.main = Files::without_permissions().settings;
                plan.main.password_file = files.settings.password_file.clone();
                plan.main.allow_anonymous = Some(true);
            }
            let store = MemoryStore::new();
            let (broker, stop, running) = start(&plan, &store);
            let mut connect = with_user(lasting(V5, "device"), "anna");
            let mut will = Will::new(TopicName::new("a/w").unwrap(), b"gone");
            will.properties.delay_interval = Some(100);
            connect.will = Some(will);
            accepted(&broker, "staff", &connect).await.abort().await;
            settle().await;
            stop.send(()).unwrap();
            drop(broker);
            running.await.unwrap();

            fs::write(files.settings.acl_file.as_ref().unwrap(), now).unwrap();
            let (broker, stop, running) = start(&plan, &store);
            if reloads {
                broker.reload_auth_plan(&plan).unwrap();
            }
            let mut guest = accepted(&broker, "hall", &hello(V5, "guest")).await;
            guest.subscribe("a/#", QoS::AtMostOnce).await;
            advance(101).await;
            if published {
                guest.expect_message("a/w", "gone", QoS::AtMostOnce).await;
            }
            guest.expect_nothing().await;
            stop.send(()).unwrap();
            drop((broker, guest));
            running.await.unwrap();
        }
    }
}

/// Where a client comes from whose session waits is not known after a start, nor of one that came when nobody was asked:
/// what may be for it at any listener is kept, and looked at when it comes.
#[tokio::test(start_paused = true)]
async fn what_waits_is_judged_by_the_listener_that_the_client_comes_through() {
    let files = Files::new("user ben\ntopic write #\n");
    let mut staff = files.settings.clone();
    staff.allow_anonymous = Some(true);
    staff.acl_file = Some(files.write("staff", "topic read own/#\nuser anna\ntopic read own/#\n"));
    let mut plan = AuthPlan::new(files.settings.clone());
    plan.realms.insert("staff".into(), staff);
    let store = MemoryStore::new();
    let start = |plan: &AuthPlan| start(plan, &store);
    let anna = with_user(lasting(V5, "anna"), "anna");
    let nobody = lasting(V5, "nobody");
    let ben = user(V5, "ben", "ben");
    let one = QoS::AtLeastOnce;

    // Nobody is asked.
    let (broker, stop, running) = start(&AuthPlan::default());
    let mut early = accepted(&broker, "staff", &nobody).await;
    early.subscribe("own/a", one).await;
    early.subscribe("other", one).await;
    early.abort().await;
    broker.reload_auth_plan(&plan).unwrap();
    let mut peer = accepted(&broker, "staff", &anna).await;
    peer.subscribe("own/a", one).await;
    peer.abort().await;
    let mut writer = accepted(&broker, "hall", &ben).await;
    writer.publish(&message("own/a", "1", one)).await;
    drop(writer);
    settle().await;
    stop.send(()).unwrap();
    drop(broker);
    running.await.unwrap();

    let (broker, stop, running) = start(&plan);
    // Nothing has changed.
    broker.reload_auth_plan(&plan).unwrap();
    let mut writer = accepted(&broker, "hall", &ben).await;
    writer.publish(&message("own/a", "2", one)).await;
    let id = writer.send_publish(&message("other", "x", one)).await;
    let unwanted = ReasonCode::NO_MATCHING_SUBSCRIBERS;
    writer
        .expect_ack(PacketType::PubAck, id.unwrap(), unwanted)
        .await;
    for connect in [&nobody, &anna] {
        let mut peer = accepted(&broker, "staff", connect).await;
        for text in ["1", "2"] {
            peer.expect_message("own/a", text, one).await;
        }
        peer.expect_nothing().await;
    }
    // Who comes through another listener has what that allows: nothing.
    writer.publish(&message("own/a", "3", one)).await;
    let mut peer = accepted(&broker, "hall", &anna).await;
    peer.expect_nothing().await;
    drop((peer, writer));
    settle().await;
    stop.send(()).unwrap();
    drop(broker);
    running.await.unwrap();
}
