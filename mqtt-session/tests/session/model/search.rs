//! Breadth first over every state of two ends and the link between them.

use std::{collections::hash_map::Entry, fmt, num::NonZeroU16};

use mqtt_codec::QoS;
use mqtt_session::Persistence;

use super::{
    endpoint::Input,
    ends::{Ends, Summary},
    intern::{Map, Table},
    rest,
    setup::{CLIENT, SERVER, Setup},
};

const NAMES: [&str; 2] = ["client", "server"];

/// A state of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    ends: [u32; 2],
    /// What is under way to each end.
    pipes: [u32; 2],
    /// Faults left.
    cuts: u8,
    crashes: u8,
    /// One end has left the connection that the other still is on.
    is_broken: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) transitions: usize,
    pub(super) violation: Option<Violation>,
}

/// A property that does not hold, and the shortest way there.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) what: String,
    pub(super) steps: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "    {step}")?;
        }
        write!(f, "    => {}", self.what)
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    end: usize,
    input: Input,
    output: Option<u32>,
}

struct Search {
    ends: Ends,
    pipes: Table<Vec<u32>>,
    states: Vec<State>,
    numbers: Map<State, u32>,
    /// How each state was met first.
    origins: Vec<(u32, Step)>,
    /// Transitions that are no fault.
    progress: Vec<(u32, u32)>,
    transitions: usize,
}

/// Explores everything that can happen, until something breaks.
pub(super) fn explore(setup: Setup) -> Found {
    let mut search = Search {
        pipes: Table::new(),
        states: Vec::new(),
        numbers: Map::default(),
        origins: Vec::new(),
        progress: Vec::new(),
        transitions: 0,
        ends: Ends::new(setup),
    };
    let violation = search.run().err();
    Found {
        states: search.states.len(),
        transitions: search.transitions,
        violation,
    }
}

impl Search {
    fn run(&mut self) -> Result<(), Violation> {
        let empty = self.pipes.number(Vec::new());
        let first = State {
            ends: [CLIENT as u32, SERVER as u32],
            pipes: [empty; 2],
            cuts: self.ends.setup.cuts,
            crashes: self.ends.setup.crashes,
            is_broken: false,
        };
        self.states.push(first);
        self.numbers.insert(first, 0);
        let start = Step {
            end: CLIENT,
            input: Input::Push,
            output: None,
        };
        self.origins.push((0, start));
        let mut steps = Vec::new();
        let mut next = 0;
        while next < self.states.len() {
            let number = u32::try_from(next).expect("32 bits");
            let state = self.states[next];
            self.enabled(state, &mut steps);
            let mut is_rest = true;
            for &(end, input) in &steps {
                is_rest &= !self.take(number, state, end, input)?;
            }
            if is_rest {
                self.check_rest(number, state)?;
            }
            next += 1;
        }
        // Every state leads to one at rest, and none of those lacks anything.
        match rest::restless(self.states.len(), &self.progress) {
            Some(number) => Err(self.violation(number, None, "it never comes to rest".into())),
            None => Ok(()),
        }
    }

    /// What can happen next.
    fn enabled(&self, state: State, steps: &mut Vec<(usize, Input)>) {
        steps.clear();
        let summaries = state.ends.map(|end| self.ends.summary(end));
        if !summaries[CLIENT].is_online && !summaries[SERVER].is_online {
            let widest = self.ends.setup.window;
            let narrowest = if self.ends.setup.narrows {
                1
            } else {
                widest.get()
            };
            let windows = (narrowest..=widest.get()).filter_map(NonZeroU16::new);
            steps.extend(windows.map(|window| (CLIENT, Input::Dial(window))));
        }
        for (end, summary) in summaries.into_iter().enumerate() {
            let Summary {
                is_online,
                can_push,
                open,
                tail,
                ..
            } = summary;
            if let Some(packet) = self.pipes.value(state.pipes[end]).first() {
                steps.push((end, Input::Receive(*packet)));
            }
            if is_online {
                steps.push((end, Input::Transmit));
            }
            if can_push {
                steps.push((end, Input::Push));
            }
            steps.extend((0..open).map(|which| (end, Input::Accept(which))));
            if tail > 0 {
                steps.push((end, Input::Written));
            }
            if is_online && (state.is_broken || state.cuts > 0) {
                steps.push((end, Input::Hangup));
            }
            if state.crashes > 0 && self.ends.setup.persistence[end] == Persistence::Durable {
                steps.extend((0..=tail).map(|units| (end, Input::Crash(units))));
            }
        }
    }

