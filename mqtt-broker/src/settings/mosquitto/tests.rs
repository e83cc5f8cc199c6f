//! A mosquitto.conf of each kind, and what comes out.

use std::fs;
use std::path::Path;

use super::*;
use crate::auth::CertificateIdentity;
use crate::settings::Loaded;

pub(super) fn import(text: &str) -> Imported {
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

pub(super) fn loaded(imported: &Imported) -> Loaded {
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
    // With the two files of users and permissions, which there are not, and what belongs to the bridge.
    assert_eq!(imported.notes.len(), 8, "{notes}");
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

/// What was to be protected, or bound to less than everything, is not opened otherwise.
#[test]
fn a_listener_that_cannot_be_as_it_was_is_left_out() {
    for (lines, named) in [
        ("certfile c", "2: certfile"),
        ("keyfile k", "2: keyfile"),
        ("cafile c", "2: cafile"),
        ("capath c", "2: capath"),
        ("require_certificate true", "2: require_certificate"),
        ("require_certificate 1", "2: require_certificate"),
        ("psk_hint x", "2: psk_hint"),
        ("certfile c\nkeyfile k\npsk_hint x", "4: psk_hint"),
        (
            "certfile c\nkeyfile k\ncapath c\nrequire_certificate true",
            "5: require_certificate",
        ),
        ("certfile c\nkeyfile k\ncrlfile x", "4: crlfile"),
        ("bind_interface eth0", "2: bind_interface"),
        ("protocol mqttsn", "2: protocol"),
    ] {
        let imported = import(&format!("listener 1883\n{lines}\nlistener 1 127.0.0.1\n"));
        let [only] = &loaded(&imported).settings.listener[..] else {
            panic!("{lines}: {}", imported.toml)
        };
        assert_eq!(only.address.as_ref().unwrap().to_string(), "127.0.0.1:1");
        let expected = format!("mosquitto.conf:{named}: the listener is left out: ");
        assert!(
            imported
                .notes
                .iter()
                .any(|note| note.starts_with(&expected)),
            "{expected} in {:?}",
            imported.notes
        );
    }
    for line in [
        "listener 1883 example.org",
        "listener x",
        "listener 0",
        "port x",
    ] {
        let imported = import(&format!("{line}\nlistener 1 127.0.0.1\n"));
        assert_eq!(loaded(&imported).settings.listener.len(), 1, "{line}");
        assert!(imported.notes[0].contains(":1: "), "{:?}", imported.notes);
        assert!(
            imported.notes[0].contains("left out"),
            "{:?}",
            imported.notes
        );
    }
    let imported = import("listener 1883 127.0.0.1\nbind_interface lo\n");
    assert_eq!(loaded(&imported).settings.listener.len(), 1);
}

/// Nobody comes in unasked where the listeners of the file could not be had.
#[test]
fn without_a_listener_nobody_comes_in_unasked() {
    let imported = import("allow_anonymous true\nlistener 8883\npsk_hint x\n");
    let [only] = &loaded(&imported).settings.listener[..] else {
        panic!("{}", imported.toml)
    };
    assert_eq!(only.address.as_ref().unwrap().to_string(), "127.0.0.1:1883");
    assert_eq!(only.allow_anonymous, Some(false));
    assert!(
        imported
            .notes
            .last()
            .unwrap()
            .contains("no listener is left")
    );
}

/// Without `port` the options before the first `listener` are nobody's.
#[test]
fn options_before_the_first_listener() {
    let imported = import("max_connections 5\nlistener 1 127.0.0.1\n");
    let settings = loaded(&imported).settings;
    assert_eq!(settings.listener[0].max_connections, None);
    assert!(
        imported.notes[0].starts_with("mosquitto.conf:1: max_connections: "),
        "{:?}",
        imported.notes
    );
    let imported = import("bind_address 127.0.0.2\n");
    let settings = loaded(&imported).settings;
    assert_eq!(
        settings.listener[0].address.as_ref().unwrap().to_string(),
        "127.0.0.2:1883"
    );
    assert_eq!(settings.listener[0].allow_anonymous, Some(false));
}

/// The plug-ins of Mosquitto itself read the files that are read here.
#[test]
fn plug_ins_that_read_files() {
    let imported = import(
        "plugin /usr/lib/mosquitto_password_file.so
plugin_opt_password_file /no/passwords
plugin /usr/lib/mosquitto_acl_file.so
plugin_opt_acl_file /no/acl
listener 1 127.0.0.1
",
    );
    let auth = loaded(&imported).settings.auth;
    assert_eq!(
        auth.password_file.as_deref(),
        Some(Path::new("/no/passwords"))
    );
    assert_eq!(auth.acl_file.as_deref(), Some(Path::new("/no/acl")));

    let imported = import("plugin /usr/lib/other.so\nplugin_opt_acl_file /no/acl\n");
    assert_eq!(loaded(&imported).settings.auth.acl_file, None);
    for (note, start) in imported.notes.iter().zip([
        "mosquitto.conf:1: plugin: ",
        "mosquitto.conf:2: plugin_opt_acl_file: ",
    ]) {
        assert!(
            note.starts_with(start) && note.contains("permissions"),
            "{note}"
        );
    }
}

/// Those that are loaded by a name hold where they are used.
#[test]
fn plug_ins_that_are_loaded_and_used() {
    let load = "plugin_load users /usr/lib/mosquitto_password_file.so
plugin_opt_password_file /no/passwords
plugin_load other /usr/lib/other.so
plugin_opt_password_file /no/other
";
    let imported = import(&format!("{load}listener 1 127.0.0.1\nplugin_use users\n"));
    let settings = loaded(&imported).settings;
    let passwords = Some(Path::new("/no/passwords"));
    assert_eq!(settings.auth.password_file.as_deref(), passwords);

    let imported = import(&format!(
        "per_listener_settings true\n{load}listener 1 127.0.0.1\nplugin_use users\nlistener 2 127.0.0.1\nplugin_use other\n"
    ));
    let settings = loaded(&imported).settings;
    let own = settings.listener[0].auth.as_ref().unwrap();
    assert_eq!(own.password_file.as_deref(), passwords);
    assert_eq!(settings.listener[1].auth, None);
    for start in [
        "mosquitto.conf:4: plugin_load: plug-ins are not",
        "mosquitto.conf:5: plugin_opt_password_file: plug-ins are not",
        "mosquitto.conf:9: plugin_use: plug-ins are not",
    ] {
        let mut notes = imported.notes.iter();
        assert!(
            notes.any(|note| note.starts_with(start)),
            "{:?}",
            imported.notes
        );
    }
    // What is not used holds nowhere.
    let settings = loaded(&import(&format!("{load}listener 1 127.0.0.1\n"))).settings;
    assert_eq!(settings.auth.password_file, None);
}

/// The kind of address counts where none is named; who asks that clients come to the proxy by TLS is not opened to others.
#[test]
fn kinds_of_addresses_and_of_proxied_connections() {
    let address = |text: &str| {
        let settings = loaded(&import(text)).settings;
        settings.listener[0].address.as_ref().unwrap().to_string()
    };
    assert_eq!(address("listener 1\nsocket_domain ipv4\n"), "0.0.0.0:1");
    assert_eq!(address("listener 1\nsocket_domain ipv6\n"), "[::]:1");
    assert_eq!(
        address("listener 1 127.0.0.1\nsocket_domain ipv4\n"),
        "127.0.0.1:1"
    );
    let proxied = "listener 1 127.0.0.1\nlistener 2 127.0.0.1\nenable_proxy_protocol 2\n";
    let count = |more: &str| {
        loaded(&import(&format!("{proxied}{more}")))
            .settings
            .listener
            .len()
    };
    assert_eq!(count("proxy_protocol_v2_require_tls false\n"), 2);
    assert_eq!(count("proxy_protocol_v2_require_tls true\n"), 1);
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

/// The options of a listener are in its own file: each begins with none, and goes on with its own.
#[test]
fn listeners_end_with_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("conf.d");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.conf"), "listener 1 127.0.0.1").unwrap();
    fs::write(inner.join("b.conf"), "max_connections 5").unwrap();
    let file = directory.path().join("mosquitto.conf");
    let text = format!(
        "listener 2 127.0.0.1\ninclude_dir {}\ncertfile c\nkeyfile k\n",
        inner.display()
    );
    fs::write(&file, text).unwrap();
    let imported = import_mosquitto(&file).unwrap();
    let settings = loaded(&imported).settings;
    let [outer, inner] = &settings.listener[..] else {
        panic!("{}", imported.toml)
    };
    assert!(outer.tls.is_some() && inner.tls.is_none());
    assert_eq!(inner.max_connections, None);
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    assert!(imported.notes[0].contains("b.conf:1: max_connections: "));
}
