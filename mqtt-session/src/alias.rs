//! Topic aliases of one connection, both ways ([MQTT-3.3.2-7]: they end with it).

use alloc::{boxed::Box, string::String, vec::Vec};
use core::num::NonZeroU16;

use mqtt_codec::TopicName;

use crate::{Alias, Error, Role};

/// The aliases that the peer set.
#[derive(Debug, Clone, Default)]
pub(crate) struct InboundAliases {
    /// The topic of alias n at n - 1; empty: not set. Grows up to the highest alias set.
    topics: Vec<String>,
}

impl InboundAliases {
    /// The topic of a PUBLISH that carries an alias; sets the alias if the topic is there too.
    pub(crate) fn resolve<'a>(
        &'a mut self,
        topic: Option<TopicName<'a>>,
        alias: NonZeroU16,
        maximum: u16,
        sender: Role,
    ) -> Result<TopicName<'a>, Error> {
        let alias = alias.get();
        if alias > maximum {
            return Err(Error::TopicAliasInvalid {
                alias,
                maximum,
                sender,
            });
        }
        let place = usize::from(alias).saturating_sub(1);
        let Some(topic) = topic else {
            let known = self.topics.get(place).filter(|known| !known.is_empty());
            return known
                .map(|known| TopicName::assume_valid(known))
                .ok_or(Error::TopicAliasUnknown { alias });
        };
        if self.topics.len() <= place {
            self.topics.resize_with(place + 1, String::new);
        }
        if let Some(kept) = self.topics.get_mut(place) {
            kept.clear();
            kept.push_str(topic.as_str());
        }
        Ok(topic)
    }
}

/// The aliases that this end set: the first topics that came, up to the maximum. They are not taken
/// back, so that a sender of many topics pays for no alias it does not use again.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutboundAliases {
    topics: Vec<Box<str>>,
}

impl OutboundAliases {
    /// How a topic is best sent: with a new alias, with the one it has, or without.
    pub(crate) fn choose(&self, topic: &str, maximum: u16) -> Alias {
        /// What an alias costs: property identifier and value. A shorter topic gains nothing.
        const COST: usize = 3;
        if topic.len() <= COST {
            return Alias::None;
        }
        let known = self.topics.iter().position(|known| **known == *topic);
        let place = known.unwrap_or(self.topics.len());
        match u16::try_from(place + 1).ok().and_then(NonZeroU16::new) {
            Some(alias) if known.is_some() => Alias::Use(alias),
            Some(alias) if alias.get() <= maximum => Alias::Set(alias),
            _ => Alias::None,
        }
    }

    /// The new alias that `choose` gave was sent.
    pub(crate) fn set(&mut self, topic: &str) {
        self.topics.push(topic.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    fn topic(name: &str) -> TopicName<'_> {
        TopicName::new(name).unwrap()
    }

    /// [MQTT-3.3.2-10], [MQTT-3.3.2-12]
    #[test]
    fn every_alias_up_to_the_maximum_is_taken() {
        let mut aliases = InboundAliases::default();
        for n in [3, 1, 2] {
            let name = alloc::format!("t/{n}");
            assert_eq!(
                aliases
                    .resolve(Some(topic(&name)), alias(n), 3, Role::Client)
                    .unwrap()
                    .as_str(),
                name
            );
        }
        assert_eq!(
            aliases
                .resolve(None, alias(2), 3, Role::Client)
                .unwrap()
                .as_str(),
            "t/2"
        );
        aliases
            .resolve(Some(topic("other")), alias(2), 3, Role::Client)
            .unwrap();
        assert_eq!(
            aliases
                .resolve(None, alias(2), 3, Role::Client)
                .unwrap()
                .as_str(),
            "other"
        );
    }

    #[test]
    fn unknown_and_too_high_aliases_are_refused() {
        let mut aliases = InboundAliases::default();
        aliases
            .resolve(Some(topic("a")), alias(2), 2, Role::Client)
            .unwrap();
        let unknown = aliases
            .resolve(None, alias(1), 2, Role::Client)
            .unwrap_err();
        assert_eq!(unknown, Error::TopicAliasUnknown { alias: 1 });
        let high = aliases
            .resolve(Some(topic("a")), alias(3), 2, Role::Client)
            .unwrap_err();
        assert_eq!(
            high.reason_code(),
            mqtt_codec::ReasonCode::TOPIC_ALIAS_INVALID
        );
        assert_eq!(high.clause(), "MQTT-3.3.2-9");
    }

    #[test]
    fn first_come_first_served() {
        let mut aliases = OutboundAliases::default();
        assert_eq!(aliases.choose("topic/1", 0), Alias::None);
        assert_eq!(aliases.choose("topic/1", 1), Alias::Set(alias(1)));
        aliases.set("topic/1");
        assert_eq!(aliases.choose("topic/1", 1), Alias::Use(alias(1)));
        assert_eq!(aliases.choose("topic/2", 1), Alias::None);
        assert_eq!(aliases.choose("a/b", 16), Alias::None);
    }
}
