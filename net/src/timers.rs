//! Deadlines of all connections on one wheel.
//!
//! ```text
//!   place   0   1   2  ...  4095        tick modulo 4096, 20 ms each: 82 s around
//!           |       |
//!           7       3 - 12 - 5          slots filed there, doubly linked
//! ```
//!
//! A later deadline only writes a number: the slot stays where it is filed and is filed again when the wheel
//! gets there. An earlier one moves it at once. So the hot path, where deadlines only move away, touches one
//! word per request.
//!
//! Invariant: a slot with a deadline is filed at or before it.
//! Hot path: `set`.

use std::time::Duration;

use crate::width::{index, low};

/// Length of a tick: no deadline here needs better.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Places of the wheel, a power of two: the longest usual deadline fits twice.
const PLACES: u64 = 4096;

const _: () = assert!(PLACES.is_power_of_two() && PLACES.is_multiple_of(64));

/// A moment, in ticks since the clock's start.
pub(crate) type Tick = u64;

/// No slot.
const NONE: u32 = u32::MAX;

/// No deadline.
const NEVER: Tick = Tick::MAX;

/// Where a slot is filed, and what for.
#[derive(Debug, Clone, Copy)]
struct Link {
    deadline: Tick,
    /// Tick it is filed under; `NEVER` if it isn't.
    filed: Tick,
    previous: u32,
    next: u32,
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: Tick,
    /// Of the slots that had a deadline so far.
    links: Vec<Link>,
    heads: Vec<u32>,
    /// A bit per place that has slots.
    occupied: Vec<u64>,
}

/// Returns the ticks in a duration, rounded up.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
    Tick::try_from(ticks).unwrap_or(NEVER / 2)
}

/// Returns the tick that a moment of the clock lies in.
pub(crate) fn tick_at(elapsed: Duration) -> Tick {
    const TICK_MS: u64 = 20;
    const _: () = assert!(TICK.as_millis() == TICK_MS as u128);
    elapsed.as_secs() * (1000 / TICK_MS) + u64::from(elapsed.subsec_millis()) / TICK_MS
}

impl Wheel {
    pub(crate) fn new(slots: u32, now: Tick) -> Self {
        Self {
            now,
            links: Vec::with_capacity(index(slots)),
            heads: vec![NONE; index(low(PLACES))],
            occupied: vec![0; index(low(PLACES / 64))],
        }
    }

    /// Sets the deadline of a slot.
    #[inline]
    pub(crate) fn set(&mut self, slot: u32, deadline: Tick) {
        if self.links.len() <= index(slot) {
            self.widen(slot);
        }
        let link = &mut self.links[index(slot)];
        link.deadline = deadline;
        if deadline < link.filed {
            self.refile(slot);
        }
    }