    /// Goes one step. False: it changes nothing, or is a fault.
    fn take(
        &mut self,
        number: u32,
        state: State,
        end: usize,
        input: Input,
    ) -> Result<bool, Violation> {
        let mut step = Step {
            end,
            input,
            output: None,
        };
        let (next, output) = match self.ends.effect(state.ends[end], input) {
            Ok(effect) => effect,
            Err(what) => return Err(self.violation(number, Some(step), what.to_string())),
        };
        step.output = output;
        let mut to = state;
        to.ends[end] = next;
        let is_cut = input == Input::Hangup && !state.is_broken;
        let is_crash = matches!(input, Input::Crash(_));
        if let Input::Receive(_) = input {
            let rest = self.pipes.value(state.pipes[end])[1..].to_vec();
            to.pipes[end] = self.pipes.number(rest);
        }
        if let Some(packet) = output.filter(|_| !state.is_broken) {
            let mut pipe = self.pipes.value(state.pipes[1 - end]).clone();
            pipe.push(packet);
            to.pipes[1 - end] = self.pipes.number(pipe);
        }
        if is_cut || is_crash || input == Input::Hangup {
            let empty = self.pipes.number(Vec::new());
            to.cuts -= u8::from(is_cut);
            to.crashes -= u8::from(is_crash);
            to.pipes[end] = empty;
            to.is_broken = self.ends.summary(state.ends[1 - end]).is_online;
            if !to.is_broken {
                to.pipes[1 - end] = empty;
            }
        }
        if to == state {
            return Ok(false);
        }
        self.transitions += 1;
        let to_number = match self.numbers.entry(to) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let next = u32::try_from(self.states.len()).expect("32 bits");
                place.insert(next);
                self.states.push(to);
                self.origins.push((number, step));
                self.check_promises(next, to)?;
                next
            }
        };
        let is_progress = !is_cut && !is_crash;
        if is_progress {
            self.progress.push((number, to_number));
        }
        Ok(is_progress)
    }

    /// What the receiver has acknowledged, it has.
    fn check_promises(&self, number: u32, state: State) -> Result<(), Violation> {
        let summaries = state.ends.map(|end| self.ends.summary(end));
        for sender in [CLIENT, SERVER] {
            let lost = summaries[sender].acknowledged & !summaries[1 - sender].taken;
            if lost != 0 {
                let what = format!(
                    "#{} is acknowledged, but a crash may lose it",
                    lost.trailing_zeros()
                );
                return Err(self.violation(number, None, what));
            }
        }
        Ok(())
    }

    /// Where nothing is left to happen, everything is done.
    fn check_rest(&self, number: u32, state: State) -> Result<(), Violation> {
        let summaries = state.ends.map(|end| self.ends.summary(end));
        let setup = &self.ends.setup;
        let is_quiet = state.cuts == setup.cuts && state.crashes == setup.crashes;
        for sender in [CLIENT, SERVER] {
            for (key, qos) in (1..).zip(&setup.messages[sender]) {
                let is_taken = summaries[1 - sender].taken & (1 << key) != 0;
                // QoS 0 may be lost, but not without a fault.
                if !is_taken && (is_quiet || *qos > QoS::AtMostOnce) {
                    return Err(self.violation(number, None, format!("#{key} is lost")));
                }
            }
        }
        if !summaries.iter().all(|summary| summary.is_at_rest) {
            return Err(self.violation(
                number,
                None,
                "it comes to rest with something left".into(),
            ));
        }
        Ok(())
    }

    /// The steps to a state, and one more.
    fn violation(&self, mut number: u32, last: Option<Step>, what: String) -> Violation {
        let mut steps: Vec<String> = last
            .map(|step| match step.input {
                Input::Transmit => format!("{} is to send", NAMES[step.end]),
                _ => self.describe(step),
            })
            .into_iter()
            .collect();
        while number != 0 {
            let (before, step) = self.origins[number as usize];
            steps.push(self.describe(step));
            number = before;
        }
        steps.reverse();
        Violation { what, steps }
    }

    fn describe(&self, step: Step) -> String {
        let output = step.output.map(|packet| self.ends.describe(packet));
        let what = match step.input {
            Input::Push => "gets a message to send".into(),
            Input::Transmit => match output {
                Some(packet) => format!("sends {packet}"),
                None => "gives identifiers, and sends nothing yet".into(),
            },
            Input::Receive(packet) => format!("receives {}", self.ends.describe(packet)),
            Input::Accept(0) => "accepts the oldest message".into(),
            Input::Accept(which) => format!("accepts the message {which} after the oldest"),
            Input::Written => "has written one unit more".into(),
            Input::Dial(window) => format!("connects with room for {window}"),
            Input::Hangup => "loses the connection".into(),
            Input::Crash(0) => "crashes and restarts with what it knows to be written".into(),
            Input::Crash(units) => format!("crashes and restarts with that and {units} units"),
        };
        format!("{} {what}", NAMES[step.end])
    }
}
