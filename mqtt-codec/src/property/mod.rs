//! Properties (5.0).
//!
//! A packet's property struct names the property behind each field; identifiers, wire types, and
//! which packet may carry what how often come from the table.

mod section;
mod table;

use core::num::NonZeroU32;

use crate::MAX_REMAINING_LENGTH;

pub(crate) use section::{
    Owner, PropertySet, Slot, Value, content_size, property_set, section, section_size,
    write_section,
};
pub(crate) use table::Property;

/// A name and a value that the standard gives no meaning; order and repetition are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserProperty<'a> {
    /// The name, which may be repeated.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// The identifier of a subscription: 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionIdentifier(NonZeroU32);

impl SubscriptionIdentifier {
    /// The identifier of this value; `None` for zero and above 268,435,455.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) if value.get() <= MAX_REMAINING_LENGTH => Some(Self(value)),
            _ => None,
        }
    }

    /// The value.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}
