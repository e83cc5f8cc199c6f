//! The window of messages that wait to be sent for the first time.

use alloc::{collections::VecDeque, vec::Vec};

use crate::Outgoing;

/// Handles in the order they are to be sent, and what they cost.
#[derive(Debug, Clone)]
pub(crate) struct Queue<H> {
    handles: VecDeque<H>,
    size: usize,
}

impl<H: Outgoing> Queue<H> {
    pub(crate) const fn new() -> Self {
        Self {
            handles: VecDeque::new(),
            size: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// The sum of [`Outgoing::size`].
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn push(&mut self, handle: H) {
        self.size = self.size.saturating_add(handle.size());
        self.handles.push_back(handle);
    }

    pub(crate) fn front(&self) -> Option<&H> {
        self.handles.front()
    }

    pub(crate) fn pop(&mut self) -> Option<H> {
        let handle = self.handles.pop_front()?;
        self.size = self.size.saturating_sub(handle.size());
        Some(handle)
    }

    /// Takes out what the predicate chooses, in order.
    pub(crate) fn take(&mut self, mut choose: impl FnMut(&H) -> bool) -> Vec<H> {
        let mut taken = Vec::new();
        if self.handles.iter().any(&mut choose) {
            for handle in core::mem::take(&mut self.handles) {
                if choose(&handle) {
                    self.size = self.size.saturating_sub(handle.size());
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
