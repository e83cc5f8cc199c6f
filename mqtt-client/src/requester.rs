//! Requests: a message out, the message that answers it in (MQTT 5.0, section 4.10).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, oneshot};

use crate::{Client, Error, Filter, Message, Received, Subscription};

/// The requests of a client that are not answered, by their Correlation Data.
#[derive(Debug, Default)]
struct Open {
    waiting: HashMap<Bytes, oneshot::Sender<Received>>,
    last: u64,
    /// No answer will come any more.
    has_ended: bool,
}

/// What the clones of a client share for their requests.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    open: Arc<Mutex<Open>>,
    /// The topic that the answers come to, when it is subscribed.
    topic: OnceCell<String>,
}

/// Forgets a request when its caller no longer waits.
struct Waiting<'a> {
    requester: &'a Requester,
    correlation: Bytes,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.requester.open).waiting.remove(&self.correlation);
    }
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requester {
    /// Publishes a request and waits for the answer.
    pub(crate) async fn request(
        &self,
        client: &Client,
        message: Message,
    ) -> Result<Received, Error> {
        if !client.server().version.has_properties() {
            return Err(Error::Unsupported("requests need MQTT 5"));
        }
        let topic = self
            .topic
            .get_or_try_init(|| self.listen(client))
            .await?
            .clone();
        let (sender, answer) = oneshot::channel();
        let correlation = {
            let mut open = lock(&self.open);
            if open.has_ended {
                return Err(Error::Closed);
            }
            open.last += 1;
            let correlation = Bytes::copy_from_slice(&open.last.to_be_bytes());
            open.waiting.insert(correlation.clone(), sender);
            correlation
        };
        let waiting = Waiting {
            requester: self,
            correlation: correlation.clone(),
        };
        let mut properties = message.property().clone();
        properties.response_topic = Some(topic);
        properties.correlation_data = Some(correlation);
        let receipt = client.publish(message.properties(properties)).await?;
        let reason = receipt.await?;
        if reason.is_error() {
            return Err(Error::RequestRefused { reason });
        }
        let answer = answer.await.map_err(|_| Error::Closed);
        drop(waiting);
        answer
    }

    /// Subscribes to the topic of the answers.
    async fn listen(&self, client: &Client) -> Result<String, Error> {
        let topic = client.response_topic();
        let subscription = client
            .subscribe(Filter::new(topic.as_str())?.qos(mqtt_codec::QoS::AtLeastOnce))
            .await?;
        tokio::spawn(answers(subscription, Arc::clone(&self.open)));
        Ok(topic)
    }
}

/// Gives each answer to who waits for it, to the end of the client.
async fn answers(mut subscription: Subscription, open: Arc<Mutex<Open>>) {
    while let Some(answer) = subscription.recv().await {
        answer.acknowledge();
        let correlation = answer.property().correlation_data.clone();
        let sender = correlation.and_then(|data| lock(&open).waiting.remove(&data));
        match sender {
            // Who asked may have stopped waiting.
            Some(sender) => drop(sender.send(answer)),
            None => tracing::debug!("an answer came that nobody waits for"),
        }
    }
    let mut open = lock(&open);
    open.has_ended = true;
    open.waiting.clear();
}
