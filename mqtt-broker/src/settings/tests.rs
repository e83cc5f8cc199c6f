//! Configurations that are right, wrong and odd.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::auth::{AuthSettings, HttpSettings, JwtSettings};
use crate::config::Durability;

fn parse(text: &str) -> Result<Loaded, String> {
    Loaded::parse(
        Path::new("broker.toml"),
        text.to_owned(),
        core::iter::empty(),
    )
    .map_err(|problem| problem.to_string())
}

fn prepare(text: &str) -> Result<(Vec<Prepared>, Vec<String>), String> {
    let mut warnings = Vec::new();
    let prepared = parse(text)?.prepare(&mut warnings);
    let warnings = warnings.iter().map(ToString::to_string).collect();
    prepared
        .map(|prepared| (prepared, warnings))
        .map_err(|problem| problem.to_string())
}

/// The file in the repository is what the types say.
#[test]
fn the_example_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker.example.toml");
    let written = fs::read_to_string(&file).unwrap_or_default();
    let ours = example();
    if written != ours && std::env::var_os("UPDATE_EXAMPLE").is_some() {
        fs::write(&file, &ours).unwrap();
        return;
    }
    assert!(
        written == ours,
        "broker.example.toml differs: run this test with UPDATE_EXAMPLE=1"
    );
}

/// As it stands the example says nothing but the address, and with every default spoken out the same.
#[test]
fn the_example_says_what_is_the_default() {
    let address = "127.0.0.1:1883".parse().unwrap();
    let expected = Settings {
        listener: vec![ListenerSettings::on(address)],
        ..Settings::default()
    };
    assert_eq!(parse(&example()).unwrap().settings, expected);

    let uncomment = |with_examples: bool| {
        let lines = example();
        let lines = lines.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !line.contains("FILE") => {
                if with_examples || !rest.ends_with("# default: none") {
                    rest.to_owned()
                } else {
                    line.to_owned()
                }
            }
            Some(rest) if rest.starts_with('[') && rest.contains('.') && !rest.contains(' ') => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut spoken = expected;
    spoken.auth.jwt = Some(JwtSettings::default());
    spoken.auth.http = Some(HttpSettings::default());
    if let Some(listener) = spoken.listener.first_mut() {
        listener.auth = Some(AuthSettings::default());
        listener.tls = Some(TlsSettings::default());
        listener.websocket = Some(WebSocketSettings::default());
        listener.proxy = Some(ProxySettings::default());
    }
    assert_eq!(parse(&uncomment(false)).unwrap().settings, spoken);
    let all = parse(&uncomment(true)).unwrap().settings;
    assert_eq!(all.limits.max_connections, Some(10_000));
    assert_eq!(all.listener[0].max_connections, Some(1_000));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let cases = [
        (
            "[limits]\nmax_conections = 5",
            "broker.toml:2:1",
            "did you mean `max_connections`?",
        ),
        ("[limit]\n", "broker.toml:1:2", "did you mean `limits`?"),
        ("[limits]\nmaximum_qos = 3", "broker.toml:2:15", "0, 1 or 2"),
        (
            "[limits]\nconnect_timeout = \"10 x\"",
            "broker.toml:2:19",
            "\"10s\"",
        ),
        (
            "[limits]\nconnect_timeout = 0",
            "broker.toml:2:1",
            "no time",
        ),
        (
            "[limits]\nmemory = \"31 MiB\"",
            "broker.toml:2:1",
            "less than 32 MiB",
        ),
        (
            "[limits]\nmax_packet_size = \"63 B\"",
            "broker.toml:2:1",
            "64 bytes",
        ),
        (
            "[limits]\nreceive_maximum = 0",
            "broker.toml:2:19",
            "nonzero",
        ),
        ("[limits\n", "broker.toml:1:8", ""),
        ("[store]\ndurability = \"disc\"", "broker.toml:2:14", "disk"),
        (
            "[[listener]]\naddress = \"localhost\"",
            "broker.toml:2:11",
            "IP:PORT",
        ),
        (
            "[[listener]]\nversions = [\"4\"]",
            "broker.toml:2:",
            "3.1.1",
        ),
        ("[[listener]]\n", "broker.toml:1:1", "needs an `address`"),
        (
            "[[listener]]\naddress = \"0.0.0.0:1883\"",
            "broker.toml:2:1",
            "allow_anonymous = true",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:1\"",
            "broker.toml:4:1",
            "same address",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nmode = \"999\"",
            "broker.toml:3:1",
            "octal",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.tls]\ncertificate = \"x\"",
            "broker.toml:3:11",
            "`key`",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.tls]\ncertificate = \"x\"\nkey = \"y\"",
            "broker.toml:4:1",
            "x:",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.proxy]",
            "broker.toml:3:11",
            "trusted",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.websocket]\npath = \"mqtt\"",
            "broker.toml:4:1",
            "begins with /",
        ),
    ];
    for (text, place, words) in cases {
        let error = prepare(text).unwrap_err();
        assert!(error.contains(place), "{text}: {error}");
        assert!(error.contains(words), "{text}: {error}");
        assert!(error.starts_with("error: "), "{error}");
    }
}

