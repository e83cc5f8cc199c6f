//! The broker from its start to its end: listeners, signals, and configurations that are read again.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use mqtt_broker::settings::{Prepared, Settings};
use mqtt_broker::{Address, Broker, Listener, ListenerControl};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::plan::Plan;
use crate::supervisor;
use crate::tell_in_time;
use crate::watch::Watch;

/// What a reload changes.
struct Running {
    args: Arc<Args>,
    settings: Settings,
    broker: Broker,
    listeners: Vec<(Address, ListenerControl)>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(args: Arc<Args>, plan: Plan) -> Result<()> {
    let runtime = mqtt_broker::runtime().context("cannot start the runtime")?;
    runtime.block_on(serve_until_told(args, plan))
}

async fn serve_until_told(args: Arc<Args>, plan: Plan) -> Result<()> {
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
        ..
    } = plan;
    let bound = bind(prepared, &[])?;
    let broker = match &directory {
        None => Broker::new(config),
        Some(directory) => Broker::open(config, directory)?,
    };
    let mut watch = Watch::new(settings.reload.watch, &files);
    let mut out = std::io::stdout();
    let mut listeners = Vec::new();
    let mut running = Running {
        args,
        settings,
        broker: broker.clone(),
        listeners: Vec::new(),
    };
    for (address, listener) in bound {
        // A closed standard output is no reason not to serve.
        let _ = writeln!(out, "listening on {listener}");
        running.listeners.push((address, listener.control()));
        listeners.push(listener);
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
fn bind(prepared: Vec<Prepared>, leaving: &[ListenerControl]) -> Result<Vec<(Address, Listener)>> {
    let bind_one = |one: Prepared| {
        let listener = Listener::bind_beside(&one.address, one.mode, leaving)
            .with_context(|| format!("cannot listen on {}", one.address))?;
        let listener = listener
            .with_options(one.options)
            .with_transport(one.transport);
        Ok((one.address, listener))
    };
    prepared.into_iter().map(bind_one).collect()
}

impl Running {
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
        let (known, new): (Vec<_>, Vec<_>) = plan.listeners.into_iter().partition(|one| {
            self.listeners
                .iter()
                .any(|(address, _)| *address == one.address)
        });
        let leaving = self.listeners.iter().filter(|(address, _)| {
            let stays = known.iter().any(|one| one.address == *address);
            !stays
        });
        let leaving: Vec<_> = leaving.map(|(_, control)| control.clone()).collect();
        // The last that can fail, and the first that is done: so far nothing has changed.
        let bound = match bind(new, &leaving) {
            Ok(bound) => bound,
            Err(error) => {
                tracing::error!("the configuration is not used, the old one stays: {error:#}");
                return;
            }
        };
        // The same files were read a moment ago: this fails only if they have changed since.
        if let Err(error) = self.broker.reload_auth_plan(&plan.auth) {
            tracing::error!("the configuration is not used, the old one stays: {error}");
            return;
        }
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        self.broker.reconfigure(plan.config);
        let mut listeners = Vec::new();
        for one in known {
            let found = self
                .listeners
                .iter()
                .position(|(address, _)| *address == one.address);
            if let Some(found) = found {
                let (address, control) = self.listeners.swap_remove(found);
                control.replace(one.options, one.transport);
                listeners.push((address, control));
            }
        }
        self.broker.look_again();
        for (address, control) in self.listeners.drain(..) {
            tracing::info!(%address, "no longer listening");
            control.close();
        }
        for (address, listener) in bound {
            tracing::info!("listening on {listener}");
            listeners.push((address, listener.control()));
            self.broker.listen(listener);
        }
        self.listeners = listeners;
        if self.settings.store != plan.settings.store || self.settings.log != plan.settings.log {
            tracing::warn!("changes of [store] and [log] hold from the next start on");
        }
        watch.renew(plan.settings.reload.watch, &plan.files);
        self.settings = plan.settings;
        tracing::info!("the new configuration holds");
    }
}
