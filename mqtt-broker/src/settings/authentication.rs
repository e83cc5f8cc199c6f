//! `[auth]` and `[listener.auth]`: whose settings hold where, and whether their files can be used.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::{
    Acl, AuthError, AuthPlan, AuthSettings, Authority, HttpKey, OnFailure, Passwords,
};
use crate::settings::problem::Step;
use crate::settings::{ListenerSettings, Loaded, Problem};

impl Loaded {
    /// Reads the files of `[auth]`, and of listeners that have such a section of their own; returns the
    /// settings with the paths as they are meant.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it says nothing.
    pub fn authority(&self) -> Result<(AuthPlan, Authority), Problem> {
        let mut plan = AuthPlan::new(self.resolved(&self.settings.auth));
        let mut places = BTreeMap::new();
        for (number, listener) in self.settings.listener.iter().enumerate() {
            if let (Some(name), Some(auth)) = (self.realm(number), &listener.auth) {
                self.check_own(number, auth)?;
                plan.realms.insert(Arc::clone(&name), self.resolved(auth));
                places.insert(name, number);
            }
        }
        let authority = Authority::load_plan(&plan).map_err(|(realm, error)| {
            let number = realm.and_then(|realm| places.get(&realm).copied());
            self.error(&path(number, key_of(&error)), &error.to_string())
        })?;
        Ok((plan, authority))
    }

    /// Looks for permissions that are for nobody; `warnings` gets what there is to say. A file that cannot be
    /// read is no matter of this.
    pub fn look_at_permissions(&self, warnings: &mut Vec<Problem>) {
        let listeners = self.settings.listener.iter().enumerate();
        let own = listeners.filter_map(|(number, one)| Some((Some(number), one.auth.as_ref()?)));
        for (number, auth) in own.chain([(None, &self.settings.auth)]) {
            let auth = self.resolved(auth);
            let Some((file, acl)) = auth
                .acl_file
                .as_deref()
                .and_then(|file| Some((file, Acl::read(file).ok()?)))
            else {
                continue;
            };
            let mut texts = acl.warnings(file);
            // Other users may come with certificates or tokens, or a service may know them.
            if auth.certificate_identity.is_none()
                && auth.jwt.is_none()
                && auth.http.is_none()
                && let Some(Ok(passwords)) = auth.password_file.as_deref().map(Passwords::read)
            {
                texts.extend(acl.strangers(file, &passwords));
            }
            let place = path(number, &["acl_file"]);
            warnings.extend(texts.iter().map(|text| self.warning(&place, text)));
        }
    }

    /// Looks at who else can read what is secret, or write what says who is let in; `warnings` gets what there is to say.
    /// The configuration itself holds no secret.
    pub fn look_at_secrets(&self, warnings: &mut Vec<Problem>) {
        let listeners = self.settings.listener.iter().enumerate();
        let own = listeners.filter_map(|(number, one)| Some((Some(number), one.auth.as_ref()?)));
        for (number, auth) in own.chain([(None, &self.settings.auth)]) {
            let auth = self.resolved(auth);
            let (jwt, http) = (auth.jwt.as_ref(), auth.http.as_ref());
            let jwks = jwt.and_then(|jwt| jwt.jwks_file.as_deref());
            let secret = |what: &'static str| Some(what);
            let files: [(&[&str], Option<&Path>, Option<&str>); 6] = [
                (
                    &["password_file"],
                    auth.password_file.as_deref(),
                    secret("the hashes of the passwords"),
                ),
                (&["acl_file"], auth.acl_file.as_deref(), None),
                (
                    &["jwt", "secret_file"],
                    jwt.and_then(|jwt| jwt.secret_file.as_deref()),
                    secret("the secret that tokens are signed with"),
                ),
                (
                    &["jwt", "key_file"],
                    jwt.and_then(|jwt| jwt.key_file.as_deref()),
                    None,
                ),
                (
                    &["jwt", "jwks_file"],
                    jwks,
                    secret("a secret that tokens are signed with").filter(|_| {
                        let text = jwks.and_then(|file| fs::read_to_string(file).ok());
                        text.is_some_and(|text| text.contains("\"oct\""))
                    }),
                ),
                (
                    &["http", "authorization_file"],
                    http.and_then(|http| http.authorization_file.as_deref()),
                    secret("what the service is shown"),
                ),
            ];
            for (keys, file, secret) in files {
                let metadata = file.and_then(|file| fs::metadata(file).ok());
                let Some(mode) = metadata.map(|it| it.permissions().mode()) else {
                    continue;
                };
                let place = path(number, keys);
                if let Some(what) = secret.filter(|_| mode & 0o004 != 0) {
                    let text = format!("every user of this machine can read {what}");
                    warnings.push(self.warning(&place, &text));
                }
                if mode & 0o002 != 0 {
                    let text = "every user of this machine can change the file";
                    warnings.push(self.warning(&place, text));
                }
            }
        }
    }

