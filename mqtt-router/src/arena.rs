//! Small rules shared by the vectors that are addressed by 32-bit positions.

use alloc::vec::Vec;

/// Makes room for one more element. Growing by a quarter instead of doubling bounds what a large
/// vector leaves unused, at an amortised cost of a few copies per element.
pub(crate) fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 4).max(4));
    }
}

/// The 32-bit position of the next element of a vector of `len`. The top few values are markers, so
/// a structure holds at most 2^32 - 16 elements, more than 100 GiB.
///
/// # Panics
///
/// When that limit is passed, as a vector does when its capacity overflows.
pub(crate) fn position(len: usize) -> u32 {
    match u32::try_from(len) {
        Ok(position) if position < u32::MAX - 16 => position,
        _ => capacity_overflow(),
    }
}

#[cold]
fn capacity_overflow() -> ! {
    panic!("capacity overflow")
}
