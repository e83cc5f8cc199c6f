//! What may come while a client is connected that does not let it stay: bans, a listener that asks for more, and a
//! configuration that would not let it in.

use crate::auth::{Access, Owner};
use crate::client::Kick;
use crate::connection::driver::Driver;
use crate::connection::handshake;
use crate::gate::AsksCertificate;

impl Driver {
    /// Why the client may not stay: bans that hold now name it, or it would not be let in now. That is looked at when
    /// something of that has changed, and once after the connection was accepted: it may have changed while the client
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
        (!self.is_still_admitted()).then_some(Kick::NoLongerAdmitted)
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

    /// Whether its listener, and the configuration of authentication that holds there, would let it in now.
    fn is_still_admitted(&self) -> bool {
        let asks = self.asks();
        let certificate = self.peer().certificate.as_deref();
        let certificate = certificate.filter(|_| asks.certificate != AsksCertificate::No);
        if certificate.is_none() && asks.certificate == AsksCertificate::Must {
            return false;
        }
        if asks.encryption && !self.is_encrypted() {
            return false;
        }
        let access = self.client.access.load_full();
        let access = access.as_deref();
        if asks.who && !handshake::has_shown_itself(certificate, access) {
            return false;
        }
        // Who goes through an exchange is who that says, whatever its certificate does.
        let named_by = certificate.filter(|_| self.enhanced.is_none());
        let policies = self.hub.config.auth.policies();
        if !policies.still_admits(access, asks.realm.as_ref(), named_by) {
            return false;
        }
        // Who came when nobody was asked was given the permissions of no listener in particular.
        if let Some(access) = access
            && (access.is_from_anywhere || (access.realm.is_none() && asks.realm.is_some()))
        {
            let owner = Owner::clone(&access.owner);
            let access = Access {
                realm: asks.realm.clone(),
                is_from_anywhere: false,
                ..access.clone()
            };
            self.hub.grant(&self.client, owner, Some(access));
        }
        true
    }
}
