//! One client of a library: what it does, and what it receives.

use std::{rc::Rc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    driver::{Answer, Delivery, Driver, Event},
    message::{Message, compare, to_hex},
    peer::Version,
};

/// A client that has been connected at least once.
pub(super) struct Client {
    driver: Rc<Driver>,
    number: u64,
    deadline: Instant,
    version: Version,
    /// What the broker answered to the last CONNECT.
    connack: Answer,
}

impl Client {
    /// Connects; `options` are those of the command `connect`.
    pub(super) fn connect(
        driver: Rc<Driver>,
        deadline: Instant,
        version: Version,
        options: Value,
    ) -> Result<Self> {
        let mut client = Self {
            number: driver.new_client(),
            driver,
            deadline,
            version,
            connack: Answer::default(),
        };
        client.connack = client.connection("connect", options)?;
        Ok(client)
    }

    /// Connects once more, with what the library remembers of the session.
    pub(super) fn reconnect(&mut self) -> Result<()> {
        self.connack = self.connection("reconnect", json!({}))?;
        Ok(())
    }

    /// The last CONNACK must say that there was a session, or that there was none. 3.1 cannot tell.
    pub(super) fn ensure_session(&self, expected: bool) -> Result<()> {
        let present = self.connack.session_present;
        ensure!(
            present == Some(expected) || self.version == Version::V3_1,
            "session present is {present:?}, expected {expected}"
        );
        Ok(())
    }

    /// The properties of the last CONNACK.
    pub(super) fn connack_properties(&self) -> &Value {
        &self.connack.properties
    }

    fn connection(&self, what: &str, options: Value) -> Result<Answer> {
        let answer = self.ask(what, options)?;
        ensure!(answer.code == Some(0), "refused: {answer:?}");
        Ok(answer)
    }

    /// Subscribes; the broker must grant that QoS.
    pub(super) fn subscribe(&self, filter: &str, qos: u8) -> Result<()> {
        self.subscribe_with(json!({"filter": filter, "qos": qos}), json!({}))
    }

    /// Subscribes with the options and properties of 5.0; the broker must grant the QoS.
    pub(super) fn subscribe_with(&self, filter: Value, properties: Value) -> Result<()> {
        let wanted = filter["qos"].as_u64();
        let command = json!({"filters": [filter], "properties": properties});
        let codes = self.ask("subscribe", command)?.codes;
        ensure!(
            codes.len() == 1 && codes.first().map(|&code| u64::from(code)) == wanted,
            "SUBACK has the codes {codes:?} for {filter}"
        );
        Ok(())
    }

    /// The reason codes of UNSUBACK, of which there are none before 5.0.
    pub(super) fn unsubscribe(&self, filters: &[&str]) -> Result<Vec<u8>> {
        let answer = self.ask("unsubscribe", json!({"filters": filters}))?;
        Ok(answer.codes)
    }

    /// Publishes one message and waits for its acknowledgement; the reason code of that.
    pub(super) fn publish(&self, message: &Message) -> Result<u8> {
        self.publish_with(message, json!({}))
    }

    /// Publishes one message with properties of 5.0; the reason code of its acknowledgement.
    pub(super) fn publish_with(&self, message: &Message, properties: Value) -> Result<u8> {
        let payloads = [message.payload.as_slice()];
        let sending = self.start_publish(message, &payloads, properties)?;
        let codes = self.finish_publish(sending)?;
        codes.first().copied().context("no reason code")
    }

    /// Starts to publish many payloads with the topic, QoS and flag of `model`.
    pub(super) fn start_publish(
        &self,
        model: &Message,
        payloads: &[impl AsRef<[u8]>],
        properties: Value,
    ) -> Result<u64> {
        let payloads: Vec<String> = payloads.iter().map(|one| to_hex(one.as_ref())).collect();
        self.command(
            "publish",
            json!({
                "topic": model.topic,
                "payloads": payloads,
                "qos": model.qos,
                "retain": model.retain,
                "properties": properties,
            }),
        )
    }

    /// The reason codes of what was published, when all of it is acknowledged.
    pub(super) fn finish_publish(&self, sending: u64) -> Result<Vec<u8>> {
        Ok(self.driver.answer(sending, self.deadline)?.codes)
    }

    /// The next message it receives.
    pub(super) fn receive(&self) -> Result<Delivery> {
        match self.driver.event(self.number, self.deadline)? {
            Event::Message(delivery) => Ok(delivery),
            Event::Closed(code) => bail!("closed with {code:?} instead of a message"),
        }
    }

    /// It must receive exactly these messages, in this order.
    pub(super) fn expect(&self, expected: &[Message]) -> Result<()> {
        let mut received = Vec::new();
        for number in 1..=expected.len() {
            let delivery = self.receive().with_context(|| {
                format!(
                    "message {number} of {}: {:?}",
                    expected.len(),
                    expected[number - 1]
                )
            })?;
            received.push(delivery.message);
            compare(&received, &expected[..number])?;
        }
        Ok(())
    }

    /// The broker must close the connection next; the reason code of its DISCONNECT, if it sent one.
    pub(super) fn closed(&self) -> Result<Option<u8>> {
        match self.driver.event(self.number, self.deadline)? {
            Event::Closed(code) => Ok(code),
            Event::Message(delivery) => bail!("not closed, but received {:?}", delivery.message),
        }
    }

    /// Disconnects and waits for the end of the connection.
    pub(super) fn disconnect(&self) -> Result<()> {
        self.disconnect_with(0, json!({}))
    }

    /// Disconnects with a reason code and properties of 5.0.
    pub(super) fn disconnect_with(&self, code: u8, properties: Value) -> Result<()> {
        self.ask(
            "disconnect",
            json!({"code": code, "properties": properties}),
        )?;
        Ok(())
    }

    /// Breaks the connection without a DISCONNECT.
    pub(super) fn cut(&self) -> Result<()> {
        self.ask("cut", json!({}))?;
        Ok(())
    }

    fn ask(&self, what: &str, options: Value) -> Result<Answer> {
        let id = self.command(what, options)?;
        self.driver
            .answer(id, self.deadline)
            .with_context(|| what.to_owned())
    }

    fn command(&self, what: &str, options: Value) -> Result<u64> {
        let Value::Object(mut command) = options else {
            bail!("the options of {what} are no object");
        };
        command.insert("do".to_owned(), what.into());
        command.insert("client".to_owned(), self.number.into());
        self.driver.command(command)
    }
}
