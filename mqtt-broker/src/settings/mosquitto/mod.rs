//! From a mosquitto.conf to a configuration of this broker, and what is lost on the way.

mod global;
mod listener;
mod write;

use core::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::auth::{Acl, Passwords};
use crate::settings::mosquitto::global::{BUILT_IN, PLUGIN, plugin_reads};
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

/// A plug-in that is loaded, and used by those who name it.
#[derive(Clone, Debug)]
struct Loaded {
    name: String,
    /// The option for the file that it reads; none: it is none of those that read one.
    reads: Option<&'static str>,
    file: Option<Line>,
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
    /// That of `listeners` which the file describes now, if it has begun one.
    current: Option<usize>,
    /// The option for the file that the plug-in reads whose options come now.
    plugin_reads: Option<&'static str>,
    /// Plug-ins that were loaded by a name, with that option and the file. Options that come now are of the last one.
    loaded: Vec<Loaded>,
    is_loading: bool,
    allow_anonymous: Option<bool>,
    /// Files of users and permissions are those of the listener before them.
    per_listener: bool,
    /// Files that are named are looked at.
    opens_files: bool,
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
        opens_files: true,
        ..Import::default()
    };
    import.read(file, 0)?;
    Ok(import.finish())
}

/// Translates a text, and opens no file that it names.
#[cfg(feature = "fuzzing")]
pub(crate) fn import_text(text: &str) -> Imported {
    let mut import = Import::default();
    // Nothing is opened that could not be read.
    let _ = import.read_text(Path::new("mosquitto.conf"), text, 0);
    import.finish()
}

impl Import {
    fn read(&mut self, file: &Path, depth: usize) -> io::Result<()> {
        let text = fs::read_to_string(file).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        self.read_text(file, &text, depth)
    }

    fn read_text(&mut self, file: &Path, text: &str, depth: usize) -> io::Result<()> {
        let outer = self.current.take();
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
        self.current = outer;
        Ok(())
    }

    /// Files whose names end with `.conf`, in the order of their names.
    fn include(&mut self, line: &Line, depth: usize) -> io::Result<()> {
        if depth >= DEPTH {
            self.note(line, "directories include each other");
            return Ok(());
        }
        if !self.opens_files {
            self.note(line, "not looked into");
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

    /// Takes one option. Where it stands matters for those of listeners alone: global ones hold behind a
    /// bridge too, whose own have names that nothing else has.
    fn take(&mut self, line: &Line) {
        let name = line.name.as_str();
        if name == "listener" {
            let (mut listener, note) = Listener::parse(&line.value);
            listener.said.push(line.clone());
            self.current = Some(self.listeners.len());
            self.listeners.push(listener);
            if let Some(note) = note {
                self.note(line, note);
            }
            return;
        }
        if is_of_bridge(name) {
            self.note(line, "bridges are not carried over");
            return;
        }
        let option = name.strip_prefix("plugin_opt_");
        if let Some(option) = option.filter(|_| self.is_loading) {
            match self.loaded.last_mut() {
                Some(plugin) if plugin.reads == Some(option) => {
                    let mut line = line.clone();
                    option.clone_into(&mut line.name);
                    plugin.file = Some(line);
                }
                _ => self.note(line, PLUGIN),
            }
            return;
        }
        match name {
            "plugin_load" => return self.load(line),
            "plugin_use" => return self.use_loaded(line),
            "plugin" | "global_plugin" | "auth_plugin" => self.is_loading = false,
            _ => {}
        }
        if let Some(file) = self.plugin_reads.filter(|file| option == Some(*file)) {
            let mut line = line.clone();
            line.name = file.to_owned();
            self.take(&line);
            return;
        }
        // These two never are those of the listener before them.
        let listener = match name {
            "port" | "bind_address" => &mut self.default,
            _ => self
                .current
                .and_then(|current| self.listeners.get_mut(current))
                .unwrap_or(&mut self.default),
        };
        if self.per_listener {
            let value = &line.value;
            match name {
                "password_file" => listener.password_file = Some(value.clone()),
                "acl_file" => listener.acl_file = Some(value.clone()),
                "allow_anonymous" => listener.allow_anonymous = Some(is_on(value)),
                _ => {}
            }
            if let "password_file" | "acl_file" | "allow_anonymous" = name {
                listener.said.push(line.clone());
                self.look_into(line);
                return;
            }
        }
        if let Some(note) = listener.take(name, &line.value) {
            listener.said.push(line.clone());
            if let Some(note) = note {
                self.note(line, &note);
            }
            return;
        }
        self.take_global(line);
    }

    /// A name, and the plug-in.
    fn load(&mut self, line: &Line) {
        let (name, path) = line
            .value
            .split_once(char::is_whitespace)
            .unwrap_or((&line.value, ""));
        let reads = plugin_reads(path.trim());
        self.loaded.retain(|plugin| plugin.name != name);
        self.loaded.push(Loaded {
            name: name.to_owned(),
            reads,
            file: None,
        });
        self.is_loading = true;
        self.note(line, reads.map_or(PLUGIN, |_| BUILT_IN));
    }

    /// The file of a plug-in that was loaded holds as if it were named here.
    fn use_loaded(&mut self, line: &Line) {
        self.is_loading = false;
        let plugin = self.loaded.iter().find(|plugin| plugin.name == line.value);
        match plugin.map(|plugin| (plugin.reads, plugin.file.clone())) {
            Some((Some(_), Some(file))) => {
                self.note(line, BUILT_IN);
                self.take(&file);
            }
            Some((Some(_), None)) => self.note(line, "the file that it reads is not named"),
            _ => self.note(line, PLUGIN),
        }
    }

    /// Files of users and permissions are read here as they are: what cannot be is told now.
    fn look_into(&mut self, line: &Line) {
        if !self.opens_files {
            return;
        }
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

/// Whether a switch is on, in either way to say it.
fn is_on(value: &str) -> bool {
    matches!(value, "true" | "1")
}

/// Whether an option describes a bridge, as only those behind `connection` do.
fn is_of_bridge(name: &str) -> bool {
    const NAMES: &[&str] = &[
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
        "clientid",
        "username",
        "password",
        "notifications",
        "notifications_local_only",
        "notification_topic",
        "try_private",
        "local_cleansession",
        "local_clientid",
        "local_username",
        "local_password",
        "remote_clientid",
        "remote_username",
        "remote_password",
    ];
    name.starts_with("bridge_") || NAMES.contains(&name)
}

/// A path as a text of TOML.
fn quoted(path: &Path) -> String {
    // The escapes of JSON are among those of TOML.
    serde_json::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
mod every_option;
#[cfg(test)]
mod tests;
