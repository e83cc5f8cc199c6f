//! Every option that Mosquitto has is carried over or named with its line, wherever it stands.

use super::tests::{import, loaded};

/// Options with a value that says something else than their default does.
const OPTIONS: &[&str] = &[
    // Users and permissions.
    "acl_file /no/acl",
    "allow_anonymous true",
    "password_file /no/passwords",
    "psk_file f",
    "plugin x.so",
    "global_plugin x.so",
    "auth_plugin x.so",
    "plugin_load name x.so",
    "plugin_use name",
    "plugin_opt_file x",
    "plugin_opt_password_file x",
    "plugin_opt_acl_file x",
    "auth_opt_file x",
    "auth_plugin_deny_special_chars true",
    "clientid_prefixes x",
    "allow_zero_length_clientid false",
    "auto_id_prefix x",
    "check_retain_source true",
    "enable_control_api true",
    "per_listener_settings true",
    // Limits.
    "max_connections 5",
    "global_max_connections 5",
    "global_max_clients 5",
    "max_inflight_messages 5",
    "max_inflight_bytes 5",
    "max_queued_messages 5",
    "max_queued_bytes 5",
    "queue_qos0_messages true",
    "max_packet_size 500",
    "message_size_limit 500",
    "memory_limit 100000000",
    "memory_limit 5",
    "max_keepalive 5",
    "max_keepalive x",
    "upgrade_outgoing_qos true",
    "allow_duplicate_messages true",
    "persistent_client_expiration 2w",
    "retain_available false",
    "retain_expiry_interval 5",
    "retain_expiry_interval 0",
    "set_tcp_nodelay false",
    "retry_interval 5",
    // What is kept.
    "persistence true",
    "retained_persistence true",
    "persistence_file x",
    "persistence_location /x",
    "autosave_interval 5",
    "autosave_on_changes true",
    // The log and the process.
    "log_dest file /x",
    "log_type all",
    "log_type error",
    "log_timestamp false",
    "log_timestamp_format %s",
    "log_facility 5",
    "connection_messages false",
    "websockets_log_level 5",
    "include_dir /no/such/directory",
    "pid_file /x",
    "user mosquitto",
    "sys_interval 5",
    // Listeners.
    "listener 1884 127.0.0.1",
    "listener 1884 example.org",
    "listener x",
    "accept_protocol_versions 5",
    "accept_protocol_versions x",
    "bind_address 127.0.0.2",
    "bind_address example.org",
    "port 1884",
    "bind_interface eth0",
    "socket_domain ipv6",
    "protocol websockets",
    "protocol http_api",
    "protocol mqttsn",
    "http_dir /x",
    "mount_point a",
    "mount_point a/",
    "max_qos 1",
    "maximum_qos 1",
    "max_topic_alias 5",
    "max_topic_alias_broker 5",
    "use_username_as_clientid true",
    "listener_allow_anonymous true",
    "listener_auto_id_prefix x",
    "enable_proxy_protocol 2",
    "proxy_protocol_v2_require_tls true",
    "packet_buffer_size 5",
    "websockets_headers_size 5",
    "websockets_origin https://example.org",
    // Their TLS.
    "cafile x",
    "capath x",
    "certfile x",
    "keyfile x",
    "ciphers x",
    "ciphers_tls1.3 x",
    "crlfile x",
    "dhparamfile x",
    "tls_version tlsv1.3",
    "tls_version tlsv1.1",
    "require_certificate true",
    "use_identity_as_username true",
    "use_subject_as_username true",
    "disable_client_cert_date_checks true",
    "tls_engine x",
    "tls_engine_kpass_sha1 x",
    "tls_keyform engine",
    "psk_hint x",
    // What nobody knows.
    "no_such_option 1",
];