    /// Takes a slot's deadline away. It leaves the wheel when that gets there.
    #[inline]
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(link) = self.links.get_mut(index(slot)) {
            link.deadline = NEVER;
        }
    }

    /// Makes the links up to a slot, within their capacity.
    #[cold]
    #[inline(never)]
    fn widen(&mut self, slot: u32) {
        let link = Link { deadline: NEVER, filed: NEVER, previous: NONE, next: NONE };
        self.links.resize(index(slot) + 1, link);
    }

    /// Moves on to `now` and appends the slots whose deadline has come to `expired`.
    pub(crate) fn advance(&mut self, now: Tick, expired: &mut Vec<u32>) {
        if now <= self.now {
            return;
        }
        // After a long stall every place is visited once.
        let first = (self.now + 1).max(now.saturating_sub(PLACES - 1));
        self.now = now;
        for tick in first..=now {
            self.visit(tick, expired);
        }
    }

    /// Returns the tick of the next place that has slots.
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        let start = self.now + 1;
        let first_word = start % PLACES / 64;
        let words = PLACES / 64;
        for step in 0..=words {
            let word_index = (first_word + step) % words;
            let mut word = self.occupied[index(low(word_index))];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            }
            if word != 0 {
                let place = word_index * 64 + u64::from(word.trailing_zeros());
                return Some(start + (place + PLACES - start % PLACES) % PLACES);
            }
        }
        None
    }

    fn visit(&mut self, tick: Tick, expired: &mut Vec<u32>) {
        let place = index(low(tick % PLACES));
        let mut slot = std::mem::replace(&mut self.heads[place], NONE);
        self.occupied[place / 64] &= !(1 << (place % 64));
        while slot != NONE {
            let link = &mut self.links[index(slot)];
            let next = link.next;
            link.filed = NEVER;
            if link.deadline <= self.now {
                link.deadline = NEVER;
                expired.push(slot);
            } else if link.deadline != NEVER {
                self.file(slot);
            }
            slot = next;
        }
    }

    #[cold]
    #[inline(never)]
    fn refile(&mut self, slot: u32) {
        if self.links[index(slot)].filed != NEVER {
            self.unfile(slot);
        }
        self.file(slot);
    }

    fn file(&mut self, slot: u32) {
        let link = &mut self.links[index(slot)];
        let filed = link.deadline.clamp(self.now + 1, self.now + PLACES - 1);
        let place = index(low(filed % PLACES));
        let head = self.heads[place];
        link.filed = filed;
        link.previous = NONE;
        link.next = head;
        if head != NONE {
            self.links[index(head)].previous = slot;
        }
        self.heads[place] = slot;
        self.occupied[place / 64] |= 1 << (place % 64);
    }

    fn unfile(&mut self, slot: u32) {
        let Link { filed, previous, next, .. } = self.links[index(slot)];
        let place = index(low(filed % PLACES));
        if previous == NONE {
            self.heads[place] = next;
        } else {
            self.links[index(previous)].next = next;
        }
        if next != NONE {
            self.links[index(next)].previous = previous;
        }
        if self.heads[place] == NONE {
            self.occupied[place / 64] &= !(1 << (place % 64));
        }
        self.links[index(slot)].filed = NEVER;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn expired(wheel: &mut Wheel, now: Tick) -> Vec<u32> {
        let mut expired = Vec::new();
        wheel.advance(now, &mut expired);
        expired.sort_unstable();
        expired
    }

    #[test]
    fn a_deadline_expires_once_and_in_time() {
        let mut wheel = Wheel::new(4, 0);
        wheel.set(1, 5);
        wheel.set(2, 5);
        assert_eq!(wheel.next_tick(), Some(5));
        assert!(expired(&mut wheel, 4).is_empty());
        assert_eq!(expired(&mut wheel, 5), [1, 2]);
        assert!(expired(&mut wheel, 9000).is_empty());
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn a_later_deadline_replaces_an_earlier_one_and_back() {
        let mut wheel = Wheel::new(4, 0);
        wheel.set(0, 5);
        wheel.set(0, 50);
        assert!(expired(&mut wheel, 20).is_empty());
        wheel.set(0, 30);
        assert_eq!(expired(&mut wheel, 30), [0]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_waits_for_its_round() {
        let mut wheel = Wheel::new(1, 0);
        wheel.set(0, 10_000);
        assert!(expired(&mut wheel, 4095).is_empty());
        assert!(expired(&mut wheel, 9999).is_empty());
        assert_eq!(expired(&mut wheel, 10_000), [0]);
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_millis(40)), 2);
        assert_eq!(tick_at(Duration::from_millis(1039)), 51);
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_list(
            steps in prop::collection::vec((0_u32..8, any::<bool>(), 0_u64..9000, 0_u64..40), 1..80),
        ) {
            let mut wheel = Wheel::new(8, 0);
            let mut list = [NEVER; 8];
            let mut now = 0;
            for (slot, is_set, delay, pause) in steps {
                if is_set {
                    wheel.set(slot, now + delay);
                    list[index(slot)] = now + delay;
                } else {
                    wheel.clear(slot);
                    list[index(slot)] = NEVER;
                }
                if let Some(next) = wheel.next_tick() {
                    prop_assert!(next > now);
                }
                now += pause * pause;
                let before = now - pause * pause;
                let due: Vec<u32> = (0_u32..8)
                    .filter(|&slot| now > before && list[index(slot)] <= now)
                    .collect();
                prop_assert_eq!(expired(&mut wheel, now), due.clone());
                for slot in due {
                    list[index(slot)] = NEVER;
                }
            }
        }
    }
}
