//! From what a configuration says to listeners that can be bound, with everything they need read and checked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mount;
use crate::policy::ListenerOptions;
use crate::settings::certificate;
use crate::settings::problem::Step;
use crate::settings::{ListenerSettings, Loaded, Problem, TlsSettings};
use crate::transport::{Address, ProxyOptions, Tls, TlsOptions, Transport, WebSocketOptions};

/// Days before the end of a certificate from which on it is worth a warning.
const DAYS_OF_WARNING: u64 = 30;
const DAY: u64 = 24 * 60 * 60;

/// A listener as it is to be: nothing of it is read again from the disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct Prepared {
    /// What it is bound to.
    pub address: Address,
    /// Permissions of a socket in the file system.
    pub mode: Option<u32>,
    /// What holds for its connections.
    pub options: ListenerOptions,
    /// What they go through first.
    pub transport: Transport,
}

/// Where a section stands in the file.
struct Place {
    number: usize,
}

impl Place {
    fn key<'a>(&self, keys: &[&'a str]) -> Vec<Step<'a>> {
        let mut path = vec![Step::Key("listener"), Step::Place(self.number)];
        path.extend(keys.iter().map(|key| Step::Key(key)));
        path
    }
}

impl Loaded {
    /// Reads and checks what the listeners need; `warnings` gets what is odd.
    ///
    /// # Errors
    /// Something cannot be served as it is asked for.
    pub fn prepare(&self, warnings: &mut Vec<Problem>) -> Result<Vec<Prepared>, Problem> {
        self.look_at_bans(warnings);
        let mut prepared: Vec<Prepared> = Vec::new();
        for (number, settings) in self.settings.listener.iter().enumerate() {
            let place = Place { number };
            let listener = self.prepare_one(settings, &place, warnings)?;
            let takes_free_port =
                matches!(&listener.address, Address::Tcp(address) if address.port() == 0);
            if !takes_free_port
                && prepared
                    .iter()
                    .any(|other| other.address == listener.address)
            {
                return Err(self.error(
                    &place.key(&["address"]),
                    "another listener has the same address",
                ));
            }
            prepared.push(listener);
        }
        self.look_at_identities(warnings);
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        settings: &ListenerSettings,
        place: &Place,
        warnings: &mut Vec<Problem>,
    ) -> Result<Prepared, Problem> {
        let Some(address) = &settings.address else {
            return Err(self.error(&place.key(&[]), "a listener needs an `address`"));
        };
        let address = match address {
            Address::Unix(path) => Address::Unix(self.resolve(path)),
            other => other.clone(),
        };
        let mode = match &settings.mode {
            None => None,
            Some(text) => match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o777 => Some(mode),
                _ => {
                    return Err(self.error(
                        &place.key(&["mode"]),
                        "not permissions in octal, such as \"0660\"",
                    ));
                }
            },
        };
        let mut transport = Transport::default();
        let mut shows_certificates = false;
        if let Some(tls) = &settings.tls {
            let options = self.tls_options(tls, place)?;
            transport.tls = Some(Tls::load(&options).map_err(|error| {
                self.error(
                    &place.key(&["tls", key_of(&options, &error.file)]),
                    &error.to_string(),
                )
            })?);
            shows_certificates =
                options.client_authorities.is_some() && options.require_client_certificate;
            self.look_at_files(&options, place, warnings);
        }
        if let Some(websocket) = &settings.websocket {
            if !websocket.path.starts_with('/') {
                return Err(self.error(
                    &place.key(&["websocket", "path"]),
                    "the path of a request begins with /",
                ));
            }
            let mut options = WebSocketOptions::default();
            options.path.clone_from(&websocket.path);
            options.origins.clone_from(&websocket.origins);
            transport.websocket = Some(Arc::new(options));
        }
        if let Some(proxy) = &settings.proxy {
            let is_unix = matches!(address, Address::Unix(_));
            if proxy.trusted.is_empty() && !is_unix {
                return Err(self.error(
                    &place.key(&["proxy", "trusted"]),
                    "nobody is trusted to be a proxy: name the addresses of the proxies in `trusted`",
                ));
            }
            transport.proxy = Some(Arc::new(ProxyOptions::new(proxy.trusted.clone())));
        }
        let is_exposed =
            !address.is_local() && !shows_certificates && self.auth_of(settings).admits_anybody();
        match settings.allow_anonymous {
            Some(true) if !self.auth_of(settings).admits_anybody() => {
                let section = match settings.auth {
                    Some(_) => "[listener.auth]",
                    None => "[auth]",
                };
                let text = format!(
                    "clients without a user name are not let in: {section} does not allow it"
                );
                warnings.push(self.warning(&place.key(&["allow_anonymous"]), &text));
            }
            Some(true) if is_exposed => {
                warnings.push(self.warning(
                    &place.key(&["allow_anonymous"]),
                    "anybody who reaches this address can connect",
                ));
            }
            None if is_exposed => {
                return Err(self.error(
                    &place.key(&["address"]),
                    "anybody who reaches this address could connect: \
                     add `allow_anonymous = true` if that is meant",
                ));
            }
            _ => {}
        }
        let options = ListenerOptions {
            versions: settings.versions.iter().map(|version| version.0).collect(),
            maximum_qos: settings.maximum_qos.map(|quality| quality.0),
            max_packet_size: settings
                .max_packet_size
                .map(|size| u32::try_from(size.0).unwrap_or(u32::MAX)),
            allow_anonymous: settings.allow_anonymous.unwrap_or(true),
            realm: self.realm(place.number),
            max_connections: settings.max_connections,
            mount_point: settings.mount_point.as_deref().map(Into::into),
            durability: settings.durability,
        };
        if options
            .mount_point
            .as_ref()
            .is_some_and(|mount| !mount::is_valid(mount))
        {
            return Err(self.error(
                &place.key(&["mount_point"]),
                "not whole levels of a topic: it ends with / and has no wildcard",
            ));
        }
        if options.versions.is_empty() {
            return Err(self.error(&place.key(&["versions"]), "no version at all"));
        }
        if options.max_packet_size.is_some_and(|size| size < 64) {
            return Err(self.error(
                &place.key(&["max_packet_size"]),
                "less than 64 bytes leaves no room for MQTT",
            ));
        }
        Ok(Prepared {
            address,
            mode,
            options,
            transport,
        })
    }

    fn tls_options(&self, tls: &TlsSettings, place: &Place) -> Result<TlsOptions, Problem> {
        let needed = |path: &Option<PathBuf>, key: &str| match path {
            Some(path) => Ok(self.resolve(path)),
            None => Err(self.error(&place.key(&["tls"]), &format!("TLS needs a `{key}`"))),
        };
        if tls.client_authorities.is_none() && !tls.revocation_lists.is_empty() {
            return Err(self.error(
                &place.key(&["tls", "revocation_lists"]),
                "clients are not asked for certificates: name their roots in `client_authorities`",
            ));
        }
        let mut options = TlsOptions::new(
            needed(&tls.certificate, "certificate")?,
            needed(&tls.key, "key")?,
        );
        options.client_authorities = tls
            .client_authorities
            .as_deref()
            .map(|path| self.resolve(path));
        options.require_client_certificate = tls.require_client_certificate;
        options.revocation_lists = tls
            .revocation_lists
            .iter()
            .map(|path| self.resolve(path))
            .collect();
        options.minimum_version = tls.minimum_version.0;
        Ok(options)
    }

    fn look_at_files(&self, options: &TlsOptions, place: &Place, warnings: &mut Vec<Problem>) {
        let readable = fs::metadata(&options.key)
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
        if readable {
            warnings.push(self.warning(
                &place.key(&["tls", "key"]),
                "every user of this machine can read the private key",
            ));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_secs());
        let Some(end) = certificate::end_of_first(&options.certificate) else {
            return;
        };
        let message = if end <= now {
            "the certificate has expired".to_owned()
        } else if end - now < DAYS_OF_WARNING * DAY {
            format!("the certificate expires in {} days", (end - now) / DAY)
        } else {
            return;
        };
        warnings.push(self.warning(&place.key(&["tls", "certificate"]), &message));
    }

    /// Files that a change of the configuration may be a change of.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let tls = self
            .settings
            .listener
            .iter()
            .filter_map(|one| one.tls.as_ref());
        let named = tls.flat_map(|tls| {
            [&tls.certificate, &tls.key, &tls.client_authorities]
                .into_iter()
                .flatten()
                .chain(&tls.revocation_lists)
        });
        let mut files: Vec<PathBuf> = named.map(|path| self.resolve(path)).collect();
        files.extend(self.auth_files());
        if !self.file.as_os_str().is_empty() {
            files.push(self.file.clone());
        }
        files
    }
}

/// The key that names a file.
fn key_of(options: &TlsOptions, file: &Path) -> &'static str {
    if file == options.certificate {
        "certificate"
    } else if file == options.key {
        "key"
    } else if options.client_authorities.as_deref() == Some(file) {
        "client_authorities"
    } else {
        "revocation_lists"
    }
}
