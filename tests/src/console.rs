//! What a machine says on its console, which is kept in a file.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::wait::look_until;

/// A console.
#[derive(Debug)]
pub struct Console(PathBuf);

impl Console {
    /// Reads what is written to this file.
    #[must_use]
    pub const fn of(file: PathBuf) -> Self {
        Self(file)
    }

    /// Returns what was said so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    /// Waits until a text was said so many times.
    ///
    /// # Panics
    /// If it was not by then; shows what was said.
    pub fn wait_for(&self, text: &str, count: usize, patience: Duration) {
        let is_said = || (count <= self.text().matches(text).count()).then_some(());
        let said = look_until(Instant::now() + patience, is_said);
        assert!(said.is_some(), "`{text}` {count} times within {patience:?} in {}", self.text());
    }
}