    /// Looks for services that are not asked as they should be; `warnings` gets what there is to say.
    pub fn look_at_services(&self, warnings: &mut Vec<Problem>) {
        let listeners = self.settings.listener.iter().enumerate();
        let own = listeners.filter_map(|(number, one)| Some((Some(number), one.auth.as_ref()?)));
        for (number, auth) in own.chain([(None, &self.settings.auth)]) {
            let Some(http) = &auth.http else { continue };
            let mut warn = |key, text| {
                warnings.push(self.warning(&path(number, &["http", key]), text));
            };
            for (key, url) in [("url", &http.url), ("topic_url", &http.topic_url)] {
                if url.as_deref().is_some_and(is_in_the_clear) {
                    warn(
                        key,
                        "passwords and names go to another machine in the clear: use https",
                    );
                }
            }
            if http.on_failure == OnFailure::Allow {
                warn(
                    "on_failure",
                    "while the service is down, whoever comes is let in under any name",
                );
            }
        }
    }

    /// Looks for users that certificates are to name which nobody is asked for; `warnings` gets what there is to say.
    pub(crate) fn look_at_identities(&self, warnings: &mut Vec<Problem>) {
        let listeners = &self.settings.listener;
        let asks = |listener: &ListenerSettings| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.client_authorities.is_some())
        };
        let mut idle = Vec::new();
        for (number, listener) in listeners.iter().enumerate() {
            if let Some(auth) = &listener.auth
                && auth.certificate_identity.is_some()
                && !asks(listener)
            {
                idle.push(Some(number));
            }
        }
        let mut usual = listeners.iter().filter(|one| one.auth.is_none());
        if self.settings.auth.certificate_identity.is_some() && !usual.any(asks) {
            idle.push(None);
        }
        for number in idle {
            let text = "no client is asked for a certificate: name their roots in `client_authorities` of [listener.tls]";
            let place = path(number, &["certificate_identity"]);
            warnings.push(self.warning(&place, text));
        }
    }

    /// The name of the realm of a listener: its address, and its number where several have the same.
    pub(crate) fn realm(&self, number: usize) -> Option<Arc<str>> {
        let listeners = &self.settings.listener;
        let address = listeners.get(number)?.address.as_ref()?;
        let before = listeners.iter().take(number);
        let is_again = before
            .filter_map(|other| other.address.as_ref())
            .any(|other| other == address);
        Some(if is_again {
            format!("{address} ({number})").into()
        } else {
            address.to_string().into()
        })
    }

    /// What says how clients are let in at a listener.
    pub(crate) fn auth_of<'a>(&'a self, listener: &'a ListenerSettings) -> &'a AuthSettings {
        listener.auth.as_ref().unwrap_or(&self.settings.auth)
    }

    /// Files that the sections name.
    pub(crate) fn auth_files(&self) -> Vec<PathBuf> {
        let own = self.settings.listener.iter();
        let own = own.filter_map(|listener| listener.auth.as_ref());
        let mut files = Vec::new();
        for auth in own.chain([&self.settings.auth]) {
            let mut auth = self.resolved(auth);
            files.extend(auth.files().filter_map(Option::take));
        }
        files
    }

    fn resolved(&self, auth: &AuthSettings) -> AuthSettings {
        let mut auth = auth.clone();
        for file in auth.files() {
            *file = file.as_deref().map(|file| self.resolve(file));
        }
        auth
    }

    /// How many checks run at once is one number for the whole process.
    fn check_own(&self, number: usize, auth: &AuthSettings) -> Result<(), Problem> {
        let usual = AuthSettings::default();
        let key = if auth.password_checks != usual.password_checks {
            "password_checks"
        } else if auth.waiting_logins != usual.waiting_logins {
            "waiting_logins"
        } else {
            return Ok(());
        };
        let message = "holds for all listeners together: say it in [auth]";
        Err(self.error(&path(Some(number), &[key]), message))
    }
}

/// Where a key of `[auth]` stands, or of the section of a listener.
fn path<'a>(listener: Option<usize>, keys: &[&'a str]) -> Vec<Step<'a>> {
    let mut path = match listener {
        Some(number) => vec![Step::Key("listener"), Step::Place(number)],
        None => Vec::new(),
    };
    path.push(Step::Key("auth"));
    path.extend(keys.iter().map(|key| Step::Key(key)));
    path
}

/// The key that names what cannot be used.
fn key_of(error: &AuthError) -> &'static [&'static str] {
    match error {
        AuthError::Passwords(_) => &["password_file"],
        AuthError::Acl(_) => &["acl_file"],
        AuthError::Tokens(_) => &["jwt"],
        AuthError::Http(error) => match error.key {
            HttpKey::Url => &["http", "url"],
            HttpKey::TopicUrl => &["http", "topic_url"],
            HttpKey::Authorities => &["http", "authorities"],
            HttpKey::AuthorizationFile => &["http", "authorization_file"],
            HttpKey::Section => &["http"],
        },
    }
}

/// Whether what is sent there can be read on the way.
fn is_in_the_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    let is_loopback = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    host != "localhost" && !is_loopback
}
