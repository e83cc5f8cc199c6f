//! Every state of an end that was met, and what each input makes of it.
//!
//! An end does not see the other: what an input does to it is found out once, whatever the rest of
//! the system is. A connection cannot be copied: a state is the memory that its connection began
//! with, and the inputs since.

use std::rc::Rc;

use super::{
    endpoint::{Endpoint, Input, Memory, decode},
    fingerprint::fingerprint,
    intern::{Map, Table},
    setup::{CLIENT, Mutant, SERVER, Setup},
};

/// What the search has to know of a state of an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) is_online: bool,
    pub(super) is_at_rest: bool,
    pub(super) can_push: bool,
    /// Messages that the application may take next.
    pub(super) open: u8,
    /// Units that may be lost.
    pub(super) tail: u8,
    /// One bit a key: the peer said that it took it.
    pub(super) acknowledged: u8,
    /// One bit a key: taken, and durable where the end is.
    pub(super) taken: u8,
}

struct State {
    base: Rc<Memory>,
    inputs: Box<[Input]>,
    summary: Summary,
}

/// What an input does: the next state and the packet that is written, or the property that breaks.
pub(super) type Effect = Result<(u32, Option<u32>), Rc<str>>;

pub(super) struct Ends {
    pub(super) setup: Setup,
    pub(super) packets: Table<Vec<u8>>,
    states: Vec<State>,
    numbers: Map<u128, u32>,
    effects: Map<(u32, Input), Effect>,
}

impl Ends {
    pub(super) fn new(setup: Setup) -> Self {
        let mut this = Self {
            setup,
            packets: Table::new(),
            states: Vec::new(),
            numbers: Map::default(),
            effects: Map::default(),
        };
        for role in [CLIENT, SERVER] {
            let memory = Rc::new(Memory::new(role, &this.setup));
            let end = Endpoint::new((*memory).clone());
            assert_eq!(this.insert(&end, &memory, Vec::new()), role as u32);
        }
        this
    }

    pub(super) fn summary(&self, state: u32) -> Summary {
        self.states[state as usize].summary
    }

    /// What an input does to a state.
    pub(super) fn effect(&mut self, state: u32, input: Input) -> Effect {
        if let Some(effect) = self.effects.get(&(state, input)) {
            return effect.clone();
        }
        let effect = self.find_out(state, input);
        self.effects.insert((state, input), effect.clone());
        effect
    }

    fn find_out(&mut self, state: u32, input: Input) -> Effect {
        let State { base, inputs, .. } = &self.states[state as usize];
        let base = Rc::clone(base);
        let mut inputs = inputs.to_vec();
        inputs.push(input);
        let mut end = Endpoint::new((*base).clone());
        let mut output = None;
        for input in &inputs {
            let packet: &[u8] = match input {
                Input::Receive(packet) => self.packets.value(*packet),
                _ => &[],
            };
            output = end.step(&self.setup, *input, packet)?;
        }
        let output = output.map(|packet| self.packets.number(packet));
        Ok((self.insert(&end, &base, inputs), output))
    }

    fn insert(&mut self, end: &Endpoint, base: &Rc<Memory>, inputs: Vec<Input>) -> u32 {
        let next = u32::try_from(self.states.len()).expect("32 bits");
        let number = *self.numbers.entry(fingerprint(end)).or_insert(next);
        if number == next {
            let (base, inputs) = match end.connection {
                Some(_) => (Rc::clone(base), inputs),
                None => (Rc::new(end.memory.clone()), Vec::new()),
            };
            self.states.push(State {
                base,
                inputs: inputs.into(),
                summary: summary(end, &self.setup),
            });
        }
        number
    }

    /// What a packet is, in words.
    pub(super) fn describe(&self, packet: u32) -> String {
        let packet = decode(&self.setup, self.packets.value(packet));
        match &packet {
            mqtt_codec::Packet::Publish(publish) => format!(
                "PUBLISH #{} q{}{}{}",
                super::watch::key(publish),
                publish.qos as u8,
                publish
                    .packet_id
                    .map_or(String::new(), |id| format!(" id {}", id.get())),
                if publish.dup { " dup" } else { "" },
            ),
            mqtt_codec::Packet::PubAck(ack)
            | mqtt_codec::Packet::PubRec(ack)
            | mqtt_codec::Packet::PubRel(ack)
            | mqtt_codec::Packet::PubComp(ack) => {
                let name = format!("{:?}", packet.packet_type()).to_uppercase();
                format!("{name} id {}", ack.packet_id.get())
            }
            packet => format!("{:?}", packet.packet_type()).to_uppercase(),
        }
    }
}

fn summary(end: &Endpoint, setup: &Setup) -> Summary {
    let Memory {
        store,
        pushed,
        watch,
        ..
    } = &end.memory;
    let takes_in_any_order =
        setup.takes_in_any_order || setup.is_broken_by(Mutant::TakesInAnyOrder);
    Summary {
        is_online: end.connection.is_some(),
        is_at_rest: end.is_at_rest(),
        can_push: *pushed < setup.messages[end.memory.role()].len(),
        open: match u8::try_from(end.open.len()).expect("few messages") {
            open if takes_in_any_order => open,
            open => open.min(1),
        },
        tail: u8::try_from(store.tail.len()).expect("a short tail"),
        acknowledged: watch.acknowledged,
        taken: store.taken.iter().fold(0, |mask, key| mask | 1 << key),
    }
}
