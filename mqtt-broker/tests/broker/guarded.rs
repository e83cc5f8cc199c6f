//! A broker that asks who its clients are, and three users it knows.

use std::fs;
use std::path::PathBuf;

use mqtt_broker::auth::{AuthSettings, Authority, Denial};
use mqtt_broker::{Broker, Config};
use mqtt_codec::{Connect, ProtocolVersion, ReasonCode};
use tempfile::TempDir;

use crate::harness::{Peer, broker_with, hello};

/// Of each the password is the name with `-secret`.
pub(crate) const PASSWORDS: &str = "\
anna:$7$1$c2FsdHNhbHRzYWx0$1A0E9TegMUFc7eQF63/qzz0zt5XVOy46M4KEWuZRZwhO6dNo0Jrzg8PHF08w+L5M0945EJtqZVg//VWNJb+Ieg==
ben:$7$1$c2FsdHNhbHRzYWx0$st5y+ZxOey06VZUOn5CzAkoO+gpolL/ZZa5AX3nn0pJhcjghFJhPja/Q0DsfFMvZUWkPh0Yn72LBLo6F0IW7SA==
carl:$7$1$c2FsdHNhbHRzYWx0$juaaZ/9QYggj2O+Ez+OkYPIBcDmfKPeIeAtJkqEdgYW3mA304Iiirih9bZ29l55gVEaojyKIDGe2yXp7/HsBfQ==
";

/// The files of a broker.
pub(crate) struct Files {
    pub(crate) directory: TempDir,
    pub(crate) settings: AuthSettings,
}

impl Files {
    /// Passwords, and permissions in mosquitto's form.
    pub(crate) fn new(acl: &str) -> Self {
        let mut files = Self::without_permissions();
        files.settings.acl_file = Some(files.write("acl", acl));
        files
    }

    /// Passwords, and permissions in TOML.
    pub(crate) fn with_roles(acl: &str) -> Self {
        let mut files = Self::without_permissions();
        files.settings.acl_file = Some(files.write("acl.toml", acl));
        files
    }

    pub(crate) fn without_permissions() -> Self {
        let mut files = Self {
            directory: TempDir::new().unwrap(),
            settings: AuthSettings::default(),
        };
        files.settings.password_file = Some(files.write("passwords", PASSWORDS));
        files
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.auth = Authority::load(&self.settings).unwrap();
        config
    }

    pub(crate) fn broker(&self) -> Broker {
        broker_with(self.config())
    }

    /// Gives the broker other permissions.
    pub(crate) fn permit(&self, broker: &Broker, acl: &str) {
        self.permit_with(broker, acl, &self.settings);
    }

    /// The same where the settings say more than these files do.
    pub(crate) fn permit_with(&self, broker: &Broker, acl: &str, settings: &AuthSettings) {
        fs::write(self.settings.acl_file.as_ref().unwrap(), acl).unwrap();
        broker.reload_auth(settings).unwrap();
    }
}

/// CONNECT of a user; the client identifier is another one.
pub(crate) fn user<'a>(version: ProtocolVersion, user: &'a str, client_id: &'a str) -> Connect<'a> {
    with_user(hello(version, client_id), user)
}

pub(crate) fn with_user<'a>(mut connect: Connect<'a>, user: &'a str) -> Connect<'a> {
    connect.username = Some(user);
    connect.password = Some(match user {
        "anna" => b"anna-secret",
        "ben" => b"ben-secret",
        "carl" => b"carl-secret",
        _ => b"?",
    });
    connect
}

/// A client of a user with a session that ends with the connection.
pub(crate) async fn login(broker: &Broker, version: ProtocolVersion, name: &str) -> Peer {
    Peer::accepted(broker, &user(version, name, &format!("{name}-client"))).await
}

pub(crate) fn denied(broker: &Broker, what: Denial) -> u64 {
    broker.counters().denied(what)
}

/// The CONNECT must be refused, in v3 with the return code that stands for this reason.
pub(crate) async fn refused(broker: &Broker, connect: &Connect<'_>, reason: ReasonCode) {
    Peer::refused(broker, connect, reason).await;
}
