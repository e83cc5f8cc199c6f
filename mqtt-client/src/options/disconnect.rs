//! How to disconnect.

use std::time::Duration;

/// What goes into DISCONNECT besides the packet itself (MQTT 5).
#[derive(Debug, Clone)]
pub struct DisconnectOptions {
    pub(crate) with_will: bool,
    pub(crate) drain: Duration,
    pub(crate) session_expiry_interval: Option<u32>,
    pub(crate) user_properties: Vec<(String, String)>,
}

impl Default for DisconnectOptions {
    fn default() -> Self {
        Self {
            with_will: false,
            drain: Duration::from_secs(5),
            session_expiry_interval: None,
            user_properties: Vec::new(),
        }
    }
}

impl DisconnectOptions {
    /// A normal end.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait until all messages that were published are acknowledged. Default: 5 s.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Have the server publish the Will all the same (0x04). MQTT 3 cannot ask for it.
    #[must_use]
    pub fn with_will(mut self) -> Self {
        self.with_will = true;
        self
    }

    /// Seconds that the session outlives the connection, instead of what CONNECT said.
    #[must_use]
    pub fn session_expiry_interval(mut self, seconds: u32) -> Self {
        self.session_expiry_interval = Some(seconds);
        self
    }

    /// Adds a User Property.
    #[must_use]
    pub fn user_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }
}
