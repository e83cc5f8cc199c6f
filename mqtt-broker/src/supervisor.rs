//! What systemd is told, where it started the broker and asks for it.

use core::time::Duration;

use sd_notify::NotifyState;

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Clients are served.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic time for systemd"),
    }
}

/// The broker shuts down.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Says that the broker is alive, twice as often as systemd wants to hear it. Never returns.
pub(crate) async fn report_alive() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return core::future::pending().await;
    };
    let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}