const BRIDGES: &[&str] = &[
    "connection",
    "address",
    "addresses",
    "round_robin",
    "topic",
    "start_type",
    "threshold",
    "idle_timeout",
    "restart_timeout",
    "keepalive_interval",
    "cleansession",
    "local_cleansession",
    "remote_clientid",
    "clientid",
    "remote_username",
    "username",
    "remote_password",
    "password",
    "local_clientid",
    "local_username",
    "local_password",
    "notifications",
    "notifications_local_only",
    "notification_topic",
    "try_private",
    "bridge_protocol_version",
    "bridge_receive_maximum",
    "bridge_session_expiry_interval",
    "bridge_max_packet_size",
    "bridge_max_topic_alias",
    "bridge_outgoing_retain",
    "bridge_attempt_unsubscribe",
    "bridge_bind_address",
    "bridge_tcp_keepalive",
    "bridge_tcp_user_timeout",
    "bridge_reload_type",
    "bridge_cafile",
    "bridge_capath",
    "bridge_certfile",
    "bridge_keyfile",
    "bridge_insecure",
    "bridge_alpn",
    "bridge_tls_version",
    "bridge_ciphers",
    "bridge_ciphers_tls1.3",
    "bridge_tls_use_os_certs",
    "bridge_require_ocsp",
    "bridge_identity",
    "bridge_psk",
];

#[test]
fn nothing_is_lost_in_silence() {
    for before in [
        "",
        "listener 1883 127.0.0.1\n",
        "listener 1883 127.0.0.1\nconnection cloud\naddress example.org\n",
    ] {
        let without = import(before);
        let line = before.lines().count() + 1;
        for option in OPTIONS {
            let option = match *option {
                // With nothing said it is on.
                "allow_anonymous true" if before.is_empty() => "allow_anonymous false",
                option => option,
            };
            let imported = import(&format!("{before}{option}\n"));
            let name = option.split(' ').next().unwrap();
            let start = format!("mosquitto.conf:{line}: {name}: ");
            let is_named = imported.notes.iter().any(|note| note.starts_with(&start));
            assert!(
                is_named || imported.toml != without.toml,
                "{before}{option}: {:?}\n{}",
                imported.notes,
                imported.toml
            );
            loaded(&imported);
        }
    }
}

/// They are for a later version, and say nothing about anything else. Their passwords are not shown.
#[test]
fn every_option_of_a_bridge_is_named() {
    let without = import("");
    for before in ["", "connection cloud\n"] {
        let line = before.lines().count() + 1;
        for name in BRIDGES {
            let imported = import(&format!("{before}{name} secret\n"));
            let last = imported.notes.last().unwrap();
            let start = format!("mosquitto.conf:{line}: {name}: bridges are not");
            assert!(last.starts_with(&start), "{last}");
            assert!(!last.contains("secret"), "{last}");
            assert_eq!(imported.notes.len(), line);
            assert_eq!(imported.toml, without.toml);
        }
    }
}

/// Global options hold wherever they stand, behind a bridge too.
#[test]
fn options_behind_a_bridge_hold() {
    let imported = import(
        "listener 1883
allow_anonymous true
connection cloud
address example.org
remote_password secret
allow_anonymous false
password_file /no/passwords
acl_file /no/acl
max_connections 5
max_keepalive 60
",
    );
    let settings = loaded(&imported).settings;
    assert_eq!(settings.auth.allow_anonymous, None);
    assert!(settings.auth.password_file.is_some() && settings.auth.acl_file.is_some());
    assert_eq!(settings.limits.keep_alive_maximum.unwrap().get(), 60);
    assert_eq!(settings.listener[0].allow_anonymous, Some(false));
    assert_eq!(settings.listener[0].max_connections, Some(5));
}

#[test]
fn limits_with_an_equivalent() {
    let imported = import(
        "memory_limit 100000000
retain_expiry_interval 5
listener 1 127.0.0.1
max_topic_alias 5
listener 2 127.0.0.1
max_topic_alias 5
listener 3 127.0.0.1
max_topic_alias 7
",
    );
    let limits = loaded(&imported).settings.limits;
    assert_eq!(limits.memory.unwrap().0, 100_000_000);
    assert_eq!(limits.retained_sweep_interval.0.as_secs(), 300);
    assert_eq!(limits.topic_alias_maximum, 7);
    let notes: Vec<_> = imported
        .notes
        .iter()
        .filter(|note| note.contains("alias"))
        .collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("mosquitto.conf:8: max_topic_alias: "),
        "{notes:?}"
    );
    let imported = import("memory_limit 0\nmax_packet_size 0\n");
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
}
