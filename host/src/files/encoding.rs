//! Which encodings a client takes (RFC 9110, 12.5.3).

/// An encoding that variants of files come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

/// The encodings that a client takes, with their weights in thousandths; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted([u16; Encoding::ALL.len()]);

impl Encoding {
    /// All of them; where a client likes several alike, the first is served.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Returns the name that HTTP has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Returns what the name of a variant ends in.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

impl Accepted {
    /// Reads the lines of an `Accept-Encoding`.
    #[must_use]
    pub fn of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut named = [None; Encoding::ALL.len()];
        let mut any = 0;
        for element in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let Some(coding) = parts.next() else { continue };
            let weight = parts.next().map_or(Some(1000), weight).unwrap_or(0);
            if coding == b"*" {
                any = weight;
            }
            for (encoding, place) in Encoding::ALL.into_iter().zip(&mut named) {
                let is_alias = encoding == Encoding::Gzip && coding.eq_ignore_ascii_case(b"x-gzip");
                if is_alias || coding.eq_ignore_ascii_case(encoding.name().as_bytes()) {
                    *place = Some(weight);
                }
            }
        }
        Self(named.map(|weight| weight.unwrap_or(any)))
    }

    /// Returns the encodings that are taken, the best liked first.
    pub fn in_order(self) -> impl Iterator<Item = Encoding> {
        let mut order: Vec<_> = Encoding::ALL.into_iter().zip(self.0).collect();
        order.retain(|(_, weight)| *weight > 0);
        order.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        order.into_iter().map(|(encoding, _)| encoding)
    }
}

/// Reads `q=0.5` as thousandths (RFC 9110, 12.4.2).
fn weight(text: &[u8]) -> Option<u16> {
    let (name, value) = text.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = value.split_first()?;
    let fraction = match fraction {
        [] => &[],
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = u16::from(whole.checked_sub(b'0').filter(|digit| *digit <= 1)?) * 1000;
    for (digit, unit) in fraction.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) * unit;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_comes_first() {
        for (line, expected) in [
            ("gzip, deflate, br, zstd", "br zstd gzip"),
            ("gzip;q=1.0, br;q=0.5", "gzip br"),
            ("br;q=0, *", "zstd gzip"),
            ("*;q=0.3, gzip;q=0.2", "br zstd gzip"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("identity", ""),
            ("", ""),
            ("gzip;q=2", ""),
            ("gzip;q=1.001", ""),
            ("gzip;q=0.0001", ""),
            ("gzip;what", ""),
            ("br ; q=0.1 , gzip ; Q=0.9", "gzip br"),
        ] {
            let names: Vec<_> = Accepted::of([line.as_bytes()].into_iter())
                .in_order()
                .map(Encoding::name)
                .collect();
            assert_eq!(names.join(" "), expected, "{line}");
        }
    }
}
