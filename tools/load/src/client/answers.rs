//! A connection's responses: matched with the requests under way, in their order, and compared.

use std::collections::VecDeque;
use std::ops::Range;

use crate::plan::{Body, Fields, Target};
use crate::record::{EXAMPLE_BYTES_MAX, Record, Wrong};
use crate::response::{Facts, Sink, Unexpected};

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) due: u64,
    pub(super) sent: u64,
    pub(super) fields: Fields,
    pub(super) target: u32,
}

/// The response that is being read.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) size: u64,
    pub(super) wrong: Option<Wrong>,
    pub(super) hasher: Option<Box<blake3::Hasher>>,
    pub(super) facts: Option<Facts>,
    pub(super) excerpt: Vec<u8>,
}

/// Takes a connection's responses, and checks them.
pub(super) struct Answers<'a> {
    flight: &'a mut VecDeque<Flight>,
    current: &'a mut Current,
    targets: &'a [Target],
    record: &'a mut Record,
    window: &'a Range<u64>,
    pub(super) ended: usize,
    pub(super) has_last: bool,
    now: u64,
}

impl<'a> Answers<'a> {
    pub(super) fn new(
        flight: &'a mut VecDeque<Flight>,
        current: &'a mut Current,
        targets: &'a [Target],
        record: &'a mut Record,
        window: &'a Range<u64>,
        now: u64,
    ) -> Self {
        Self { flight, current, targets, record, window, ended: 0, has_last: false, now }
    }

    fn target(&self, flight: Flight) -> &Target {
        &self.targets[flight.target as usize]
    }
}

impl Sink for Answers<'_> {
    #[inline]
    fn head(&mut self, facts: Facts) -> Result<bool, Unexpected> {
        let flight = *self.flight.front().ok_or(Unexpected)?;
        let target = &self.targets[flight.target as usize];
        let current = &mut *self.current;
        current.size = 0;
        current.facts = Some(facts);
        current.excerpt.clear();
        let is_right = target.expected.status.is_none_or(|status| status == facts.status);
        current.wrong = if is_right { None } else { Some(Wrong::Status) };
        if let Body::Hash { .. } = target.expected.body {
            current.hasher = Some(Box::default());
        }
        Ok(!target.is_head)
    }

    #[inline]
    fn body(&mut self, bytes: &[u8]) {
        let Some(flight) = self.flight.front().copied() else { return };
        let target = &self.targets[flight.target as usize];
        let current = &mut *self.current;
        match &target.expected.body {
            Body::Any | Body::Length(_) => {}
            Body::Bytes(wanted) => {
                let offset = usize::try_from(current.size).unwrap_or(usize::MAX);
                if current.wrong.is_none() && !wanted.holds(&flight.fields, offset, bytes) {
                    current.wrong = Some(Wrong::Body);
                }
            }
            Body::Hash { .. } => {
                if let Some(hasher) = &mut current.hasher {
                    hasher.update(bytes);
                }
            }
        }
        current.size += bytes.len() as u64;
        if current.wrong.is_some() && current.excerpt.len() < EXAMPLE_BYTES_MAX {
            let room = EXAMPLE_BYTES_MAX - current.excerpt.len();
            current.excerpt.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    #[inline]
    fn end(&mut self) {
        let Some(flight) = self.flight.pop_front() else { return };
        self.ended += 1;
        let size = self.current.size;
        let facts = self.current.facts.take();
        self.has_last |= facts.is_some_and(|facts| facts.is_last);
        let has_body = !self.target(flight).is_head;
        let wrong = self.current.wrong.or_else(|| match &self.target(flight).expected.body {
            Body::Any => None,
            _ if !has_body => None,
            Body::Length(length) => (*length != size).then_some(Wrong::Length),
            Body::Bytes(wanted) => (wanted.bytes.len() as u64 != size).then_some(Wrong::Length),
            Body::Hash { length, .. } if *length != size => Some(Wrong::Length),
            Body::Hash { hash, .. } => {
                let got = self.current.hasher.as_ref().map(|hasher| hasher.finalize());
                (got != Some(*hash)).then_some(Wrong::Body)
            }
        });
        if let Some(wrong) = wrong {
            let excerpt = self.current.excerpt.escape_ascii().to_string();
            let status = facts.map_or(0, |facts| facts.status);
            self.record.count_wrong(wrong, || {
                format!(
                    "request {}: status {status}, {size} bytes: {excerpt}",
                    flight.fields.number
                )
            });
        } else if self.window.contains(&flight.due) {
            self.record.responses += 1;
            self.record.body_bytes += size;
            self.record.latency.saturating_record(self.now.saturating_sub(flight.due).max(1));
            self.record.service.saturating_record(self.now.saturating_sub(flight.sent).max(1));
        }
    }
}
