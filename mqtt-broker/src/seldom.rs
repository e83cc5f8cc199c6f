//! A queue that most connections never fill: while it never was, it takes no more than a pointer.

use std::collections::VecDeque;

/// A `VecDeque` that is allocated with its first item.
#[derive(Debug)]
#[allow(
    clippy::box_collection,
    reason = "a pointer in each connection instead of a queue that most never use"
)]
pub(crate) struct SeldomQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for SeldomQueue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> SeldomQueue<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.is_empty())
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    pub(crate) fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    /// Moves all of `other` to the end.
    pub(crate) fn append(&mut self, other: &mut Self) {
        match (&mut self.0, &mut other.0) {
            (_, None) => {}
            (None, _) => core::mem::swap(self, other),
            (Some(queue), Some(other)) => queue.append(other),
        }
    }

    /// Empties it; what it held is kept for the next items.
    pub(crate) fn clear(&mut self) {
        if let Some(queue) = &mut self.0 {
            queue.clear();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|queue| queue.iter())
    }
}

impl<T> IntoIterator for SeldomQueue<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|queue| *queue).unwrap_or_default().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue() {
        let mut queue = SeldomQueue::default();
        assert!(queue.is_empty() && queue.front().is_none() && queue.pop_front().is_none());
        queue.clear();
        assert!(queue.0.is_none(), "nothing was put in");
        let mut other = SeldomQueue::default();
        queue.append(&mut other);
        assert!(queue.0.is_none());
        other.push_back(1);
        other.push_back(2);
        queue.append(&mut other);
        other.push_back(3);
        queue.append(&mut other);
        assert!(other.is_empty());
        if let Some(first) = queue.front_mut() {
            *first = 7;
        }
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [7, 2, 3]);
        assert_eq!((queue.pop_front(), queue.front()), (Some(7), Some(&2)));
        assert_eq!(queue.into_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn empty_it_takes_a_pointer() {
        assert_eq!(size_of::<SeldomQueue<u64>>(), size_of::<usize>());
    }
}
