//! Bans that come while a client is connected.

use crate::connection::driver::Driver;

impl Driver {
    /// Whether the rules that hold now name this client. They are looked at when they have changed, and once after the
    /// connection was accepted: they may have changed while the client was on its way in.
    ///
    /// Who is named later is woken for it, so this comes after the waker was left with the outbox.
    pub(crate) fn is_banned(&mut self) -> bool {
        let version = self.hub.gate.bans.version();
        if self.bans == version {
            return false;
        }
        self.bans = version;
        let limits = self.hub.limits.load();
        let user = self.user();
        let users = [user.as_deref(), self.claimed_user.as_deref()];
        let named = users
            .into_iter()
            .any(|user| limits.bans.names_client(self.client.name(), user));
        named || limits.bans.names_address(self.peer().ip())
    }
}
