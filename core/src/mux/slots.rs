//! Where the streams are kept, and the queues that they stand in.
//!
//! A [`Key`] names a slot and the generation of what is in it, so a key that outlived its stream finds
//! nothing. A [`Queue`] is a linked list through the slots: a stream stands in it at most once, and leaves
//! it from anywhere at no cost.

/// A stream, as the application names it. It is never the number on the wire, which a stream may not have
/// yet. A key that outlived its stream does nothing and finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// A small number that no other stream has at the same time; it is used again after this one's end.
    /// For tables beside the multiplexer.
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

/// The slots.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    // Boxed, so that a session that once had thousands of streams does not stay large.
    value: Option<Box<T>>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let value = Some(Box::new(value));
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize].value = value;
            return slot;
        }
        self.slots.push(Slot { generation: 0, value });
        // The caller's cap on streams is far below.
        (self.slots.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Box<T>> {
        let value = self.slots.get_mut(slot as usize)?.value.take()?;
        self.retire(slot);
        self.free.push(slot);
        Some(value)
    }

    /// Makes the keys of this slot stale; what is in it stays.
    pub(super) fn retire(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.generation = slot.generation.wrapping_add(1);
        }
    }

    pub(super) fn key(&self, slot: u32) -> Key {
        let generation = self.slots.get(slot as usize).map_or(0, |slot| slot.generation);
        Key { slot, generation }
    }

    /// The slot that `key` names, if its stream still is.
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.generation == key.generation && slot.value.is_some()).then_some(key.slot)
    }

    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.value.as_deref()
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.value.as_deref_mut()
    }

    /// Those in use, in the order of the slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.value.as_deref()?)))
    }

    /// Those in use, in the order of the slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.slots).filter_map(|(at, slot)| Some((at, slot.value.as_deref_mut()?)))
    }
}

/// A queue of slots. Its memory is 12 bytes a slot.
#[derive(Debug, Default)]
pub(super) struct Queue {
    links: Vec<Link>,
    ends: Option<Ends>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    queued: bool,
    before: u32,
    behind: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    front: u32,
    back: u32,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(super) fn front(&self) -> Option<u32> {
        self.ends.map(|ends| ends.front)
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(|link| link.queued)
    }

    /// Puts `slot` at the end, unless it stands in the queue already.
    pub(super) fn push(&mut self, slot: u32) {
        if self.contains(slot) {
            return;
        }
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, Link::default());
        }
        let before = self.ends.map_or(slot, |ends| ends.back);
        self.links[before as usize].behind = slot;
        self.links[slot as usize] = Link { queued: true, before, behind: slot };
        self.ends = Some(Ends { front: self.ends.map_or(slot, |ends| ends.front), back: slot });
    }

    /// Takes `slot` out, wherever it stands.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(ends) = self.ends.filter(|_| self.contains(slot)) else {
            return;
        };
        let Link { before, behind, .. } = std::mem::take(&mut self.links[slot as usize]);
        // At either end a link names its own slot.
        self.ends = match (slot == ends.front, slot == ends.back) {
            (true, true) => None,
            (true, false) => {
                self.links[behind as usize].before = behind;
                Some(Ends { front: behind, ..ends })
            }
            (false, true) => {
                self.links[before as usize].behind = before;
                Some(Ends { back: before, ..ends })
            }
            (false, false) => {
                self.links[before as usize].behind = behind;
                self.links[behind as usize].before = before;
                Some(ends)
            }
        };
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        let front = self.front()?;
        self.remove(front);
        Some(front)
    }

    pub(super) fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Queue, Slots};

    #[test]
    fn a_key_that_outlived_its_stream_finds_nothing() {
        let mut slots = Slots::new();
        let slot = slots.insert('a');
        let key = slots.key(slot);
        assert_eq!(slots.find(key), Some(slot));
        slots.remove(slot);
        assert_eq!(slots.find(key), None);
        assert_eq!(slots.insert('b'), slot);
        assert_eq!(slots.find(key), None);
        let second = slots.key(slot);
        slots.retire(slot);
        assert_eq!(slots.find(second), None);
        assert_eq!(slots.at(slot), Some(&'b'));
        assert_eq!(slots.len(), 1);
    }

    proptest! {
        #[test]
        fn a_queue_keeps_its_order(steps in prop::collection::vec((0..3u8, 0..8u32), 0..100)) {
            let mut queue = Queue::default();
            let mut model = Vec::<u32>::new();
            for (step, slot) in steps {
                match step {
                    0 if !model.contains(&slot) => { queue.push(slot); model.push(slot); }
                    0 => queue.push(slot),
                    1 => { queue.remove(slot); model.retain(|&other| other != slot); }
                    _ => {
                        let front = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(queue.pop(), front);
                    }
                }
                prop_assert_eq!(queue.front(), model.first().copied());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                for slot in 0..8 {
                    prop_assert_eq!(queue.contains(slot), model.contains(&slot));
                }
            }
        }
    }
}
