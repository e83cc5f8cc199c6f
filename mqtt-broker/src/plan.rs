//! What is to be served: the configuration file, the environment and the command line as one.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use mqtt_broker::settings::{
    ListenerSettings, Loaded, LogForm, LogLevel, Prepared, Problem, Settings, Size,
};
use mqtt_broker::{Address, Config};
use tracing::level_filters::LevelFilter;

use crate::args::{Args, LogFormat};
use crate::watch;

/// How often files are read that change all the time.
const CONSISTENT: usize = 3;

/// Everything that a start or a reload needs, read and checked.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) config: Config,
    pub(crate) listeners: Vec<Prepared>,
    /// Where state is kept; `None` in memory.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) log_level: LevelFilter,
    pub(crate) log_format: LogFormat,
    /// Files that it was read from.
    pub(crate) files: Vec<PathBuf>,
    /// What was in them, where they are to be watched.
    pub(crate) content: u64,
    pub(crate) warnings: Vec<Problem>,
}

impl Plan {
    /// Reads the configuration; the options of the command line stand before it.
    pub(crate) fn make(args: &Args) -> Result<Self> {
        let mut plan = Self::read(args)?;
        // What a watch finds in the files later is compared with what was read, not with what they have become since.
        for _ in 0..CONSISTENT {
            if !plan.settings.reload.watch {
                break;
            }
            let content = watch::content(&plan.files);
            let again = Self::read(args)?;
            let is_same = again.files == plan.files && watch::content(&again.files) == content;
            plan = again;
            plan.content = content;
            if is_same {
                break;
            }
        }
        Ok(plan)
    }

    fn read(args: &Args) -> Result<Self> {
        let mut loaded = match &args.config {
            Some(file) => Loaded::read(file),
            None => Loaded::from_environment(),
        }
        .map_err(|problem| anyhow!("{problem}"))?;
        let directory = match &args.data_dir {
            Some(directory) => Some(std::path::absolute(directory)?),
            None => None,
        };
        let settings = &mut loaded.settings;
        if !args.listen.is_empty() {
            settings.listener = args
                .listen
                .iter()
                .map(|address| listener(args, address.clone()))
                .collect();
        } else if settings.listener.is_empty() {
            let usual = Address::Tcp(([127, 0, 0, 1], 1883).into());
            settings.listener.push(listener(args, usual));
        }
        if let Some(level) = args.durability {
            settings.store.durability = level.into();
        }
        settings.store.in_memory |= args.in_memory;
        if let Some(directory) = directory {
            settings.store.directory = directory;
            settings.store.in_memory = false;
        }
        if let Some(level) = args.log_level {
            settings.log.level = said(level);
        }
        if let Some(format) = args.log_format {
            settings.log.format = match format {
                LogFormat::Text => LogForm::Text,
                LogFormat::Json => LogForm::Json,
            };
        }
        if let Some(bytes) = args.stored_window {
            settings.limits.stored_window_bytes = Size(bytes as u64);
        }
        if args.data_limit.is_some() {
            settings.limits.data_directory_bytes = args.data_limit;
        }
        if let Some(size) = args.disk_reserve {
            settings.limits.disk_reserve_bytes = size;
        }
        if args.max_connections.is_some() {
            settings.limits.max_connections = args.max_connections;
        }
        if let Some(size) = args.max_packet_size {
            settings.limits.max_packet_size = size;
        }
        let auth = &mut settings.auth;
        if args.allow_anonymous {
            auth.allow_anonymous = Some(true);
        }
        // What the command line names is relative to where it was typed.
        for (own, other) in [
            (&mut auth.password_file, &args.password_file),
            (&mut auth.acl_file, &args.acl_file),
        ] {
            if let Some(path) = other {
                *own = Some(std::path::absolute(path)?);
            }
        }
        if args.certificate_identity.is_some() {
            auth.certificate_identity = args.certificate_identity;
        }
        if let Some(address) = args.open_address()
            && !args.allow_anonymous
            && auth.admits_anybody()
        {
            bail!(
                "--listen {address}: anybody who reaches this address could connect; add --allow-anonymous if that is meant"
            );
        }
        let mut warnings = Vec::new();
        let listeners = loaded
            .prepare(&mut warnings)
            .map_err(|problem| anyhow!("{problem}"))?;
        let (_, authority) = loaded.authority().map_err(|problem| anyhow!("{problem}"))?;
        let settings = loaded.settings.clone();
        let mut config = settings.limits.config();
        config.bans = settings.bans.rules();
        config.durability = settings.store.durability;
        config.auth = authority;
        let directory = loaded.resolve(&settings.store.directory);
        Ok(Self {
            config,
            listeners,
            directory: (!settings.store.in_memory).then_some(directory),
            log_level: level(settings.log.level),
            log_format: match settings.log.format {
                LogForm::Text => LogFormat::Text,
                LogForm::Json => LogFormat::Json,
            },
            files: loaded.files(),
            content: 0,
            warnings,
            settings,
        })
    }
}

/// A listener of the command line.
fn listener(args: &Args, address: Address) -> ListenerSettings {
    let mut settings = ListenerSettings::on(address);
    settings.allow_anonymous = args.allow_anonymous.then_some(true);
    settings
}

fn said(level: LevelFilter) -> LogLevel {
    match level {
        LevelFilter::OFF => LogLevel::Off,
        LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Debug,
        LevelFilter::TRACE => LogLevel::Trace,
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
