//! A queue whose items can also be taken from the middle by the number they got when they came.

use alloc::collections::VecDeque;

/// Items in the order they came. Every item has a number, one more than that of the item before it
/// (modulo 2^32), by which it is found in constant time until it is removed.
///
/// A removed item leaves a hole until all before it are gone; where holes prevail, the owner calls
/// [`compact`](Self::compact), which numbers anew.
#[derive(Debug, Clone)]
pub(crate) struct Ring<T> {
    items: VecDeque<Option<T>>,
    /// The number of the first item.
    first: u32,
    live: u32,
}

impl<T> Ring<T> {
    pub(crate) const fn new() -> Self {
        Self {
            items: VecDeque::new(),
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
    fn span(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn push(&mut self, item: T) -> u32 {
        let number = self.end();
        self.items.push_back(Some(item));
        self.live += 1;
        number
    }

    fn position(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.items.get(self.position(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let position = self.position(number);
        self.items.get_mut(position)?.as_mut()
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let position = self.position(number);
        let item = if position == 0 {
            self.items.front()?.as_ref()?;
            self.first = self.first.wrapping_add(1);
            self.items.pop_front()??
        } else {
            self.items.get_mut(position)?.take()?
        };
        self.live -= 1;
        if position == 0 {
            while let Some(None) = self.items.front() {
                self.items.pop_front();
                self.first = self.first.wrapping_add(1);
            }
        }
        Some(item)
    }

    /// Whether it takes several times the place it needs.
    pub(crate) fn is_sparse(&self) -> bool {
        self.items.len() > 64 && self.items.len() / 4 > self.len()
    }

    /// Closes the holes. The items are numbered anew, from `first` on.
    pub(crate) fn compact(&mut self) {
        self.items.retain(Option::is_some);
    }

    /// The items with their numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let first = self.first;
        (0..)
            .zip(&self.items)
            .filter_map(move |(n, item): (u32, _)| Some((first.wrapping_add(n), item.as_ref()?)))
    }

    /// Takes all items, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.first = self.end();
        self.live = 0;
        core::mem::take(&mut self.items).into_iter().flatten()
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        self.items.shrink_to_fit();
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
        assert_eq!(ring.remove(numbers[1]), Some(1));
        assert_eq!(ring.remove(numbers[1]), None);
        assert_eq!(ring.first(), numbers[0]);
        assert_eq!(ring.remove(numbers[0]), Some(0));
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
