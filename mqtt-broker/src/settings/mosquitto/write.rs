//! What was understood of a mosquitto.conf, written as TOML.

use core::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::settings::mosquitto::listener::Listener;
use crate::settings::mosquitto::{Import, Imported, quoted};

impl Import {
    pub(super) fn finish(mut self) -> Imported {
        let mut out = String::new();
        if !self.persistence {
            // Without persistence there is none there.
            self.store.retain(|(key, _)| *key != "directory");
            self.store.push(("in_memory", "true".to_owned()));
        }
        section(&mut out, "store", &self.store);
        section(&mut out, "log", &self.log);
        section(&mut out, "limits", &self.limits);
        if !self.auth.is_empty() {
            // Each listener says for itself whom it refuses.
            let any = self.listeners.iter().chain([&self.default]);
            let mut any = any.map(|listener| listener.allow_anonymous.or(self.allow_anonymous));
            if any.any(|anonymous| anonymous == Some(true)) {
                self.auth.push(("allow_anonymous", "true".to_owned()));
            }
            section(&mut out, "auth", &self.auth);
        }
        let mut listeners = core::mem::take(&mut self.listeners);
        if self.default.is_described() || listeners.is_empty() {
            let mut default = core::mem::take(&mut self.default);
            // With nothing said mosquitto serves this machine only.
            if !default.is_described() {
                default.port = Some(1883);
                default.bind = Some(IpAddr::from([127, 0, 0, 1]));
                self.allow_anonymous.get_or_insert(true);
            }
            listeners.insert(0, default);
        }
        for listener in listeners.iter().filter(|one| !one.foreign) {
            self.write_listener(&mut out, listener);
        }
        Imported {
            toml: out.trim_start().to_owned(),
            notes: self.notes,
        }
    }

    fn write_listener(&self, out: &mut String, listener: &Listener) {
        let mut entries = Vec::new();
        let address = match &listener.unix {
            Some(path) => format!("unix:{}", self.relative(path).display()),
            None => {
                let address = listener.bind.unwrap_or(IpAddr::from([0_u16; 8]));
                SocketAddr::new(address, listener.port.unwrap_or(1883)).to_string()
            }
        };
        entries.push(("address", quoted(Path::new(&address))));
        let anonymous = listener.allow_anonymous.or(self.allow_anonymous);
        entries.push(("allow_anonymous", anonymous.unwrap_or(false).to_string()));
        if !listener.versions.is_empty() {
            entries.push(("versions", serde_json::json!(listener.versions).to_string()));
        }
        let numbers = [
            ("maximum_qos", listener.max_qos),
            ("max_connections", listener.max_connections),
        ];
        let numbers = numbers.into_iter();
        entries.extend(numbers.filter_map(|(key, value)| Some((key, value?.to_string()))));
        if let Some(mount) = &listener.mount_point {
            entries.push(("mount_point", quoted(Path::new(mount))));
        }
        _ = write!(out, "\n[[listener]]\n{}", lines(&entries));

        let path = |path: &String| quoted(&self.relative(path));
        let mut auth: Vec<(&'static str, String)> = Vec::new();
        if self.per_listener {
            let files = [
                ("password_file", &listener.password_file),
                ("acl_file", &listener.acl_file),
            ];
            auth.extend(
                files
                    .into_iter()
                    .filter_map(|(key, file)| Some((key, path(file.as_ref()?)))),
            );
        } else if listener.identity.is_some() {
            auth.clone_from(&self.auth);
        }
        if let Some(identity) = listener.identity {
            auth.push(("certificate_identity", quoted(Path::new(identity))));
        }
        if !auth.is_empty() {
            auth.push(("allow_anonymous", anonymous.unwrap_or(false).to_string()));
            section(out, "listener.auth", &auth);
        }
        if let (Some(certificate), Some(key)) = (&listener.certificate, &listener.key) {
            let mut tls = vec![("certificate", path(certificate)), ("key", path(key))];
            if let Some(authorities) = &listener.authorities {
                tls.push(("client_authorities", path(authorities)));
                let required = listener.require_certificate.to_string();
                tls.push(("require_client_certificate", required));
            }
            if let Some(revoked) = &listener.revoked {
                tls.push(("revocation_lists", format!("[{}]", path(revoked))));
            }
            if listener.only_tls_1_3 {
                tls.push(("minimum_version", "\"1.3\"".to_owned()));
            }
            section(out, "listener.tls", &tls);
        }
        if listener.websockets {
            let origins = serde_json::json!(listener.origins).to_string();
            section(out, "listener.websocket", &[("origins", origins)]);
        }
        if listener.proxy {
            let trusted = "[\"0.0.0.0/0\", \"::/0\"]".to_owned();
            section(out, "listener.proxy", &[("trusted", trusted)]);
        }
    }
}

fn section(out: &mut String, name: &str, entries: &[(&'static str, String)]) {
    if !entries.is_empty() {
        _ = write!(out, "\n[{name}]\n{}", lines(entries));
    }
}

/// The last word on a key counts, in the place of the first.
fn lines(entries: &[(&'static str, String)]) -> String {
    let mut out = String::new();
    for (number, (key, _)) in entries.iter().enumerate() {
        let is_first = !entries.iter().take(number).any(|(other, _)| other == key);
        let last = entries.iter().rev().find(|(other, _)| other == key);
        if let (true, Some((_, value))) = (is_first, last) {
            _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}