/// Passwords make an address safe that others reach, and their file is looked at.
#[test]
fn clients_with_passwords_need_no_leave() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    let text = "[auth]\npassword_file = \"users\"\n[[listener]]\naddress = \"0.0.0.0:0\"";
    let loaded = Loaded::parse(&file, text.to_owned(), core::iter::empty()).unwrap();
    let mut warnings = Vec::new();
    assert!(loaded.prepare(&mut warnings).is_ok());
    assert!(warnings.is_empty());
    let error = loaded.authority().err().unwrap().to_string();
    assert!(error.contains("broker.toml:2:1"), "{error}");
    fs::write(directory.path().join("users"), "").unwrap();
    assert!(loaded.authority().is_ok());
}

/// Permissions that are for nobody are told, with the line of their file.
#[test]
fn permissions_for_nobody_are_worth_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    fs::write(
        directory.path().join("users"),
        "anna:$6$YQ==$YQ==".replace("$YQ==$YQ==", &format!("$YQ==${}", "A".repeat(86))),
    )
    .unwrap();
    let acl = "user anna\ntopic read a\ntopic deny a/#\ntopic write a/b\ntopic read b/%u\nuser ben\ntopic x";
    fs::write(directory.path().join("acl"), acl).unwrap();
    let told = |more: &str| {
        let text = format!("[auth]\npassword_file = \"users\"\nacl_file = \"acl\"\n{more}");
        let loaded = Loaded::parse(&file, text, core::iter::empty()).unwrap();
        loaded.authority().unwrap();
        let mut warnings = Vec::new();
        loaded.look_at_permissions(&mut warnings);
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let all = told("");
    assert_eq!(all.len(), 4, "{all:?}");
    let all = all.join("\n");
    for expected in [
        "broker.toml:3:1",
        "acl:2: can never allow anything",
        "acl:4: can never allow anything",
        "acl:5: can never match: %c and %u",
        "acl:6: can never match: the password file has no user \"ben\"",
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    assert_eq!(told("certificate_identity = \"cn\"").len(), 3);
}

/// A service is asked in a way that gives nothing away, and a mistake is shown where it is.
#[test]
fn services_are_looked_at() {
    let file = Path::new("broker.toml");
    let load = |text: &str| Loaded::parse(file, text.to_owned(), core::iter::empty()).unwrap();
    let told = |text: &str| {
        let mut warnings = Vec::new();
        load(text).look_at_services(&mut warnings);
        warnings.iter().map(ToString::to_string).collect::<String>()
    };
    for quiet in [
        "https://a.example/x",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost",
    ] {
        assert_eq!(told(&format!("[auth.http]\nurl = \"{quiet}\"")), "");
    }
    let own = "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.auth.http]\n";
    let clear = told(&format!("{own}topic_url = \"http://127.0.0.1.example:1/\""));
    assert!(
        clear.contains("broker.toml:4:1") && clear.contains("use https"),
        "{clear}"
    );
    let open = told("[auth.http]\nurl = \"https://a\"\non_failure = \"allow\"");
    assert!(
        open.contains("broker.toml:3:1") && open.contains("any name"),
        "{open}"
    );
    for (text, place) in [
        ("[auth.http]\nurl = \"x\"", "broker.toml:2:1"),
        ("[auth.http]\ntopic_url = \"ftp://x\"", "broker.toml:2:1"),
        ("[auth.http]\n\ntimeout = 1", "broker.toml:1:"),
        (
            "[auth.http]\nurl = \"https://x\"\nauthorities = \"/none\"",
            "broker.toml:3:1",
        ),
    ] {
        let error = load(text).authority().err().unwrap().to_string();
        assert!(error.contains(place), "{text}: {error}");
    }
    assert!(
        !load("[auth.http]\nurl = \"https://x\"")
            .settings
            .auth
            .admits_anybody()
    );
    assert!(
        load("[auth.http]\ntopic_url = \"https://x\"")
            .settings
            .auth
            .admits_anybody()
    );
}

/// A section of a listener holds in place of `[auth]`, files included.
#[test]
fn a_listener_may_have_users_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    let load = |text: &str| Loaded::parse(&file, text.to_owned(), core::iter::empty()).unwrap();
    let two = "[auth]\npassword_file = \"users\"\n\
        [[listener]]\naddress = \"127.0.0.1:0\"\n\
        [[listener]]\naddress = \"127.0.0.1:0\"\n\
        [listener.auth]\nacl_file = \"rights\"\n";
    fs::write(directory.path().join("users"), "").unwrap();
    let loaded = load(two);
    let error = loaded.authority().err().unwrap().to_string();
    assert!(error.contains("broker.toml:8:1"), "{error}");
    fs::write(directory.path().join("rights"), "").unwrap();
    let (plan, _) = loaded.authority().unwrap();
    let mut warnings = Vec::new();
    let prepared = loaded.prepare(&mut warnings).unwrap();
    let own = |number: usize| {
        let prepared: &Prepared = &prepared[number];
        let realm = prepared.options.realm.as_ref().unwrap();
        plan.realms.get(realm)
    };
    assert_eq!(own(0), None);
    let second = own(1).unwrap();
    assert_eq!(second.acl_file, Some(directory.path().join("rights")));
    assert_eq!(second.password_file, None);
    assert!(loaded.files().contains(&directory.path().join("rights")));

    // Without a question of its own the listener is as open as any.
    let open = two.replace("127.0.0.1:0", "0.0.0.0:0");
    let error = load(&open).prepare(&mut warnings).unwrap_err().to_string();
    assert!(error.contains("broker.toml:6:1"), "{error}");
    let error = load(&format!("{two}password_checks = 3\n"));
    let error = error.authority().err().unwrap().to_string();
    assert!(
        error.contains("broker.toml:9:1") && error.contains("say it in [auth]"),
        "{error}"
    );
}

