//! The broker from its start to its end: listeners, signals, and configurations that are read again.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use mqtt_broker::settings::{Prepared, Settings};
use mqtt_broker::{Address, Broker, Listener, ListenerControl};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::log::Log;
use crate::plan::Plan;
use crate::supervisor;
use crate::tell_in_time;
use crate::watch::Watch;

/// What a reload changes.
struct Running<'a> {
    args: Arc<Args>,
    log: &'a Log,
    /// What the broker was started with.
    started: Settings,
    broker: Broker,
    listeners: Vec<Bound>,
}

/// A listener that is served.
struct Bound {
    address: Address,
    /// Permissions of its file, where they were asked for.
    mode: Option<u32>,
    control: ListenerControl,
}

impl Bound {
    fn new(one: &NewListener) -> Self {
        Self {
            address: one.address.clone(),
            mode: one.mode,
            control: one.listener.control(),
        }
    }
}

/// A listener that is not served yet.
struct NewListener {
    address: Address,
    mode: Option<u32>,
    listener: Listener,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(args: Arc<Args>, plan: Plan, log: &Log) -> Result<()> {
    let runtime = mqtt_broker::runtime().context("cannot start the runtime")?;
    runtime.block_on(serve_until_told(args, plan, log))
}

async fn serve_until_told(args: Arc<Args>, plan: Plan, log: &Log) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut report = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;

    let Plan {
        settings,
        config,
        listeners: prepared,
        directory,
        files,
        content,
        ..
    } = plan;
    let bound = bind(prepared, &[])?;
    let broker = match &directory {
        None => Broker::new(config),
        Some(directory) => Broker::open(config, directory)?,
    };
    let mut watch = Watch::new();
    watch.renew(settings.reload.watch, &files, content);
    let mut out = std::io::stdout();
    let mut listeners = Vec::new();
    let mut running = Running {
        args,
        log,
        started: settings,
        broker: broker.clone(),
        listeners: Vec::new(),
    };
    for one in bound {
        // A closed standard output is no reason not to serve.
        let _ = writeln!(out, "listening on {}", one.listener);
        running.listeners.push(Bound::new(&one));
        listeners.push(one.listener);
    }
    let _ = out.flush();

    let counters = broker.counters();
    let serving = broker.run(listeners, async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
        supervisor::stopping();
    });
    tokio::pin!(serving);
    supervisor::ready();
    let alive = supervisor::report_alive();
    tokio::pin!(alive);
    loop {
        tokio::select! {
            () = &mut serving => break,
            () = &mut alive => {}
            _ = report.recv() => tell_in_time(counters.report()),
            _ = hang_up.recv() => {
                tracing::info!("SIGHUP: reading the configuration again");
                running.reload(&mut watch).await;
            }
            () = watch.changed() => {
                tracing::info!("a file has changed: reading the configuration again");
                running.reload(&mut watch).await;
            }
        }
    }
    tell_in_time(counters.report());
    Ok(())
}

/// Binds listeners that are not bound yet; those that are to be closed for it may have their ports.
fn bind(prepared: Vec<Prepared>, leaving: &[ListenerControl]) -> Result<Vec<NewListener>> {
    let bind_one = |one: Prepared| {
        let listener = Listener::bind_beside(&one.address, one.mode, leaving)
            .with_context(|| format!("cannot listen on {}", one.address))?;
        let listener = listener
            .with_options(one.options)
            .with_transport(one.transport);
        Ok(NewListener {
            address: one.address,
            mode: one.mode,
            listener,
        })
    };
    prepared.into_iter().map(bind_one).collect()
}

impl Running<'_> {
    /// Reads the configuration again and lets it hold, all of it or nothing.
    async fn reload(&mut self, watch: &mut Watch) {
        supervisor::reloading();
        let args = Arc::clone(&self.args);
        let planned = tokio::task::spawn_blocking(move || Plan::make(&args));
        match planned.await {
            Ok(Ok(plan)) => self.apply(plan, watch),
            Ok(Err(error)) => {
                tracing::error!("the configuration is not used, the old one stays: {error:#}");
            }
            Err(error) => tracing::error!(%error, "the configuration could not be read"),
        }
        supervisor::ready();
    }

    fn apply(&mut self, plan: Plan, watch: &mut Watch) {
        let mut leaving: Vec<_> = self.listeners.iter().collect();
        let (known, new): (Vec<_>, Vec<_>) = plan.listeners.into_iter().partition(|one| {
            // Several may have the same address, which has port 0: each stays itself, in their order.
            let found = leaving.iter().position(|it| it.address == one.address);
            found.map(|found| leaving.remove(found)).is_some()
        });
        let leaving: Vec<_> = leaving.iter().map(|it| it.control.clone()).collect();
        // The last that can fail, and the first that is done: so far nothing has changed.
        let bound = match bind(new, &leaving) {
            Ok(bound) => bound,
            Err(error) => {
                tracing::error!("the configuration is not used, the old one stays: {error:#}");
                return;
            }
        };
        self.log.set_level(plan.log_level);
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        let mut held_back = plan.settings.held_back(&self.started);
        let mut listeners = Vec::new();
        // First what listeners ask, so that whoever is looked at for the new users and permissions is asked as they are.
        for one in known {
            let mut found = self.listeners.iter();
            if let Some(found) = found.position(|it| it.address == one.address) {
                let mut it = self.listeners.remove(found);
                it.control.replace(one.options, one.transport);
                if !it.set_mode(one.mode) {
                    held_back.push(format!("mode of the listener {}", it.address));
                }
                listeners.push(it);
            }
        }
        self.broker.replace_auth(&plan.config.auth);
        self.broker.reconfigure(plan.config);
        self.broker.look_again();
        for it in self.listeners.drain(..) {
            tracing::info!(address = %it.address, "no longer listening");
            it.control.close();
        }
        for one in bound {
            tracing::info!("listening on {}", one.listener);
            listeners.push(Bound::new(&one));
            self.broker.listen(one.listener);
        }
        self.listeners = listeners;
        if !held_back.is_empty() {
            tracing::warn!("holds from the next start: {}", held_back.join(", "));
        }
        watch.renew(plan.settings.reload.watch, &plan.files, plan.content);
        tracing::info!("the new configuration holds");
    }
}

impl Bound {
    /// Gives the file of the socket these permissions, if they are others; false: it keeps those that it has.
    fn set_mode(&mut self, mode: Option<u32>) -> bool {
        if self.mode == mode {
            return true;
        }
        let done = match mode {
            None => return false,
            Some(mode) => self.control.set_mode(mode),
        };
        match &done {
            Ok(()) => self.mode = mode,
            Err(error) => tracing::warn!(address = %self.address, %error, "cannot set `mode`"),
        }
        done.is_ok()
    }
}
