//! What was understood of a mosquitto.conf, written as TOML.

use core::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::settings::mosquitto::listener::Listener;
use crate::settings::mosquitto::{Import, Imported, Line, quoted};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
        for listener in &self.settle() {
            self.write_listener(&mut out, listener);
        }
        Imported {
            toml: out.trim_start().to_owned(),
            notes: self.notes,
        }
    }

    /// The listeners that are served; none becomes more open than it was.
    fn settle(&mut self) -> Vec<Listener> {
        let mut listeners = core::mem::take(&mut self.listeners);
        let mut default = core::mem::take(&mut self.default);
        if default.is_described() {
            listeners.insert(0, default);
        } else if listeners.is_empty() {
            // With nothing said mosquitto serves this machine only.
            default.port = Some(1883);
            if default.said.is_empty() {
                self.allow_anonymous.get_or_insert(true);
            }
            if default.bind.is_none() {
                default.bind = Some(LOOPBACK);
                self.note_once(&default.said, "there is no `port`: became 127.0.0.1:1883");
            }
            listeners.push(default);
        } else {
            self.note_once(
                &default.said,
                "not of the listeners that `listener` begins, but of that of `port`: there is none",
            );
        }
        for listener in &mut listeners {
            if let Some((name, reason)) = listener.problem() {
                listener.left_out = true;
                self.note_at(
                    listener,
                    name,
                    &format!("the listener is left out: {reason}"),
                );
            } else if let Some((name, reason)) = listener.in_vain() {
                self.note_at(listener, name, reason);
            }
        }
        if listeners.iter().all(|listener| listener.left_out) {
            // The broker would serve this address then, and anybody.
            if let Some(line) = listeners.last().and_then(|listener| listener.said.first()) {
                let reason =
                    "no listener is left: became 127.0.0.1:1883, closed to anonymous clients";
                self.note(line, reason);
            }
            listeners.push(Listener {
                port: Some(1883),
                bind: Some(LOOPBACK),
                allow_anonymous: Some(false),
                ..Listener::default()
            });
        }
        listeners.retain(|listener| !listener.left_out);
        listeners
    }

    /// Tells it of the lines that nothing was said of yet.
    fn note_once(&mut self, lines: &[Line], reason: &str) {
        for line in lines {
            let start = format!("{}: {}: ", line.place, line.name);
            if !self.notes.iter().any(|note| note.starts_with(&start)) {
                self.note(line, reason);
            }
        }
    }

    /// Tells it of the last line of a listener with this option.
    fn note_at(&mut self, listener: &Listener, name: &str, reason: &str) {
        if let Some(line) = listener.said.iter().rev().find(|line| line.name == name) {
            self.note(line, reason);
        }
    }

    fn write_listener(&self, out: &mut String, listener: &Listener) {
        let mut entries = Vec::new();
        let address = match &listener.unix {
            Some(path) => format!("unix:{}", self.relative(path).display()),
            None => {
                let all = match listener.only_v4 {
                    true => IpAddr::from([0_u8; 4]),
                    false => IpAddr::from([0_u16; 8]),
                };
                let address = listener.bind.unwrap_or(all);
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
