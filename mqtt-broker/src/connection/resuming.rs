//! Sessions that are resumed: a service is asked about each of their subscriptions before they go on.

use mqtt_codec::TopicFilter;

use crate::auth::{Question, Reply, Told};
use crate::connection::handshake::{ConnectPacket, Refusal, while_there};
use crate::connection::login;
use crate::gate::Entrant;
use crate::hub::{Hub, SessionState};
use crate::transport::Stream;

/// Asks about each subscription of a session that is about to be resumed, and takes from it what is not allowed any
/// more. If not all is told, or the client does not wait for it, the session stays as it is and its client is not let
/// in.
pub(super) async fn check_subscriptions<S: Stream>(
    hub: &Hub,
    mut state: Box<SessionState>,
    packet: &ConnectPacket,
    entrant: &Entrant,
    stream: &mut S,
    rest: &mut Vec<u8>,
) -> Result<Box<SessionState>, Refusal> {
    loop {
        let epoch = hub.permissions();
        let Some(access) = state.client.access.load_full() else {
            return Ok(state);
        };
        let Some(topics) = &access.topics else {
            return Ok(state);
        };
        let filters: Vec<Box<str>> = state.subscriptions.iter().map(Into::into).collect();
        let parsed = filters.iter().map(|text| TopicFilter::new(text));
        let questions = parsed.filter_map(|filter| Some(Question::subscribe(filter.ok()?, None)));
        let questions: Vec<Question> = questions.collect();
        let told = state.told.take();
        let told = told.filter(|told| told.holds(epoch, &access, hub.now()));
        let known = |question| told.as_ref()?.get(question);
        let replies = questions
            .iter()
            .map(|it| known(it).unwrap_or(Reply::Failed));
        let mut replies: Vec<Reply> = replies.collect();

        let wanted = hub.wanted(&state.client.id);
        let waited = {
            let asked = topics.ask(&access, &questions, &mut replies, &hub.counters);
            let asked = while_there(hub, entrant, stream, rest, asked);
            tokio::select! {
                biased;
                waited = asked => waited,
                () = wanted.notified() => Err(Refusal::TakenOver),
            }
        };
        let refusal = match waited {
            Err(refusal) => Some(refusal),
            Ok(()) if replies.contains(&Reply::Failed) => {
                Some(packet.with_connect(|connect| login::service_failed(hub, connect)))
            }
            Ok(()) => None,
        };
        let answers = questions.into_iter().zip(replies);
        if let Some(refusal) = refusal {
            state.told = Told::new(epoch, &access, hub.now(), answers);
            hub.put_back(state);
            return Err(refusal);
        }
        if hub.permissions() != epoch {
            // Other rules hold now, and perhaps somebody else is to be asked.
            hub.check_resumed(&mut state);
            continue;
        }
        let denied = answers.filter(|(_, reply)| !reply.allows());
        let denied: Vec<Question> = denied.map(|(question, _)| question).collect();
        let denied: Vec<&str> = denied.iter().map(Question::text).collect();
        hub.take_subscriptions(&mut state, &denied);
        return Ok(state);
    }
}
