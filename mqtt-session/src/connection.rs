//! The facade: one connection of a session, of either end.

use alloc::boxed::Box;

use mqtt_codec::{
    Ack, ConnAck, Connect, PacketId, PacketType, PlainAck, PlainPublish, Publish, ReasonCode,
};

use crate::{
    ChangeNumber, ClientConfig, Completed, DropReason, Durability, Error, Event, Inbound,
    Negotiated, Outgoing, Role, ServerLimits, Session, Time, Timeout, Token, Verdict, acks::Acks,
    alias::InboundAliases, outbound::Progress, timer::KeepAlive, transmit::Link,
};

/// One connection of a session, of either end, without I/O, clock or thread.
///
/// # The rule of use
///
/// The caller reads and decodes packets, passes each to its input, and afterwards polls until there is
/// nothing left. It writes CONNECT, CONNACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT and AUTH
/// itself; all other packets are written by [`poll_transmit`](Self::poll_transmit).
///
/// **Begin**: a server calls [`server`](Self::server) with the CONNECT and writes CONNACK before it
/// polls. A client writes CONNECT, calls [`client`](Self::client), and passes CONNACK to
/// [`handle_connack`](Self::handle_connack); until then nothing is sent.
///
/// **Inputs**, in the order the packets came:
/// [`handle_publish`](Self::handle_publish), whose message the caller ends with
/// [`accept`](Self::accept) or [`reject`](Self::reject), at once or later, in any order;
/// [`handle_ack`](Self::handle_ack) or [`handle_plain_ack`](Self::handle_plain_ack) for PUBACK, PUBREC, PUBREL and
/// PUBCOMP;
/// [`handle_ping`](Self::handle_ping) for PINGREQ and PINGRESP;
/// [`received`](Self::received), once for all that one read brought, whatever it was;
/// [`durable`](Self::durable), when the store has written;
/// [`handle_timeout`](Self::handle_timeout), when the time of `poll_timeout` has come. An input that
/// returns an [`Error`] ends the connection.
///
/// **Commands**, at any time: [`push`](Self::push) and everything of [`session`](Self::session_mut),
/// [`ping`](Self::ping), [`allocate_packet_id`](Self::allocate_packet_id) for the caller's requests,
/// [`sent`](Self::sent) when the caller wrote a packet, [`pause_reading`](Self::pause_reading) and
/// [`resume_reading`](Self::resume_reading).
///
/// **Polls**, after any number of inputs and commands, in this order:
/// 1. [`poll_transmit`](Self::poll_transmit) until it returns false, the buffer being written or
///    appended to the caller's own output;
/// 2. [`poll_change`](Self::poll_change) until None, if the session is durable. The changes belong to
///    the unit that the caller writes for what it accepted since the last poll; a caller that writes
///    one unit a message polls for changes after each `accept`;
/// 3. [`poll_event`](Self::poll_event) until None;
/// 4. [`poll_timeout`](Self::poll_timeout), to know when to call `handle_timeout`. The time only ever
///    moves later by inputs, so a timer that fires early asks again; it need not be re-armed.
///
/// **End**: [`into_session`](Self::into_session) gives the session back for the next connection.
#[derive(Debug)]
pub struct Connection<H> {
    pub(crate) session: Session<H>,
    pub(crate) negotiated: Negotiated,
    pub(crate) link: Link<H>,
    pub(crate) acks: Acks,
    pub(crate) keep_alive: KeepAlive,
    inbound_aliases: Option<Box<InboundAliases>>,
    /// What a client asked for, until CONNACK.
    pub(crate) connecting: Option<Box<ClientConfig>>,
    /// PINGREQs to answer.
    pub(crate) pings: u32,
}

