//! A distribution by some of its quantiles: what a paper's figure or table gives.

/// Values by the share of all that lie below them, both ascending. Between two points the logarithm is even.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve(pub(super) &'static [(f64, f64)]);

impl Curve {
    /// Returns the value that this share of all lies below, from 0 to 1.
    pub(super) fn at(self, share: f64) -> f64 {
        for pair in self.0.windows(2) {
            let [(from, low), (to, high)] = [pair[0], pair[1]];
            if share < to {
                let part = ((share - from) / (to - from)).max(0.0);
                return low * (high / low).powf(part);
            }
        }
        self.0.last().map_or(0.0, |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_points_the_logarithm_is_even() {
        let curve = Curve(&[(0.0, 1.0), (0.5, 100.0), (1.0, 100.0)]);
        for (share, value) in [(0.0, 1.0), (0.25, 10.0), (0.5, 100.0), (0.9, 100.0), (1.0, 100.0)] {
            assert!((curve.at(share) - value).abs() < 1e-9, "{share}: {}", curve.at(share));
        }
    }
}
