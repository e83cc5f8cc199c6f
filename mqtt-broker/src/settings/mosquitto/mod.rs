//! From a mosquitto.conf to a configuration of this broker, and what is lost on the way.

mod listener;
mod write;

use core::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::auth::{Acl, Passwords};
use crate::settings::mosquitto::listener::Listener;

/// Directories within directories that are followed, at most.
const DEPTH: usize = 8;

/// What became of a mosquitto.conf.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Imported {
    /// The configuration, as TOML.
    pub toml: String,
    /// What has no equivalent, or another one: `FILE:LINE: option: reason`.
    pub notes: Vec<String>,
}

/// Where a line stands.
#[derive(Clone, Debug)]
struct Place {
    file: PathBuf,
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A line with an option.
#[derive(Clone, Debug)]
struct Line {
    place: Place,
    name: String,
    value: String,
}

/// What was gathered so far.
#[derive(Debug, Default)]
struct Import {
    /// Directory that paths are made relative to: the one of the first file.
    base: PathBuf,
    store: Vec<(&'static str, String)>,
    log: Vec<(&'static str, String)>,
    limits: Vec<(&'static str, String)>,
    auth: Vec<(&'static str, String)>,
    /// The listener that is described without `listener`.
    default: Listener,
    listeners: Vec<Listener>,
    /// Within the description of a bridge.
    in_bridge: bool,
    allow_anonymous: Option<bool>,
    /// Files of users and permissions are those of the listener before them.
    per_listener: bool,
    persistence: bool,
    notes: Vec<String>,
}

/// Translates a file and those that it includes.
///
/// # Errors
/// A file cannot be read.
pub fn import_mosquitto(file: &Path) -> io::Result<Imported> {
    let mut import = Import {
        base: file.parent().unwrap_or(Path::new("")).to_owned(),
        ..Import::default()
    };
    import.read(file, 0)?;
    Ok(import.finish())
}

impl Import {
    fn read(&mut self, file: &Path, depth: usize) -> io::Result<()> {
        let text = fs::read_to_string(file).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        for (number, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let line = Line {
                place: Place {
                    file: file.to_owned(),
                    line: number + 1,
                },
                name: name.to_owned(),
                value: value.trim().to_owned(),
            };
            if name == "include_dir" {
                self.include(&line, depth)?;
            } else {
                self.take(&line);
            }
        }
        Ok(())
    }

    /// Files whose names end with `.conf`, in the order of their names.
    fn include(&mut self, line: &Line, depth: usize) -> io::Result<()> {
        if depth >= DEPTH {
            self.note(line, "directories include each other");
            return Ok(());
        }
        let directory = Path::new(&line.value);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.note(line, &format!("{}: {error}", line.value));
                return Ok(());
            }
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .collect();
        files.sort();
        files.iter().try_for_each(|file| self.read(file, depth + 1))
    }

    fn note(&mut self, line: &Line, reason: &str) {
        self.notes
            .push(format!("{}: {}: {reason}", line.place, line.name));
    }

    /// Takes one option.
    fn take(&mut self, line: &Line) {
        match line.name.as_str() {
            "listener" => {
                self.in_bridge = false;
                let (listener, note) = Listener::parse(&line.value);
                self.listeners.push(listener);
                if let Some(note) = note {
                    self.note(line, note);
                }
                return;
            }
            "connection" => {
                self.in_bridge = true;
                self.note(line, "bridges are not carried over");
                return;
            }
            _ if self.in_bridge => return,
            _ => {}
        }
        let listener = self.listeners.last_mut().unwrap_or(&mut self.default);
        if self.per_listener {
            let value = &line.value;
            match line.name.as_str() {
                "password_file" => listener.password_file = Some(value.clone()),
                "acl_file" => listener.acl_file = Some(value.clone()),
                "allow_anonymous" => listener.allow_anonymous = Some(value == "true"),
                _ => {}
            }
            if let "password_file" | "acl_file" | "allow_anonymous" = line.name.as_str() {
                self.look_into(line);
                return;
            }
        }
        if let Some(note) = listener.take(&line.name, &line.value) {
            if let Some(note) = note {
                self.note(line, &note);
            }
            return;
        }
        self.take_global(line);
    }

    fn take_global(&mut self, line: &Line) {
        let value = line.value.as_str();
        let is_on = value == "true";
        let number = value.parse::<u64>();
        let limit = |key: &'static str| number.clone().ok().map(|n| (key, n.to_string()));
        let mut limits = |entry: Option<(&'static str, String)>| match entry {
            Some(entry) => {
                self.limits.push(entry);
                None
            }
            None => Some("not a number"),
        };
        let note = match line.name.as_str() {
            "persistence" | "retained_persistence" => {
                self.persistence = is_on;
                None
            }
            "persistence_location" => {
                let place = self.relative(value);
                self.store.push(("directory", quoted(&place)));
                Some(
                    "the directory gets files of this broker; messages in mosquitto.db stay behind",
                )
            }
            "autosave_interval" | "autosave_on_changes" | "persistence_file" => {
                Some("not needed: what is acknowledged is on the disk")
            }
            "max_packet_size" | "message_size_limit" if number == Ok(0) => None,
            "max_packet_size" => limits(limit("max_packet_size")),
            "message_size_limit" => limits(limit("max_packet_size")).or(Some(
                "became max_packet_size, which counts topic and properties as well",
            )),
            "max_inflight_messages" if number == Ok(0) => Some("0: became the default of 256"),
            "max_inflight_messages" => limits(limit("receive_maximum_v3")),
            "max_queued_bytes" if number == Ok(0) => None,
            "max_queued_bytes" => limits(limit("stored_queue_bytes")),
            "max_queued_messages" if number == Ok(0) => None,
            "max_queued_messages" => limits(limit("queue_messages")),
            "max_keepalive" if number == Ok(0) => None,
            "max_keepalive" => limits(limit("keep_alive_maximum")),
            "global_max_connections" if value == "-1" => None,
            "global_max_connections" => limits(limit("max_connections")),
            "retain_available" => {
                self.limits.push(("retain_available", is_on.to_string()));
                None
            }
            "max_topic_alias" => limits(limit("topic_alias_maximum")),
            "persistent_client_expiration" => limits(expiration(value)),
            "allow_anonymous" => {
                self.allow_anonymous = Some(is_on);
                None
            }
            "password_file" | "acl_file" => {
                let key = match line.name.as_str() {
                    "password_file" => "password_file",
                    _ => "acl_file",
                };
                self.auth.push((key, quoted(&self.relative(value))));
                self.look_into(line);
                None
            }
            "log_type" if value == "all" || value == "debug" => {
                self.log.push(("level", "\"debug\"".into()));
                None
            }
            "log_dest" if value == "stderr" => None,
            "log_type"
            | "log_dest"
            | "log_timestamp"
            | "log_timestamp_format"
            | "log_facility"
            | "connection_messages"
            | "websockets_log_level" => {
                Some("the log goes to standard error, with times, connections and refusals: [log]")
            }
            "pid_file" | "user" => Some("not needed: let systemd start the broker as a user"),
            "set_tcp_nodelay" if is_on => None,
            "set_tcp_nodelay" => Some("always on"),
            "retry_interval" => Some("obsolete: messages are sent again when a client reconnects"),
            "psk_file" => Some("TLS with pre-shared keys is not supported by rustls"),
            "plugin" | "global_plugin" | "auth_plugin" | "plugin_load" | "plugin_use" => {
                Some("plug-ins are not carried over")
            }
            name if name.starts_with("plugin_opt_") || name.starts_with("auth_opt_") => None,
            "per_listener_settings" => {
                self.per_listener = is_on;
                None
            }
            "max_inflight_bytes" if value == "0" => None,
            "sys_interval" => Some("there is no $SYS"),
            "memory_limit" | "max_inflight_bytes" | "global_max_clients" => {
                Some("no such limit: see [limits]")
            }
            _ => Some("no equivalent"),
        };
        if let Some(note) = note {
            self.note(line, note);
        }
    }

    /// Files of users and permissions are read here as they are: what cannot be is told now.
    fn look_into(&mut self, line: &Line) {
        let file = Path::new(&line.value);
        let problem = match line.name.as_str() {
            "password_file" => Passwords::read(file).err().map(|error| error.to_string()),
            "acl_file" => Acl::read(file).err().map(|error| error.to_string()),
            _ => None,
        };
        if let Some(problem) = problem {
            self.note(
                line,
                &format!("the file cannot be used as it is: {problem}"),
            );
        }
    }

    /// Paths of mosquitto are relative to where it was started, mostly absolute.
    fn relative(&self, path: &str) -> PathBuf {
        match Path::new(path).strip_prefix(&self.base) {
            Ok(rest) if !self.base.as_os_str().is_empty() => rest.to_owned(),
            _ => path.into(),
        }
    }
}

/// A path as a text of TOML.
fn quoted(path: &Path) -> String {
    // The escapes of JSON are among those of TOML.
    serde_json::Value::String(path.display().to_string()).to_string()
}

/// `2m` is two months there.
fn expiration(text: &str) -> Option<(&'static str, String)> {
    const HOUR: u64 = 3_600;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "h" => HOUR,
        "d" => 24 * HOUR,
        "w" => 7 * 24 * HOUR,
        "m" => 30 * 24 * HOUR,
        "y" => 365 * 24 * HOUR,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(factor)?;
    Some(("session_expiry_maximum", format!("\"{seconds}s\"")))
}

#[cfg(test)]
mod tests;