impl<H: Outgoing> Connection<H> {
    /// The server's end: it accepts the client's CONNECT. Whether the session is a new one
    /// ([MQTT-3.1.2-4]) was decided by the caller.
    #[must_use]
    pub fn server(
        session: Session<H>,
        limits: &ServerLimits,
        connect: &Connect<'_>,
        now: Time,
    ) -> Self {
        let mut negotiated = Negotiated::server(limits, connect);
        negotiated.session_present = session.is_established && !connect.clean_start;
        let keep_alive = KeepAlive::server(negotiated.keep_alive, now);
        let mut this = Self::new(session, negotiated, false, keep_alive);
        this.session.is_established = true;
        this
    }

    /// The client's end, which has written its CONNECT.
    #[must_use]
    pub fn client(session: Session<H>, config: ClientConfig, now: Time) -> Self {
        let negotiated = Negotiated::client(&config);
        let keep_alive = KeepAlive::client(negotiated.keep_alive, config.ping_timeout, now);
        let mut this = Self::new(session, negotiated, config.report_sent, keep_alive);
        this.connecting = Some(Box::new(config));
        this
    }

    fn new(
        mut session: Session<H>,
        negotiated: Negotiated,
        report_sent: bool,
        keep_alive: KeepAlive,
    ) -> Self {
        session.begin();
        Self {
            session,
            link: Link::new(&negotiated, report_sent),
            acks: Acks::new(),
            keep_alive,
            inbound_aliases: None,
            connecting: None,
            pings: 0,
            negotiated,
        }
    }

    /// What holds on this connection. Of a client's before CONNACK: what it asked for.
    pub const fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// The session.
    pub const fn session(&self) -> &Session<H> {
        &self.session
    }

    /// The session, for the commands that it has itself.
    pub const fn session_mut(&mut self) -> &mut Session<H> {
        &mut self.session
    }

    /// Ends the connection. Acknowledgements that are not written are dropped, tokens end, and a QoS 2
    /// message that was not accepted will be a new one when it comes again.
    #[must_use]
    pub fn into_session(mut self) -> Session<H> {
        self.session.end();
        self.session
    }

    // Inputs

    /// The server answered. If it has no session ([MQTT-3.2.2-5]), what was in flight is discarded
    /// and leaves as [`Event::Dropped`] with [`SessionLost`](crate::DropReason::SessionLost).
    ///
    /// # Errors
    /// [`Error::Refused`], or what the server may not say. A CONNACK to a connection that has had one.
    pub fn handle_connack(
        &mut self,
        now: Time,
        connack: &ConnAck<'_>,
    ) -> Result<&Negotiated, Error> {
        let config = self.connecting.take().ok_or(Error::SecondConnAck)?;
        self.negotiated
            .handle_connack(&config, connack, self.session.is_established)?;
        self.link = Link::new(&self.negotiated, config.report_sent);
        self.keep_alive.set_interval(self.negotiated.keep_alive);
        self.keep_alive.received(now);
        if !self.negotiated.session_present {
            for (handle, state) in self.session.discard() {
                self.link
                    .report(Event::Dropped(handle, DropReason::SessionLost(state)));
            }
        }
        self.session.is_established = true;
        Ok(&self.negotiated)
    }

    fn is_connected(&self, packet_type: PacketType) -> Result<(), Error> {
        match self.connecting {
            Some(_) => Err(Error::NotConnected { packet_type }),
            None => Ok(()),
        }
    }