#[test]
fn what_is_said_arrives() {
    let (prepared, warnings) = prepare(
        "[[listener]]
        address = \"0.0.0.0:0\"
        allow_anonymous = true
        versions = [\"3.1.1\", \"5.0\"]
        maximum_qos = 1
        max_packet_size = \"1 KiB\"
        max_connections = 7
        durability = \"os\"
        [listener.websocket]
        path = \"/ws\"
        origins = [\"https://example.org\"]
        [listener.proxy]
        trusted = [\"10.0.0.0/8\", \"::1\"]
        [[listener]]
        address = \"unix:mqtt.sock\"
        mode = \"0660\"",
    )
    .unwrap();
    let [first, second] = &prepared[..] else {
        panic!("two listeners")
    };
    assert_eq!(first.options.versions.len(), 2);
    assert_eq!(first.options.max_packet_size, Some(1_024));
    assert_eq!(first.options.max_connections, Some(7));
    assert_eq!(first.options.durability, Some(Durability::Os));
    assert_eq!(first.transport.websocket.as_ref().unwrap().path, "/ws");
    assert_eq!(first.transport.proxy.as_ref().unwrap().trusted.len(), 2);
    assert_eq!(second.mode, Some(0o660));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("broker.toml:3:"), "{}", warnings[0]);
    assert!(warnings[0].contains("anybody"), "{}", warnings[0]);
}

/// What is said and does nothing is told, where it would let in fewer than is thought; what would let in more is an error.
#[test]
fn what_does_nothing_is_told() {
    for (text, place, expected) in [
        (
            "[auth]\nallow_anonymous = false\n[[listener]]\naddress = \"127.0.0.1:0\"\nallow_anonymous = true",
            "broker.toml:5:",
            "[auth] does not allow it",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\n\
             [listener.auth]\npassword_file = \"passwords\"",
            "broker.toml:3:",
            "[listener.auth] does not allow it",
        ),
        (
            "[auth]\ncertificate_identity = \"cn\"\n[[listener]]\naddress = \"127.0.0.1:0\"",
            "broker.toml:2:",
            "no client is asked for a certificate",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.auth]\ncertificate_identity = \"san\"",
            "broker.toml:4:",
            "no client is asked for a certificate",
        ),
    ] {
        let (_, warnings) = prepare(text).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(place), "{}", warnings[0]);
        assert!(warnings[0].contains(expected), "{}", warnings[0]);
    }
    let open = "[auth]\nallow_anonymous = true\npassword_file = \"passwords\"\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\nallow_anonymous = true";
    assert!(prepare(open).unwrap().1.is_empty());
    let lists = "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
                 certificate = \"cert\"\nkey = \"key\"\nrevocation_lists = [\"revoked.pem\"]";
    let error = prepare(lists).unwrap_err().to_string();
    assert!(error.contains("broker.toml:6:"), "{error}");
    assert!(error.contains("`client_authorities`"), "{error}");
}

