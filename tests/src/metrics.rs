//! The numbers of `/metrics`.

/// A scrape.
#[derive(Debug, Clone)]
pub struct Metrics(pub String);

impl Metrics {
    /// Returns the sum over all series of a name that have all these labels, written `name="value"`.
    ///
    /// # Panics
    /// If a number is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let numbers = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, number) = rest.rsplit_once(' ')?;
            let is_name = found.is_empty() || found.starts_with('{');
            let has_labels = labels.iter().all(|label| found.contains(label));
            (is_name && has_labels).then(|| number.parse::<u64>().expect("a count is a number"))
        });
        numbers.sum()
    }

    /// Returns how many instances of a function came to be in a way.
    #[must_use]
    pub fn starts(&self, function: &str, tier: &str) -> u64 {
        let labels = [format!("function=\"{function}\""), format!("tier=\"{tier}\"")];
        self.sum("midge_function_starts_total", &[&labels[0], &labels[1]])
    }
}
