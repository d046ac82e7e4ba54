//! Functions by when they were called last: a list threaded through an array, so that each step is a few stores.

/// No function.
const NONE: u32 = u32::MAX;

/// Functions, the one that was called latest first.
#[derive(Debug)]
pub(super) struct Recency {
    links: Vec<Link>,
    latest: u32,
    earliest: u32,
}

/// A function's neighbours.
#[derive(Debug, Clone, Copy)]
struct Link {
    later: u32,
    earlier: u32,
    is_listed: bool,
}

impl Recency {
    /// Makes the list for so many functions, none of which was called.
    #[must_use]
    pub(super) fn new(count: usize) -> Self {
        let unlisted = Link { later: NONE, earlier: NONE, is_listed: false };
        Self { links: vec![unlisted; count], latest: NONE, earliest: NONE }
    }

    /// A function was called: it is the latest now.
    #[inline]
    pub(super) fn called(&mut self, function: usize) {
        let number = narrow(function);
        if self.latest == number {
            return;
        }
        self.forget(function);
        let earlier = std::mem::replace(&mut self.latest, number);
        self.links[function] = Link { later: NONE, earlier, is_listed: true };
        match self.at(earlier) {
            Some(link) => link.later = number,
            None => self.earliest = number,
        }
    }

    /// Takes a function off the list, if it is there.
    pub(super) fn forget(&mut self, function: usize) {
        let Link { later, earlier, is_listed } = self.links[function];
        if !is_listed {
            return;
        }
        match self.at(later) {
            Some(link) => link.earlier = earlier,
            None => self.latest = earlier,
        }
        match self.at(earlier) {
            Some(link) => link.later = later,
            None => self.earliest = later,
        }
        self.links[function].is_listed = false;
    }

    /// Returns the function that was called longest ago.
    #[must_use]
    pub(super) fn earliest(&self) -> Option<usize> {
        (self.earliest != NONE).then(|| midge_abi::width::index(self.earliest))
    }

    fn at(&mut self, number: u32) -> Option<&mut Link> {
        self.links.get_mut(midge_abi::width::index(number))
    }
}

fn narrow(function: usize) -> u32 {
    u32::try_from(function).expect("bounded by FUNCTIONS_MAX")
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_list_that_is_searched(steps in prop::collection::vec((0..6usize, 0..4u8), 0..200)) {
            let mut recency = Recency::new(6);
            let mut naive: Vec<usize> = Vec::new(); // the earliest first
            for (function, step) in steps {
                naive.retain(|other| *other != function);
                if step == 0 {
                    recency.forget(function);
                } else {
                    recency.called(function);
                    naive.push(function);
                }
                prop_assert_eq!(recency.earliest(), naive.first().copied());
            }
            for expected in naive {
                prop_assert_eq!(recency.earliest(), Some(expected));
                recency.forget(expected);
            }
            prop_assert_eq!(recency.earliest(), None);
        }
    }
}
