//! Enhanced authentication (MQTT 5.0, section 4.12): the exchange of AUTH packets.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{Auth, Packet, ReasonCode};

use crate::Error;

/// Why an exchange cannot go on: the server's answer is wrong, or the secret is missing.
pub type AuthenticationError = Box<dyn std::error::Error + Send + Sync>;

/// One exchange of a method of enhanced authentication, such as SCRAM-SHA-256. It is called on the task
/// of the connection and should not block.
pub trait Authenticator: Send {
    /// The Authentication Method, which goes into CONNECT.
    fn method(&self) -> &str;

    /// The Authentication Data of CONNECT, or of the AUTH that begins to authenticate again.
    ///
    /// # Errors
    ///
    /// Whatever keeps the method from beginning; the connection is not made then.
    fn start(&mut self) -> Result<Option<Bytes>, AuthenticationError>;

    /// The server wants to go on: the data of the next AUTH.
    ///
    /// # Errors
    ///
    /// If what the server sent is wrong; the connection ends.
    fn proceed(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError>;

    /// The server accepted, with this data: the last chance to find out that it does not know the secret.
    ///
    /// # Errors
    ///
    /// If what the server sent is wrong; the connection ends.
    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError>;
}

/// Makes an [`Authenticator`] for each exchange.
#[derive(Clone)]
pub(crate) struct Authentication(Arc<dyn Fn() -> Box<dyn Authenticator> + Send + Sync>);

impl Authentication {
    pub(crate) fn new(make: impl Fn() -> Box<dyn Authenticator> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Begins an exchange.
    pub(crate) fn begin(&self) -> Result<Exchange, Error> {
        let mut authenticator = (self.0)();
        let data = authenticator.start().map_err(failed)?;
        Ok(Exchange {
            method: authenticator.method().to_owned(),
            data,
            authenticator,
        })
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authentication")
    }
}

/// An exchange that has begun.
pub(crate) struct Exchange {
    authenticator: Box<dyn Authenticator>,
    pub(crate) method: String,
    /// What goes out next.
    pub(crate) data: Option<Bytes>,
}

impl Exchange {
    /// The AUTH to send.
    pub(crate) fn packet(&self, reason: ReasonCode) -> Packet<'_> {
        let mut auth = Auth::new(reason, &self.method);
        auth.properties.authentication_data = self.data.as_deref();
        Packet::Auth(auth)
    }

    /// The server sent AUTH. True: the server has accepted; else [`packet`](Self::packet) is to be sent.
    pub(crate) fn handle(&mut self, auth: &Auth<'_>) -> Result<bool, Error> {
        let properties = &auth.properties;
        // [MQTT-4.12.0-5]: the method stays; a short AUTH of success has none.
        if properties
            .authentication_method
            .is_some_and(|method| method != self.method)
        {
            return Err(Error::Unexpected("AUTH"));
        }
        match auth.reason_code {
            ReasonCode::CONTINUE_AUTHENTICATION => {
                let data = self.authenticator.proceed(properties.authentication_data);
                self.data = data.map_err(failed)?;
                Ok(false)
            }
            ReasonCode::SUCCESS => self.finish(properties.authentication_data).map(|()| true),
            _ => Err(Error::Unexpected("AUTH")),
        }
    }

    /// The server accepted.
    pub(crate) fn finish(&mut self, data: Option<&[u8]>) -> Result<(), Error> {
        self.authenticator.finish(data).map_err(failed)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

fn failed(error: AuthenticationError) -> Error {
    Error::Authentication(error.into())
}