#[test]
fn odd_files_are_worth_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(directory.path().join("cert"), certificate.pem()).unwrap();
    let key_file = directory.path().join("key");
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let warnings = |mode| {
        fs::set_permissions(&key_file, fs::Permissions::from_mode(mode)).unwrap();
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n\
            [listener.tls]\ncertificate = \"cert\"\nkey = \"key\"";
        let file = directory.path().join("broker.toml");
        let loaded = Loaded::parse(&file, text.to_owned(), core::iter::empty()).unwrap();
        assert_eq!(loaded.files().len(), 3);
        let mut warnings = Vec::new();
        loaded.prepare(&mut warnings).unwrap();
        warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let open = warnings(0o644);
    assert!(open.contains("every user"), "{open}");
    assert!(open.contains("has expired"), "{open}");
    let closed = warnings(0o600);
    assert!(!closed.contains("every user"), "{closed}");
}

/// A certificate that ends within a month.
#[test]
fn a_certificate_that_is_about_to_expire_is_worth_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    fs::write(directory.path().join("key"), key.serialize_pem()).unwrap();
    let file = directory.path().join("broker.toml");
    let warnings = |days: i64| {
        // It ends when a day of UTC begins: so many whole days are left, and a part of one.
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * (days + 1));
        let end = end.to_zoned(jiff::tz::TimeZone::UTC);
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
        params.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("cert"), certificate.pem()).unwrap();
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n\
            [listener.tls]\ncertificate = \"cert\"\nkey = \"key\"";
        let loaded = Loaded::parse(&file, text.to_owned(), core::iter::empty()).unwrap();
        let mut warnings = Vec::new();
        loaded.prepare(&mut warnings).unwrap();
        let texts = warnings.iter().map(ToString::to_string);
        texts
            .filter(|text| text.contains("certificate"))
            .collect::<String>()
    };
    let soon = warnings(10);
    assert!(
        soon.contains("the certificate expires in 10 days"),
        "{soon}"
    );
    assert!(soon.contains("broker.toml:4:"), "{soon}");
    assert_eq!(warnings(60), "");
}

/// What others can read or write is named where it is named.
#[test]
fn files_that_others_can_read_are_worth_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let keys = [
        ("auth", "password_file", "read the hashes", true),
        ("auth", "acl_file", "", false),
        ("auth.jwt", "secret_file", "read the secret", true),
        ("auth.jwt", "key_file", "", false),
        ("auth.jwt", "jwks_file", "read a secret", true),
        (
            "auth.http",
            "authorization_file",
            "read what the service",
            true,
        ),
    ];
    for (section, key, secret, is_secret) in keys {
        for listener in [false, true] {
            let said = directory.path().join("file");
            let text = if key == "jwks_file" {
                "{\"kty\": \"oct\"}"
            } else {
                "x"
            };
            fs::write(&said, text).unwrap();
            let before = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
            let section = if listener {
                format!("listener.{section}")
            } else {
                section.to_owned()
            };
            let text = format!("{before}[{section}]\n{key} = \"file\"\n");
            let file = directory.path().join("broker.toml");
            let loaded = Loaded::parse(&file, text, core::iter::empty()).unwrap();
            let warnings = |mode| {
                fs::set_permissions(&said, fs::Permissions::from_mode(mode)).unwrap();
                let mut warnings = Vec::new();
                loaded.look_at_secrets(&mut warnings);
                warnings.iter().map(ToString::to_string).collect::<String>()
            };
            assert_eq!(warnings(0o600), "");
            let open = warnings(0o604);
            assert_eq!(
                open.contains("every user of this machine can read"),
                is_secret,
                "{open}"
            );
            assert!(open.contains(secret), "{key}: {open}");
            assert!(!is_secret || open.contains("broker.toml:4:"), "{open}");
            let written = warnings(0o602);
            assert!(written.contains("can change the file"), "{key}: {written}");
            if key == "jwks_file" {
                fs::write(&said, "{\"kty\": \"RSA\"}").unwrap();
                assert_eq!(warnings(0o644), "");
            }
        }
    }
}

proptest! {
    /// No text is a panic, and each refusal is a message.
    #[test]
    fn any_text_is_a_configuration_or_a_message(text in "([a-z_\\[\\].= \"0-9\n]|listener|limits|max_connections){0,60}") {
        if let Err(message) = prepare(&text) {
            prop_assert!(message.starts_with("error: "));
        }
    }
}
