//! The window of messages that wait to be sent for the first time.

use alloc::{collections::VecDeque, vec::Vec};

use crate::Outgoing;

/// Handles in the order they are to be sent, and what they cost.
#[derive(Debug, Clone)]
pub(crate) struct Queue<H> {
    handles: VecDeque<H>,
    /// How many messages they stand for.
    len: usize,
    size: usize,
}

impl<H: Outgoing> Queue<H> {
    pub(crate) const fn new() -> Self {
        Self {
            handles: VecDeque::new(),
            len: 0,
            size: 0,
        }
    }

    /// The sum of [`Outgoing::count`].
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The sum of [`Outgoing::size`].
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn push(&mut self, handle: H) {
        self.comes(&handle);
        self.handles.push_back(handle);
    }

    fn comes(&mut self, handle: &H) {
        self.len = self.len.saturating_add(handle.count());
        self.size = self.size.saturating_add(handle.size());
    }

    fn goes(&mut self, handle: &H) {
        self.len = self.len.saturating_sub(handle.count());
        self.size = self.size.saturating_sub(handle.size());
    }

    pub(crate) fn front(&self) -> Option<&H> {
        self.handles.front()
    }

    pub(crate) fn pop(&mut self) -> Option<H> {
        let handle = self.handles.pop_front()?;
        self.goes(&handle);
        Some(handle)
    }

    /// Lets `take` take messages out of the first handle, which goes when it stands for none any more.
    pub(crate) fn take_from_front(&mut self, take: impl FnOnce(&mut H)) {
        let Some(front) = self.handles.front_mut() else {
            return;
        };
        self.len = self.len.saturating_sub(front.count());
        self.size = self.size.saturating_sub(front.size());
        take(front);
        if front.count() == 0 {
            self.handles.pop_front();
        } else {
            self.len = self.len.saturating_add(front.count());
            self.size = self.size.saturating_add(front.size());
        }
    }

    /// Makes the first of the messages that the first handle stands for a handle of its own.
    pub(crate) fn split_front(&mut self) {
        let mut first = None;
        self.take_from_front(|front| first = front.split_first());
        if let Some(first) = first {
            self.comes(&first);
            self.handles.push_front(first);
        }
    }

    /// Takes out what the predicate chooses, in order.
    pub(crate) fn take(&mut self, mut choose: impl FnMut(&H) -> bool) -> Vec<H> {
        let mut taken = Vec::new();
        if self.handles.iter().any(&mut choose) {
            for handle in core::mem::take(&mut self.handles) {
                if choose(&handle) {
                    self.goes(&handle);
                    taken.push(handle);
                } else {
                    self.handles.push_back(handle);
                }
            }
        }
        taken
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &H> {
        self.handles.iter()
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        self.handles.shrink_to_fit();
    }
}
