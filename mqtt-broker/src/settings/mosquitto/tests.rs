//! A mosquitto.conf of each kind, and what comes out.

use std::fs;
use std::path::Path;

use super::*;
use crate::auth::CertificateIdentity;
use crate::settings::Loaded;

fn import(text: &str) -> Imported {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mosquitto.conf");
    fs::write(&file, text).unwrap();
    let mut imported = import_mosquitto(&file).unwrap();
    let directory = format!("{}/", directory.path().display());
    for note in &mut imported.notes {
        *note = note.replace(&directory, "");
    }
    imported
}

fn loaded(imported: &Imported) -> Loaded {
    let parsed = Loaded::parse(
        Path::new("broker.toml"),
        imported.toml.clone(),
        core::iter::empty(),
    );
    parsed.unwrap_or_else(|problem| panic!("{problem}\n{}", imported.toml))
}

/// Nothing said: loopback, anonymous, nothing on the disk.
#[test]
fn the_empty_file() {
    let imported = import("# nothing\n\n");
    assert_eq!(
        imported.toml,
        "[store]\nin_memory = true\n\n[[listener]]\naddress = \"127.0.0.1:1883\"\nallow_anonymous = true\n"
    );
    assert!(imported.notes.is_empty());
    let mut warnings = Vec::new();
    assert_eq!(loaded(&imported).prepare(&mut warnings).unwrap().len(), 1);
}

#[test]
fn a_file_with_most_options() {
    let imported = import(
        "persistence true
persistence_location /var/lib/mosquitto/
max_keepalive 600
max_inflight_messages 40
max_packet_size 100000
persistent_client_expiration 2w
max_queued_messages 5000
log_type all
listener 1883 127.0.0.1
accept_protocol_versions 4, 5
max_qos 1
max_connections 50
mount_point a/b/
password_file /etc/passwords
acl_file /etc/acl
listener 8883
allow_anonymous true
cafile /etc/ca.crt
certfile /etc/server.crt
keyfile /etc/server.key
crlfile /etc/list.crl
require_certificate true
tls_version tlsv1.3
listener 9001
protocol websockets
websockets_origin https://example.org
listener 0 /run/mosquitto.sock
enable_proxy_protocol 2
connection cloud
address cloud.example.org
topic # out
",
    );
    let settings = loaded(&imported).settings;
    assert!(!settings.store.in_memory);
    assert_eq!(settings.store.directory, Path::new("/var/lib/mosquitto/"));
    assert_eq!(settings.limits.keep_alive_maximum.unwrap().get(), 600);
    assert_eq!(settings.limits.receive_maximum_v3.get(), 40);
    assert_eq!(settings.limits.max_packet_size.0, 100_000);
    assert_eq!(settings.limits.queue_messages, Some(5_000));
    assert_eq!(
        settings.auth.password_file.as_deref(),
        Some(Path::new("/etc/passwords"))
    );
    assert_eq!(settings.auth.allow_anonymous, Some(true));
    let expiry = settings.limits.session_expiry_maximum.unwrap();
    assert_eq!(expiry.0.as_secs(), 1_209_600);
    let [first, tls, websocket, unix] = &settings.listener[..] else {
        panic!("{}", imported.toml)
    };
    assert_eq!(
        first.address.as_ref().unwrap().to_string(),
        "127.0.0.1:1883"
    );
    assert_eq!(first.versions.len(), 2);
    assert_eq!(first.max_connections, Some(50));
    assert_eq!(first.mount_point.as_deref(), Some("a/b/"));
    assert_eq!(tls.address.as_ref().unwrap().to_string(), "[::]:8883");
    let files = tls.tls.as_ref().unwrap();
    assert!(files.require_client_certificate);
    assert_eq!(files.revocation_lists, [Path::new("/etc/list.crl")]);
    assert_eq!(
        websocket.websocket.as_ref().unwrap().origins,
        ["https://example.org"]
    );
    assert!(unix.proxy.is_some());
    let notes = imported.notes.join("\n");
    for expected in [
        "mosquitto.conf:2: persistence_location: ",
        "mosquitto.conf:25: protocol: ",
        "mosquitto.conf:28: enable_proxy_protocol: ",
        "mosquitto.conf:29: connection: bridges are not carried over",
    ] {
        assert!(notes.contains(expected), "{expected} in {notes}");
    }
    // What belongs to the bridge is named with it, and there are no such files of users and permissions.
    assert_eq!(imported.notes.len(), 6, "{notes}");
}

