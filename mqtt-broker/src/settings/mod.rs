//! The configuration file: read, checked, and turned into what the library takes.

mod authentication;
mod bans;
mod certificate;
pub(crate) mod describe;
mod environment;
mod example;
mod held_back;
mod hidden;
mod limits;
mod mosquitto;
mod prepare;
mod problem;
mod sections;
mod value;

use std::path::{Path, PathBuf};

use toml::Table;

use crate::settings::problem::{Source, Step, explain};

pub(crate) use crate::settings::describe::section;

pub use crate::settings::bans::BanSettings;
pub use crate::settings::example::example;
pub use crate::settings::limits::LimitSettings;
#[cfg(feature = "fuzzing")]
pub(crate) use crate::settings::mosquitto::import_text;
pub use crate::settings::mosquitto::{Imported, import_mosquitto};
pub use crate::settings::prepare::Prepared;
pub use crate::settings::problem::Problem;
pub use crate::settings::sections::{
    ListenerSettings, LogForm, LogLevel, LogSettings, ProxySettings, ReloadSettings, Settings,
    StoreSettings, TlsMinimum, TlsSettings, WebSocketSettings,
};
pub use crate::settings::value::{Quality, Size, Span, Version};

/// A configuration with the text it comes from, for messages that point there.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says. Paths are relative to the file.
    pub settings: Settings,
    file: PathBuf,
    text: String,
}

impl Loaded {
    /// Reads a file, and what the environment puts before it.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has a key or a value that means nothing.
    pub fn read(file: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Problem::elsewhere(format_args!("{}: {error}", file.display())))?;
        Self::parse(file, text, variables())
    }

    /// What the environment says, without a file.
    ///
    /// # Errors
    /// A variable names no key, or has a value that means nothing.
    pub fn from_environment() -> Result<Self, Problem> {
        Self::parse(Path::new(""), String::new(), variables())
    }

    /// Reads the text of a file. `variables` are the names and values of the environment.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn parse(
        file: &Path,
        text: String,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problem> {
        let source = Source { file, text: &text };
        let at_fault = |error: toml::de::Error| {
            Problem::new(&source, error.span(), &explain(error.message()), false)
        };
        let of_file: Settings = toml::from_str(&text).map_err(at_fault)?;
        let table: Table = toml::from_str(&text).map_err(at_fault)?;
        let settings = environment::apply(table, variables)?.unwrap_or(of_file);
        let loaded = Self {
            settings,
            file: file.to_owned(),
            text,
        };
        match loaded.settings.limits.problem() {
            Some((key, what)) => Err(loaded.error(&[Step::Key("limits"), Step::Key(key)], what)),
            None => match loaded.ban_problem() {
                Some(problem) => Err(problem),
                None => Ok(loaded),
            },
        }
    }

    /// A path as it is meant: relative to the file.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match self.file.parent() {
            Some(directory) => directory.join(path),
            None => path.to_owned(),
        }
    }

    fn error(&self, path: &[Step<'_>], message: &str) -> Problem {
        self.problem(path, message, false)
    }

    fn warning(&self, path: &[Step<'_>], message: &str) -> Problem {
        self.problem(path, message, true)
    }

    fn problem(&self, path: &[Step<'_>], message: &str, warning: bool) -> Problem {
        let source = Source {
            file: &self.file,
            text: &self.text,
        };
        Problem::new(&source, source.span(path), message, warning)
    }
}

/// Names and values that are not text are none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests;
