//! What a configuration says about who may do what.

use std::path::PathBuf;

use serde::Deserialize;

use crate::auth::certificate::CertificateIdentity;
use crate::settings::{Span, section};

section! {
    /// How clients show who they are, and what they may do. Nothing said: whoever comes may do everything.
    struct AuthSettings {
        /// Whether a client without a user name is let in. Without it: only if nothing else here lets clients
        /// in. A listener may still refuse them.
        allow_anonymous: Option<bool> = None, "false";
        /// File of users and hashes of their passwords, as `mqtt-broker passwd` and
        /// mosquitto_passwd write it.
        password_file: Option<PathBuf> = None, "\"passwords\"";
        /// What of a certificate is the user name of a client that shows one, at a listener that asks for it
        /// and checks it: "cn", "dn" or "san". Such a client needs no password. Without it: certificates do
        /// not tell who a client is.
        certificate_identity: Option<CertificateIdentity> = None, "\"cn\"";
        /// JSON Web Tokens in place of passwords: a section [auth.jwt] lets clients in by them.
        jwt: Option<JwtSettings> = None, "";
        /// A service that is asked by HTTP: a section [auth.http] lets clients in by it, or has it decide about topics.
        http: Option<HttpSettings> = None, "";
        /// File of permissions: TOML if its name ends with `.toml`, else as mosquitto's `acl_file`. What it
        /// does not allow is denied. Without it: everything is allowed.
        acl_file: Option<PathBuf> = None, "\"permissions.toml\"";
        /// What a client of 3.1 or 3.1.1 gets for a message above QoS 0 that it may not publish, as these
        /// versions cannot say no: "acknowledge" or "disconnect".
        denied_publish: DeniedPublish = DeniedPublish::Acknowledge, "\"acknowledge\"";
        /// Checks of passwords that run at once. 0: half of the processors.
        password_checks: usize = 0, "0";
        /// Logins that wait for their check; what comes beyond is refused (0x97).
        waiting_logins: usize = 128, "128";
    }
}

impl AuthSettings {
    /// Whether clients are asked who they are.
    pub(crate) fn asks(&self) -> bool {
        self.password_file.is_some()
            || self.certificate_identity.is_some()
            || self.jwt.is_some()
            || self.http.as_ref().is_some_and(|http| http.url.is_some())
    }

    /// Whether a client is let in that does not say who it is.
    #[must_use]
    pub fn admits_anybody(&self) -> bool {
        self.allow_anonymous.unwrap_or(!self.asks())
    }

    /// The files that it names.
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut Option<PathBuf>> {
        let tokens = self.jwt.iter_mut();
        let tokens =
            tokens.flat_map(|jwt| [&mut jwt.secret_file, &mut jwt.key_file, &mut jwt.jwks_file]);
        let service = self.http.iter_mut();
        let service =
            service.flat_map(|http| [&mut http.authorities, &mut http.authorization_file]);
        [&mut self.password_file, &mut self.acl_file]
            .into_iter()
            .chain(tokens)
            .chain(service)
    }
}

section! {
    /// Tokens (JWT) that clients send as their password. The user is named by the token, whatever CONNECT says.
    struct JwtSettings {
        /// File with the secret of HS256, of 32 bytes or more; of HS384 as well from 48 bytes on, and of HS512 from 64 on.
        secret_file: Option<PathBuf> = None, "\"jwt.secret\"";
        /// File with a public key in PEM: RSA for RS256 to RS512 and PS256 to PS512, P-256 for ES256, P-384 for ES384,
        /// Ed25519 for EdDSA.
        key_file: Option<PathBuf> = None, "\"jwt.pem\"";
        /// File with a set of keys (JWKS), of which those of these algorithms are taken; one with an `alg` serves for that
        /// alone.
        jwks_file: Option<PathBuf> = None, "\"jwks.json\"";
        /// Claim that names the user.
        user_claim: String = "sub".to_owned(), "\"sub\"";
        /// Claim with what the client may do, if a token has it: an object with the lists of a role of a TOML file
        /// of permissions, such as { "publish": ["a/#"], "subscribe": [] }. It adds to what the `acl_file` says.
        permissions_claim: String = "mqtt".to_owned(), "\"mqtt\"";
        /// Audiences (`aud`) one of which a token must name; none: it is not looked at.
        audience: Vec<String> = Vec::new(), "[]";
        /// Issuers (`iss`) one of which a token must name; none: it is not looked at.
        issuer: Vec<String> = Vec::new(), "[]";
        /// How far the clocks may be apart. A connection ends this long after its token has (`exp`, which it must
        /// have).
        leeway: Span = Span(core::time::Duration::ZERO), "\"0s\"";
    }
}

