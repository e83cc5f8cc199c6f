//! What makes two states of an end the same: their debug rendering, without what only counts.

use std::{
    fmt::{self, Write},
    hash::Hasher,
};

use super::{endpoint::Endpoint, intern::Mix};

/// 128 bits of the rendering of an end.
///
/// Change numbers stand relative to the last durable one, since they are only compared. The number of
/// the connection is left out, of which no token outlives its own, and so are counters of acknowledgements.
pub(super) fn fingerprint(end: &Endpoint) -> u128 {
    let mut rendering = Rendering {
        text: String::with_capacity(8 * 1024),
        durable: end.memory.durable.get(),
        skip: Skip::Nothing,
    };
    write!(rendering, "{end:?}").expect("a string takes everything");
    let mut mix = Mix::default();
    mix.write(rendering.text.as_bytes());
    mix.all()
}

/// What becomes of the next number.
#[derive(PartialEq, Eq)]
enum Skip {
    Nothing,
    /// It stands relative to the last durable change.
    Relative,
    /// It is left out.
    Number,
}

struct Rendering {
    text: String,
    durable: u64,
    skip: Skip,
}

impl Write for Rendering {
    /// Debug writes names and numbers in one piece each.
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match piece {
            "ChangeNumber" => self.skip = Skip::Relative,
            "unknown_acks" | "connection" => self.skip = Skip::Number,
            _ if self.skip == Skip::Nothing => {}
            "(" | ": " => {}
            _ => {
                let skip = std::mem::replace(&mut self.skip, Skip::Nothing);
                if let Ok(number) = piece.parse::<u64>() {
                    return match skip {
                        Skip::Number => Ok(()),
                        _ => write!(self.text, "{}", number.saturating_sub(self.durable)),
                    };
                }
            }
        }
        self.text.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mqtt_session::{ChangeNumber, Persistence, Session};

    use super::*;
    use crate::message::Message;

    fn rendered(durable: u64, value: &impl fmt::Debug) -> String {
        let mut rendering = Rendering {
            text: String::new(),
            durable,
            skip: Skip::Nothing,
        };
        write!(rendering, "{value:?}").unwrap();
        rendering.text
    }

    #[test]
    fn change_numbers_are_relative() {
        let numbers = [3, 7, 9].map(ChangeNumber::from_u64);
        assert_eq!(
            rendered(7, &(numbers, 9)),
            "([ChangeNumber(0), ChangeNumber(0), ChangeNumber(2)], 9)"
        );
    }

    #[test]
    fn counters_are_left_out() {
        let session = Session::<Message>::new(Persistence::Durable);
        let text = rendered(0, &session);
        assert!(text.contains("unknown_acks: ,"), "{text}");
        assert!(text.contains("connection: ,"), "{text}");
        assert!(text.contains("last_id: 0,"), "{text}");
    }
}
