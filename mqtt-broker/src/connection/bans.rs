//! What may come while a client is connected that does not let it stay: bans, and a listener that asks who it is.

use crate::client::Kick;
use crate::connection::driver::Driver;

impl Driver {
    /// Why the client may not stay: bans that hold now name it, or its listener asks now who it is. That is looked at
    /// when one of them has changed, and once after the connection was accepted: they may have changed while the client
    /// was on its way in.
    ///
    /// Who may not stay is woken for it, so this comes after the waker was left with the outbox.
    pub(crate) fn may_not_stay(&mut self) -> Option<Kick> {
        let version = self.hub.gate.bans.version();
        if self.bans == version {
            return None;
        }
        self.bans = version;
        if self.is_banned() {
            return Some(Kick::Banned);
        }
        self.is_unknown().then_some(Kick::NoLongerAdmitted)
    }

    fn is_banned(&self) -> bool {
        let limits = self.hub.limits.load();
        let user = self.user();
        let users = [user.as_deref(), self.claimed_user.as_deref()];
        let named = users
            .into_iter()
            .any(|user| limits.bans.names_client(self.client.name(), user));
        named || limits.bans.names_address(self.peer().ip())
    }
}
