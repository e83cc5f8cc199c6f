//! What packets are appended to.

use alloc::vec::Vec;

/// What packets are appended to. Bytes, or whatever else a caller writes from: its
/// [`Outgoing`](crate::Outgoing) may put a payload there without copying it.
pub trait Buffer {
    /// How many bytes wait to be written.
    fn size(&self) -> usize;

    /// Where a short packet is appended, behind all that is there.
    fn bytes(&mut self) -> &mut Vec<u8>;
}

impl Buffer for Vec<u8> {
    #[inline]
    fn size(&self) -> usize {
        self.len()
    }

    #[inline]
    fn bytes(&mut self) -> &mut Self {
        self
    }
}