/// Each listener keeps its own files, its own word on anonymous clients, and certificates as users.
#[test]
fn listeners_keep_their_own_users() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    fs::write(&users, "anna:$6$YQ==$YQ==\n").unwrap();
    let imported = import(&format!(
        "per_listener_settings true
listener 1883 127.0.0.1
password_file {0}
allow_anonymous true
listener 8883 127.0.0.1
acl_file /no/such/acl
cafile /etc/ca.crt
certfile /etc/server.crt
keyfile /etc/server.key
require_certificate true
use_subject_as_username true
",
        users.display()
    ));
    let settings = loaded(&imported).settings;
    assert_eq!(settings.auth, Default::default());
    let [first, second] = &settings.listener[..] else {
        panic!("{}", imported.toml)
    };
    let auth = first.auth.as_ref().unwrap();
    assert_eq!(auth.password_file.as_deref(), Some(users.as_path()));
    assert_eq!((auth.allow_anonymous, &auth.acl_file), (Some(true), &None));
    let auth = second.auth.as_ref().unwrap();
    assert_eq!(auth.allow_anonymous, Some(false));
    assert_eq!(auth.acl_file.as_deref(), Some(Path::new("/no/such/acl")));
    assert_eq!(auth.certificate_identity, Some(CertificateIdentity::Dn));
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("mosquitto.conf:3: password_file: the file cannot"),
        "{notes}"
    );
    assert!(notes.contains("users:1: "), "{notes}");
    assert!(
        notes.contains("mosquitto.conf:6: acl_file: the file cannot"),
        "{notes}"
    );
}

/// What holds for all listeners is carried over to the one that takes users from certificates.
#[test]
fn certificates_as_users() {
    let imported = import(
        "allow_anonymous true
password_file /no/passwords
listener 1883 127.0.0.1
listener_allow_anonymous false
listener 8883 127.0.0.1
use_identity_as_username true
",
    );
    let settings = loaded(&imported).settings;
    assert_eq!(settings.auth.allow_anonymous, Some(true));
    let [first, second] = &settings.listener[..] else {
        panic!("{}", imported.toml)
    };
    assert_eq!((first.allow_anonymous, &first.auth), (Some(false), &None));
    let auth = second.auth.as_ref().unwrap();
    assert_eq!(auth.certificate_identity, Some(CertificateIdentity::Cn));
    assert_eq!(auth.password_file, settings.auth.password_file);
    assert_eq!(auth.allow_anonymous, Some(true));
}

/// Every option of the manual is carried over or named.
#[test]
fn nothing_is_lost_in_silence() {
    for option in [
        "plugin x.so",
        "psk_file f",
        "mount_point a",
        "memory_limit 5",
        "sys_interval 10",
        "clientid_prefixes x",
        "check_retain_source true",
        "upgrade_outgoing_qos true",
        "user mosquitto",
        "capath /etc",
        "http_dir /x",
        "listener 1883 example.org",
        "protocol http_api",
        "max_inflight_bytes 10",
        "allow_duplicate_messages false",
        "no_such_option 1",
        "max_keepalive x",
    ] {
        let imported = import(option);
        assert_eq!(imported.notes.len(), 1, "{option}");
        assert!(imported.notes[0].starts_with("mosquitto.conf:1: "));
        loaded(&imported);
    }
}

#[test]
fn directories_are_included() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("conf.d");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("b.conf"), "listener 2 127.0.0.1").unwrap();
    fs::write(inner.join("a.conf"), "listener 1 127.0.0.1").unwrap();
    fs::write(inner.join("c.txt"), "listener 3 127.0.0.1").unwrap();
    let file = directory.path().join("mosquitto.conf");
    fs::write(&file, format!("include_dir {}", inner.display())).unwrap();
    let imported = import_mosquitto(&file).unwrap();
    let addresses: Vec<_> = loaded(&imported)
        .settings
        .listener
        .iter()
        .map(|one| one.address.clone().unwrap().to_string())
        .collect();
    assert_eq!(addresses, ["127.0.0.1:1", "127.0.0.1:2"]);
    fs::write(
        inner.join("d.conf"),
        format!("include_dir {}", inner.display()),
    )
    .unwrap();
    let imported = import_mosquitto(&file).unwrap();
    assert!(
        imported
            .notes
            .iter()
            .any(|note| note.contains("each other"))
    );
    assert!(import_mosquitto(&directory.path().join("none")).is_err());
}
