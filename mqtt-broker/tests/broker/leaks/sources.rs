//! Where identities and permissions come from.

use mqtt_broker::auth::{AuthSettings, CertificateIdentity, JwtSettings};
use mqtt_codec::ProtocolVersion;

use crate::guarded::Files;
use crate::harness::{V3_1_1, V5};

/// By what a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    Password,
    /// A token; with claims that say what it allows, or without.
    Token {
        claims: bool,
    },
    Certificate,
    /// What a service lets it in by, which is asked by HTTP; it says what is allowed, or only who it is.
    Service {
        claims: bool,
    },
    /// Nothing, if it is `anna`; a password else.
    Nothing,
    Scram,
}

/// A way to be known and to be told what is allowed.
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) versions: &'static [ProtocolVersion],
    pub(super) shows: Shows,
    /// The file of permissions, if there is one, and how it is called.
    pub(super) acl_name: &'static str,
    /// What it says, `M` standing for the mount point.
    pub(super) wide: &'static str,
    /// What it says when the messages of `late` are not allowed any more.
    pub(super) narrow: &'static str,
    /// What stands for anna in her topics.
    pub(super) own: &'static str,
    /// Whether a filter that matches nothing that is allowed is refused.
    pub(super) refuses_filters: bool,
}

const BOTH: &[ProtocolVersion] = &[V3_1_1, V5];

const PLAIN: Source = Source {
    name: "acl_file: topic",
    versions: BOTH,
    shows: Shows::Password,
    acl_name: "acl",
    wide: "user anna\ntopic readwrite Mt/anna/#\n",
    narrow: "user anna\ntopic readwrite Mt/anna/#\ntopic deny Mt/anna/late/#\n",
    own: "anna",
    refuses_filters: true,
};

/// A role that may subscribe to everything, and receives what it may.
const ROLE: &str = r##"
[roles.own]
publish = ["Mt/NAME/#"]
subscribe = ["#"]
receive = ["Mt/NAME/#"]
"##;

pub(super) const SOURCES: [Source; 15] = [
    PLAIN,
    Source {
        name: "acl_file: read and write apart, by a user and for everybody",
        wide: "user anna\ntopic write Mt/anna/#\npattern read Mt/%u/#\n",
        narrow: "user anna\ntopic write Mt/anna/x\ntopic write Mt/anna/y\ntopic write Mt/anna/will\n\
            pattern read Mt/%u/+\n",
        ..PLAIN
    },
    Source {
        name: "acl_file: pattern %u",
        wide: "pattern readwrite Mt/%u/#\n",
        narrow: "pattern readwrite Mt/%u/#\npattern deny Mt/%u/late/#\n",
        ..PLAIN
    },
    Source {
        name: "acl_file: pattern %c",
        wide: "pattern readwrite Mt/%c/#\n",
        narrow: "pattern readwrite Mt/%c/#\npattern deny Mt/%c/late/#\n",
        own: "anna-c",
        ..PLAIN
    },
    Source {
        name: "acl_file: deny",
        wide: "user anna\ntopic Mt/#\ntopic deny Mt/ben/#\n",
        narrow: "user anna\ntopic Mt/#\ntopic deny Mt/ben/#\ntopic deny Mt/anna/late/#\n",
        ..PLAIN
    },
    Source {
        name: "roles of a user",
        acl_name: "acl.toml",
        wide: "ROLE\n[users.anna]\nroles = [\"own\"]\n",
        narrow: "ROLE\nDENY\n[users.anna]\nroles = [\"own\"]\n",
        refuses_filters: false,
        ..PLAIN
    },
    Source {
        name: "roles of a group",
        acl_name: "acl.toml",
        wide: "ROLE\n[groups.all]\nusers = [\"anna\", \"ben\"]\nroles = [\"own\"]\n",
        narrow: "ROLE\nDENY\n[groups.all]\nusers = [\"anna\", \"ben\"]\nroles = [\"own\"]\n",
        refuses_filters: false,
        ..PLAIN
    },
    Source {
        name: "roles of everyone, %c",
        acl_name: "acl.toml",
        wide: "ROLE\n[everyone]\nroles = [\"own\"]\n",
        narrow: "ROLE\nDENY\n[everyone]\nroles = [\"own\"]\n",
        own: "anna-c",
        refuses_filters: false,
        ..PLAIN
    },
    Source {
        name: "claims of a token",
        shows: Shows::Token { claims: true },
        acl_name: "",
        wide: "",
        // What a file denies counts before what a token allows.
        narrow: "pattern deny Mt/%u/late/#\n",
        refuses_filters: false,
        ..PLAIN
    },
    Source {
        name: "user of a token",
        shows: Shows::Token { claims: false },
        ..PLAIN
    },
    Source {
        name: "user of a certificate",
        shows: Shows::Certificate,
        ..PLAIN
    },
    Source {
        name: "permissions of a service",
        shows: Shows::Service { claims: true },
        acl_name: "",
        wide: "",
        narrow: "pattern deny Mt/%u/late/#\n",
        refuses_filters: false,
        ..PLAIN
    },
    Source {
        name: "user of a service",
        shows: Shows::Service { claims: false },
        ..PLAIN
    },
    Source {
        name: "anonymous",
        shows: Shows::Nothing,
        wide: "topic readwrite Mt/anna/#\n",
        narrow: "topic readwrite Mt/anna/#\ntopic deny Mt/anna/late/#\n",
        ..PLAIN
    },
    Source {
        name: "user of SCRAM",
        versions: &[V5],
        shows: Shows::Scram,
        ..PLAIN
    },
];

impl Source {
    /// The settings of a broker whose clients come from here, in files of `files`.
    pub(super) fn settings(&self, files: &Files, mount: &str, narrowed: bool) -> AuthSettings {
        let mut settings = AuthSettings::default();
        match self.shows {
            // Where the service is, the scene knows.
            Shows::Password | Shows::Scram | Shows::Service { .. } => {}
            Shows::Token { .. } => {
                let mut jwt = JwtSettings::default();
                jwt.secret_file = Some(files.write("secret", super::scene::SECRET));
                settings.jwt = Some(jwt);
            }
            Shows::Certificate => settings.certificate_identity = Some(CertificateIdentity::Cn),
            Shows::Nothing => settings.allow_anonymous = Some(true),
        }
        if matches!(self.shows, Shows::Password | Shows::Scram | Shows::Nothing) {
            settings
                .password_file
                .clone_from(&files.settings.password_file);
        }
        let text = if narrowed { self.narrow } else { self.wide };
        if !text.is_empty() {
            let role = ROLE.replace("NAME", if self.own == "anna" { "%u" } else { "%c" });
            let denied = format!(
                "[\"Mt/{}/late/#\"]",
                if self.own == "anna" { "%u" } else { "%c" }
            );
            let denials = format!("deny_publish = {denied}\ndeny_subscribe = {denied}\n");
            let text = text.replace("ROLE", &role).replace("DENY", &denials);
            let name = if self.acl_name.is_empty() {
                "acl"
            } else {
                self.acl_name
            };
            settings.acl_file =
                Some(files.write(name, &text.replace("Mt/", &format!("{mount}t/"))));
        }
        settings
    }
}