    /// A PUBLISH: what to do with it. A message to deliver must be ended with `accept` or `reject`.
    ///
    /// # Errors
    /// What the peer may not send on this connection: close it.
    pub fn handle_publish<'p>(
        &'p mut self,
        _now: Time,
        publish: &'p Publish<'p>,
    ) -> Result<Verdict<'p>, Error> {
        self.is_connected(PacketType::Publish)?;
        let sender = self.negotiated.role.peer();
        if sender == Role::Client {
            if publish.qos > self.negotiated.maximum_qos {
                return Err(Error::QosNotSupported);
            }
            if publish.retain && !self.negotiated.retain_available {
                return Err(Error::RetainNotSupported);
            }
            if !publish.properties.subscription_identifiers.is_empty() {
                return Err(Error::SubscriptionIdentifierSent);
            }
        }
        let topic = match (publish.properties.topic_alias, publish.topic) {
            (None, Some(topic)) => topic,
            (None, None) => return Err(Error::TopicMissing),
            (Some(alias), topic) => {
                let aliases = self.inbound_aliases.get_or_insert_default();
                aliases.resolve(
                    topic,
                    alias,
                    self.negotiated.inbound.topic_alias_maximum,
                    sender,
                )?
            }
        };
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let maximum = self.negotiated.inbound.receive_maximum.get();
        let inbound = &mut self.session.inbound;
        let Some(place) = self
            .acks
            .receive(inbound, qos, packet_id, maximum, sender)?
        else {
            return Ok(Verdict::Duplicate);
        };
        let connection = self.session.connection;
        let token = Token {
            packet_id,
            qos,
            connection,
            place,
        };
        Ok(Verdict::Deliver(Inbound {
            topic,
            publish,
            token,
        }))
    }

    /// A PUBLISH that the caller has recognised as plain: its topic stands in it or is known, it has neither
    /// alias nor RETAIN nor properties. The token of a message to deliver, which must be ended with `accept` or
    /// `reject`; `None` where it is a duplicate.
    ///
    /// # Errors
    /// What the peer may not send on this connection: close it.
    #[inline]
    pub fn handle_plain_publish(
        &mut self,
        _now: Time,
        plain: PlainPublish,
    ) -> Result<Option<Token>, Error> {
        self.is_connected(PacketType::Publish)?;
        let sender = self.negotiated.role.peer();
        if sender == Role::Client && plain.qos() > self.negotiated.maximum_qos {
            return Err(Error::QosNotSupported);
        }
        let (qos, packet_id) = (plain.qos(), plain.packet_id());
        let maximum = self.negotiated.inbound.receive_maximum.get();
        let inbound = &mut self.session.inbound;
        let place = self
            .acks
            .receive(inbound, qos, packet_id, maximum, sender)?;
        let connection = self.session.connection;
        Ok(place.map(|place| Token {
            packet_id,
            qos,
            connection,
            place,
        }))
    }

    /// The caller took a message. The number, if any, is what its acknowledgement waits for: the unit in
    /// which the caller writes the message is durable when [`durable`](Self::durable) reaches it. At
    /// QoS 2 of a durable session there is always a change to write, whatever the durability said.
    pub fn accept(&mut self, token: Token, durability: Durability) -> Option<ChangeNumber> {
        self.accept_with(token, ReasonCode::SUCCESS, durability)
    }

    /// The same with a reason code below 0x80, such as 0x10 where there is no subscriber.
    pub fn accept_with(
        &mut self,
        token: Token,
        reason: ReasonCode,
        durability: Durability,
    ) -> Option<ChangeNumber> {
        if token.connection != self.session.connection {
            return None;
        }
        let Session {
            inbound, journal, ..
        } = &mut self.session;
        self.acks
            .accept(inbound, journal, token, reason, durability)
    }

    /// The caller refused a message, with a reason code of 0x80 or above. In v3, which cannot say so,
    /// it is acknowledged like one that was taken.
    pub fn reject(&mut self, token: Token, reason: ReasonCode) {
        if token.connection != self.session.connection {
            return;
        }
        if self.negotiated.version.has_reason_codes() && reason.is_error() {
            self.acks.reject(&mut self.session.inbound, token, reason);
        } else {
            self.accept_with(token, reason, Durability::Now);
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP. Returns the message that came to its end.
    ///
    /// # Errors
    /// An acknowledgement that does not fit the message of its identifier. One for an identifier that is
    /// not in use is none: it is counted ([`Session::unknown_acks`]) and answered as the standard says.
    pub fn handle_ack(
        &mut self,
        _now: Time,
        packet_type: PacketType,
        ack: &Ack<'_>,
    ) -> Result<Option<Completed<H>>, Error> {
        self.end_exchange(packet_type, ack.packet_id, ack.reason_code)
    }

    /// The same for one in its shortest form, which needs no general decoder: most are.
    ///
    /// # Errors
    /// Those of [`handle_ack`](Self::handle_ack).
    #[inline]
    pub fn handle_plain_ack(
        &mut self,
        _now: Time,
        ack: PlainAck,
    ) -> Result<Option<Completed<H>>, Error> {
        self.is_connected(ack.packet_type())?;
        let Session {
            outbound, journal, ..
        } = &mut self.session;
        let (packet_type, packet_id) = (ack.packet_type(), ack.packet_id());
        if let Some(progress) = outbound.advance_unkept(packet_type, packet_id, journal) {
            return Ok((progress == Progress::Ended).then_some(Completed {
                handle: None,
                packet_id,
                reason: ReasonCode::SUCCESS,
            }));
        }
        self.end_exchange(ack.packet_type(), ack.packet_id(), ReasonCode::SUCCESS)
    }

    fn end_exchange(
        &mut self,
        packet_type: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
    ) -> Result<Option<Completed<H>>, Error> {
        self.is_connected(packet_type)?;
        let Session {
            inbound,
            outbound,
            journal,
            ..
        } = &mut self.session;
        match packet_type {
            PacketType::PubAck | PacketType::PubRec | PacketType::PubComp => {
                let (completed, answer) =
                    outbound.handle_ack(packet_type, packet_id, reason, journal)?;
                if let Some(answer) = answer {
                    self.acks.reply_pubrel(answer.pubrel, answer.reason);
                }
                Ok(completed)
            }
            PacketType::PubRel => {
                self.acks.handle_pubrel(inbound, journal, packet_id)?;
                Ok(None)
            }
            packet_type => Err(Error::NotAnAck { packet_type }),
        }
    }

    /// PINGREQ at a server, which it answers; PINGRESP at a client.
    pub fn handle_ping(&mut self, _now: Time) {
        match self.negotiated.role {
            Role::Server => self.pings = self.pings.saturating_add(1),
            Role::Client => self.keep_alive.answered(),
        }
    }

    /// Packets came, of whatever kind. Once for all that one read brought is enough.
    pub const fn received(&mut self, now: Time) {
        self.keep_alive.received(now);
    }

    /// All changes up to this one are durable: what waits for them may leave.
    pub fn durable(&mut self, number: ChangeNumber) {
        self.session.durable(number);
    }

    /// The time of `poll_timeout` may have come.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Time) -> Timeout {
        if self.connecting.is_some() {
            return Timeout::Nothing;
        }
        self.keep_alive.handle_timeout(now)
    }

    // Commands

    /// Appends a message to the queue of the session.
    pub fn push(&mut self, handle: H) {
        self.session.push(handle);
    }

    /// A client sends PINGREQ with the next output, whatever the keep alive. Servers send none.
    pub fn ping(&mut self) {
        self.keep_alive.ping();
    }

    /// An identifier for a SUBSCRIBE or UNSUBSCRIBE of the caller; it ends with the connection. None
    /// if all are in use.
    pub fn allocate_packet_id(&mut self) -> Option<PacketId> {
        self.session.outbound.allocate()
    }

    /// SUBACK or UNSUBACK came. False: no request has this identifier.
    pub fn release_packet_id(&mut self, packet_id: PacketId) -> bool {
        self.session.outbound.release_request(packet_id)
    }

    /// The caller wrote a packet itself: counts for the keep alive of a client.
    pub fn sent(&mut self, now: Time) {
        self.keep_alive.sent(now);
    }

    /// The caller stops reading: the keep alive does not run until it goes on.
    pub fn pause_reading(&mut self, now: Time) {
        self.keep_alive.pause(now);
    }

    /// The caller reads again.
    pub fn resume_reading(&mut self, now: Time) {
        self.keep_alive.resume(now);
    }

    /// Gives spare memory back, for a connection that is idle.
    pub fn shrink(&mut self) {
        self.session.shrink();
        self.acks.shrink();
        self.link.shrink();
    }
}
