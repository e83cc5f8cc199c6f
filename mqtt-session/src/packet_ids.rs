//! Packet identifiers: a small map keyed by them, and the choice of the next free one.

use alloc::vec::Vec;

use mqtt_codec::PacketId;

/// A map from packet identifiers to values: open addressing with linear probing.
///
/// The place of an identifier is its low bits: identifiers handed out one after the other fill one
/// place after the other, so that a look-up nearly always ends at the first. Of two that want one
/// place, the one that is farther from its own keeps it, so that a removal moves only what stands
/// away from its own place, and not all that stands behind it. An empty map that never was used
/// holds no memory.
#[derive(Debug, Clone)]
pub(crate) struct PacketIdMap<V> {
    /// A power of two of slots, at most half of them taken (all of them never).
    slots: Vec<Option<(PacketId, V)>>,
    len: u32,
}

impl<V: Copy> PacketIdMap<V> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    const fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// The slot that holds the identifier, or the empty one where it would go.
    fn find(&self, id: PacketId) -> Result<usize, usize> {
        let mask = self.mask();
        let mut place = usize::from(id.get()) & mask;
        loop {
            match self.slots.get(place) {
                Some(Some((taken, _))) if *taken == id => return Ok(place),
                Some(Some(_)) => place = (place + 1) & mask,
                Some(None) | None => return Err(place),
            }
        }
    }

    pub(crate) fn contains(&self, id: PacketId) -> bool {
        self.find(id).is_ok()
    }

    pub(crate) fn get(&self, id: PacketId) -> Option<V> {
        let place = self.find(id).ok()?;
        self.slots.get(place)?.map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: PacketId) -> Option<&mut V> {
        let place = self.find(id).ok()?;
        self.slots.get_mut(place)?.as_mut().map(|(_, value)| value)
    }

    /// Slots there are.
    #[cfg(test)]
    pub(crate) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn insert(&mut self, id: PacketId, value: V) {
        if self.slots.len() < 2 * (self.len() + 1) {
            self.grow();
        }
        match self.find(id) {
            Ok(place) => {
                if let Some(Some((_, known))) = self.slots.get_mut(place) {
                    *known = value;
                }
            }
            Err(_) => {
                self.len += 1;
                self.settle(id, value);
            }
        }
    }

    /// How far a place is from the one that an identifier would have first.
    const fn distance(id: PacketId, place: usize, mask: usize) -> usize {
        place.wrapping_sub(id.get() as usize) & mask
    }

    /// Gives an identifier that is not there its slot.
    fn settle(&mut self, id: PacketId, value: V) {
        let mask = self.mask();
        let mut moving = (id, value);
        let mut place = usize::from(id.get()) & mask;
        // Ends: there are empty slots, and each step goes to the next one.
        while let Some(slot) = self.slots.get_mut(place) {
            let Some(taken) = slot else {
                *slot = Some(moving);
                return;
            };
            if Self::distance(taken.0, place, mask) < Self::distance(moving.0, place, mask) {
                core::mem::swap(taken, &mut moving);
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let capacity = (2 * self.slots.len()).max(8);
        self.rebuild(capacity);
    }

    fn rebuild(&mut self, capacity: usize) {
        let mut slots = Vec::new();
        slots.resize(capacity, None);
        let old = core::mem::replace(&mut self.slots, slots);
        for (id, value) in old.into_iter().flatten() {
            self.settle(id, value);
        }
    }

    pub(crate) fn remove(&mut self, id: PacketId) -> Option<V> {
        let mut hole = self.find(id).ok()?;
        let value = self.slots.get_mut(hole)?.take().map(|(_, value)| value);
        self.len -= 1;
        // Close the hole: what stands behind it, away from its own place, moves one back.
        let mask = self.mask();
        let mut place = (hole + 1) & mask;
        while let Some(Some((taken, _))) = self.slots.get(place)
            && Self::distance(*taken, place, mask) > 0
        {
            self.slots.swap(place, hole);
            hole = place;
            place = (place + 1) & mask;
        }
        value
    }

    /// Keeps what the predicate accepts.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(PacketId, &mut V) -> bool) {
        let mut gone = Vec::new();
        for (id, value) in self.slots.iter_mut().flatten() {
            if !keep(*id, value) {
                gone.push(*id);
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    /// All of it, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PacketId, V)> {
        self.slots.iter().flatten().copied()
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            self.slots = Vec::new();
        } else {
            let capacity = (2 * self.len()).next_power_of_two().max(8);
            // Never more than there is, since at most half is taken.
            if capacity != self.slots.len() {
                self.rebuild(capacity);
            }
        }
    }
}

/// The identifier after `last` that `map` does not hold, round-robin, so that one is used again as
/// late as can be. None if all 65,535 are taken.
///
/// A run of taken identifiers is stepped over once per round: constant time on average.
pub(crate) fn next_free<V: Copy>(map: &PacketIdMap<V>, last: u16) -> Option<PacketId> {
    if map.len() >= usize::from(u16::MAX) {
        return None;
    }
    let mut candidate = last;
    loop {
        candidate = candidate.wrapping_add(1);
        if let Some(id) = PacketId::new(candidate)
            && !map.contains(id)
        {
            return Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn empty_maps_find_nothing() {
        let mut map = PacketIdMap::<u8>::new();
        assert_eq!(
            (map.get(id(1)), map.remove(id(1)), map.len()),
            (None, None, 0)
        );
    }

    #[test]
    fn identifiers_go_round_and_skip_what_is_taken() {
        let mut map = PacketIdMap::new();
        map.insert(id(1), ());
        map.insert(id(65_535), ());
        assert_eq!(next_free(&map, 65_534), Some(id(2)));
        for n in 1..=u16::MAX {
            map.insert(id(n), ());
        }
        assert_eq!(next_free(&map, 7), None);
        map.remove(id(7));
        assert_eq!(next_free(&map, 7), Some(id(7)));
    }

    /// What makes every search end soon: a power of two of slots, at most half of them taken, and nobody farther from
    /// its own place than one more than whoever stands before it.
    fn check<V: Copy>(map: &PacketIdMap<V>) {
        let slots = &map.slots;
        assert_eq!(slots.iter().flatten().count(), map.len());
        if slots.is_empty() {
            return;
        }
        assert!(slots.len() >= 8 && slots.len().is_power_of_two());
        assert!(2 * map.len() <= slots.len());
        let mask = slots.len() - 1;
        let distance = |place: usize| {
            slots[place]
                .as_ref()
                .map(|(id, _)| (place + slots.len() - (usize::from(id.get()) & mask)) & mask)
        };
        for place in 0..slots.len() {
            let before = distance((place + mask) & mask).map_or(0, |distance| distance + 1);
            assert!(distance(place).is_none_or(|distance| distance <= before));
        }
    }

    /// Memory grows by doubling, and is given back down to what is needed.
    #[test]
    fn slots_follow_what_is_held() {
        let mut map = PacketIdMap::new();
        let mut slots = Vec::new();
        for n in 1..=40 {
            map.insert(id(n), ());
            slots.push(map.slots.len());
        }
        assert_eq!(slots[..4], [8; 4]);
        assert_eq!(slots[4..8], [16; 4]);
        assert_eq!(slots[8..16], [32; 8]);
        assert_eq!(slots[16..32], [64; 16]);
        assert_eq!(slots[32..], [128; 8]);
        map.retain(|id, ()| id.get() <= 8);
        assert_eq!((map.len(), map.slots.len()), (8, 128));
        map.shrink();
        assert_eq!((map.len(), map.slots.len()), (8, 16));
        map.retain(|id, ()| id.get() == 3);
        map.shrink();
        assert_eq!((map.get(id(3)), map.slots.len()), (Some(()), 8));
        map.remove(id(3));
        map.shrink();
        assert_eq!(map.slots.capacity(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map(ops in prop::collection::vec((0u8..6, 1u16..200, any::<u32>()), 0..400)) {
            let mut map = PacketIdMap::new();
            let mut model = BTreeMap::new();
            for (op, n, value) in ops {
                // Many identifiers with the same low bits.
                let id = id(if n % 3 == 0 { n * 256 } else { n });
                match op {
                    0 | 1 => {
                        map.insert(id, value);
                        model.insert(id.get(), value);
                    }
                    2 => prop_assert_eq!(map.remove(id), model.remove(&id.get())),
                    3 => prop_assert_eq!(map.get_mut(id), model.get_mut(&id.get())),
                    4 if n % 8 == 0 => {
                        map.retain(|id, kept| {
                            *kept = kept.wrapping_add(1);
                            id.get() % 3 != value as u16 % 3
                        });
                        model.retain(|id, kept| {
                            *kept = kept.wrapping_add(1);
                            id % 3 != value as u16 % 3
                        });
                    }
                    4 => prop_assert_eq!(map.contains(id), model.contains_key(&id.get())),
                    _ => map.shrink(),
                }
                check(&map);
                prop_assert_eq!(map.get(id), model.get(&id.get()).copied());
            }
            let all: BTreeMap<_, _> = map.iter().map(|(id, value)| (id.get(), value)).collect();
            prop_assert_eq!(map.len(), model.len());
            prop_assert_eq!(all, model);
        }
    }
}
