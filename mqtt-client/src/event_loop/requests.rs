//! What the handles ask for, with a connection and without one.

use super::{EventLoop, time_since};
use crate::control::{Control, HandleId};
use crate::link::Link;
use crate::{Error, request};

/// Requests that wait for a connection.
const WAITING: usize = 1024;

impl EventLoop {
    /// Carries out what waits, so that a busy connection does not keep it waiting.
    pub(super) fn take_requests(&mut self, link: &mut Link) {
        while let Ok(id) = self.inputs.dropped.try_recv() {
            self.reader_dropped(Some(link), id);
        }
        while let Ok(control) = self.inputs.control.try_recv() {
            self.request(link, control);
        }
    }

    /// Writes a request, or tells why not.
    pub(crate) fn request(&mut self, link: &mut Link, control: Control) {
        let now = self.now();
        let registry = &mut self.outputs.registry;
        match control {
            Control::Subscribe {
                filters,
                options,
                handle,
                reply,
            } => request::subscribe(link, registry, now, filters, options, handle, reply),
            Control::Unsubscribe {
                filters,
                user_properties,
                reply,
            } => {
                request::unsubscribe(link, registry, now, filters, user_properties, Some(reply));
            }
            Control::Leave { id, reply } => {
                let filters = registry.leave(id);
                if filters.is_empty() {
                    let _ = reply.send(Ok(Vec::new()));
                } else {
                    request::unsubscribe(link, registry, now, filters, Vec::new(), Some(reply));
                }
            }
            Control::Reauthenticate { reply } => {
                let authentication = self.options.authentication.as_ref();
                request::reauthenticate(link, authentication, now, reply);
            }
            Control::Disconnect(options) => self.leave(options),
        }
    }

    /// A subscription was dropped.
    pub(crate) fn reader_dropped(&mut self, link: Option<&mut Link>, id: HandleId) {
        let registry = &mut self.outputs.registry;
        let filters = registry.dropped(id);
        if let Some(link) = link
            && !filters.is_empty()
        {
            let now = time_since(self.origin);
            request::unsubscribe(link, registry, now, filters, Vec::new(), None);
        }
    }

    /// Requests that cannot be carried out now wait for the next connection.
    pub(crate) fn postpone(&mut self, control: Control) {
        match control {
            Control::Disconnect(options) => self.leave(options),
            Control::Leave { id, reply } => {
                let filters = self.outputs.registry.leave(id);
                if filters.is_empty() || !self.options.outlives_connection() {
                    let _ = reply.send(Ok(Vec::new()));
                } else {
                    self.waiting.push_back(Control::Unsubscribe {
                        filters,
                        user_properties: Vec::new(),
                        reply,
                    });
                }
            }
            Control::Reauthenticate { .. } => control.refuse(Error::ConnectionLost),
            control if self.waiting.len() >= WAITING => control.refuse(Error::TooManyRequests),
            control => self.waiting.push_back(control),
        }
    }
}