section! {
    /// A service that is asked by HTTP. What is asked is an object in JSON, sent by POST; the answer is status 200
    /// with an object whose `result` is "allow", "deny" or "next", or 204 to allow, or 401 or 403 to deny.
    struct HttpSettings {
        /// Asked about each client that does not come with a token or by SCRAM: `client_id`, `user`, `password` (or
        /// `password_base64`), `certificate`, `address`, `listener` and `version`. "next" leaves it to the password
        /// file. With "allow" may come: `user`, another name; `superuser`, true for who may do everything; `expires`,
        /// the second since 1970 at which the connection ends; `permissions`, as those of a token. They add to what
        /// the `acl_file` says.
        url: Option<String> = None, "\"https://auth.example.org/mqtt/connect\"";
        /// Asked about each topic that a client publishes to and each filter that it subscribes to, its will and the
        /// subscriptions of a session that it resumes included, if the rules allow them: `action` ("publish" or
        /// "subscribe"), `topic`, `group`, `qos`, `retain`, `client_id`, `user` and `listener`. Until the answer is
        /// there the client is not read; everybody else is. Not asked about what is delivered.
        topic_url: Option<String> = None, "\"https://auth.example.org/mqtt/topic\"";
        /// File of certificates (PEM) that the certificate of an https service comes from. Without it: whom the system
        /// trusts.
        authorities: Option<PathBuf> = None, "\"auth-ca.pem\"";
        /// File with what the header Authorization says, such as `Bearer SECRET`.
        authorization_file: Option<PathBuf> = None, "\"auth.secret\"";
        /// Time that a request may take, and that it may wait for its turn.
        timeout: Span = Span(core::time::Duration::from_secs(2)), "\"2s\"";
        /// Requests to one URL that run at once.
        requests: usize = 16, "16";
        /// Logins that wait for their turn; what comes beyond is refused (0x97; 3.1.1: 3).
        waiting_requests: usize = 128, "128";
        /// Time that an answer about a client holds for whoever says the same. "0s": it is asked each time.
        cache: Span = Span(core::time::Duration::from_secs(30)), "\"30s\"";
        /// Time that an answer about a topic holds for its connection.
        topic_cache: Span = Span(core::time::Duration::from_secs(30)), "\"30s\"";
        /// What holds while the service fails: "deny" refuses clients (0x88; 3.1.1: 3) and what they ask for (0x83; a
        /// connection of 3.1.1 ends instead of an acknowledgement), "allow" lets in whoever comes under the name that
        /// they give, and "next" leaves clients to the password file, and topics to the `acl_file`.
        on_failure: OnFailure = OnFailure::Deny, "\"deny\"";
    }
}

/// What holds while a service fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// What it was to be asked about is not allowed.
    #[default]
    Deny,
    /// It is allowed.
    Allow,
    /// It is for the other parts of the configuration to say.
    Next,
}

/// What becomes of a denied message whose version has no code for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeniedPublish {
    /// It is acknowledged and dropped.
    #[default]
    Acknowledge,
    /// The connection is closed.
    Disconnect,
}
