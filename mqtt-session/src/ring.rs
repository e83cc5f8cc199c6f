//! A queue whose items can also be taken from the middle by the number they got when they came.

use alloc::{boxed::Box, collections::VecDeque};

/// Items in the order they came. Every item has a number, one more than that of the item before it
/// (modulo 2^32), by which it is found in constant time until it is removed.
///
/// A removed item leaves a hole until all before it are gone; where holes prevail, the owner calls
/// [`compact`](Self::compact), which numbers anew.
#[derive(Debug, Clone)]
pub(crate) struct Ring<T> {
    #[allow(
        clippy::box_collection,
        reason = "most sessions have nothing in flight: a pointer is smaller"
    )]
    items: Option<Box<VecDeque<Option<T>>>>,
    /// The number of the first item.
    first: u32,
    live: u32,
}

impl<T> Ring<T> {
    pub(crate) const fn new() -> Self {
        Self {
            items: None,
            first: 0,
            live: 0,
        }
    }

    /// How many items there are.
    pub(crate) const fn len(&self) -> usize {
        self.live as usize
    }

    /// The number that the first item has, hole or not.
    pub(crate) const fn first(&self) -> u32 {
        self.first
    }

    /// The number that the next item will get.
    pub(crate) fn end(&self) -> u32 {
        self.first.wrapping_add(self.span())
    }

    /// Items and holes.
    fn places(&self) -> usize {
        self.items.as_ref().map_or(0, |items| items.len())
    }

    /// The same as a difference of numbers.
    fn span(&self) -> u32 {
        u32::try_from(self.places()).unwrap_or(u32::MAX)
    }

    pub(crate) fn push(&mut self, item: T) -> u32 {
        let number = self.end();
        self.items.get_or_insert_default().push_back(Some(item));
        self.live += 1;
        number
    }

    fn position(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.items.as_ref()?.get(self.position(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let position = self.position(number);
        self.items.as_mut()?.get_mut(position)?.as_mut()
    }

    /// Drops an item where it stands; false if there is none with this number.
    #[inline]
    pub(crate) fn remove(&mut self, number: u32) -> bool {
        let position = self.position(number);
        let Some(items) = &mut self.items else {
            return false;
        };
        match items.get_mut(position) {
            Some(item) if item.is_some() => *item = None,
            _ => return false,
        }
        self.live -= 1;
        if position == 0 {
            while let Some(None) = items.front() {
                items.pop_front();
                self.first = self.first.wrapping_add(1);
            }
        }
        true
    }

    /// Whether it takes several times the place it needs.
    pub(crate) fn is_sparse(&self) -> bool {
        self.places() > 64 && self.places() / 4 > self.len()
    }

    /// Closes the holes. The items are numbered anew, from `first` on.
    pub(crate) fn compact(&mut self) {
        if let Some(items) = &mut self.items {
            items.retain(Option::is_some);
        }
    }

    /// The items with their numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let first = self.first;
        (0..)
            .zip(self.items.iter().flat_map(|items| items.iter()))
            .filter_map(move |(n, item): (u32, _)| Some((first.wrapping_add(n), item.as_ref()?)))
    }

    /// Takes all items, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.first = self.end();
        self.live = 0;
        let items = self.items.take();
        items.into_iter().flat_map(|items| *items).flatten()
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        match &mut self.items {
            Some(items) if !items.is_empty() => items.shrink_to_fit(),
            items => *items = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn numbers_stay_while_items_leave() {
        let mut ring = Ring::new();
        ring.first = u32::MAX - 1;
        let numbers: [u32; 5] = core::array::from_fn(|n| ring.push(n));
        assert!(ring.remove(numbers[1]));
        assert!(!ring.remove(numbers[1]));
        assert_eq!(ring.first(), numbers[0]);
        assert!(ring.remove(numbers[0]));
        assert!(!ring.remove(numbers[0]));
        assert_eq!(ring.first(), numbers[2]);
        assert_eq!(ring.get(numbers[4]), Some(&4));
        assert_eq!(ring.get(numbers[0]), None);
        assert_eq!(ring.len(), 3);
        assert_eq!(ring.drain().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((ring.len(), ring.first()), (0, ring.end()));
    }

    #[test]
    fn compacting_keeps_the_order() {
        let mut ring = Ring::new();
        for n in 0..100 {
            ring.push(n);
        }
        for n in 1..99 {
            ring.remove(n);
        }
        assert!(ring.is_sparse());
        ring.compact();
        assert_eq!(
            ring.iter().map(|(n, v)| (n, *v)).collect::<Vec<_>>(),
            [(0, 0), (1, 99)]
        );
        assert!(!ring.is_sparse());
    }
}
