//! Durations, sizes and worker lists as people write them: `100ms`, `16 MiB`, `1-7,9`.
//!
//! Whole numbers with a unit, nothing else: a bare number would leave open what is counted.

use std::{fmt, time::Duration};

/// The most workers that a host starts; a thread and a ring each.
pub const WORKERS_MAX: u32 = 1024;
/// The highest CPU number that a list may name; the kernel's own limit on x86-64 is 8192.
pub const CPU_MAX: u32 = 8191;
/// The longest text that is looked at: far above every sensible list of CPUs.
pub const UNIT_TEXT_BYTES_MAX: usize = 4096;

/// A quantity with a unit.
pub trait Quantity: Sized + Copy + PartialOrd + fmt::Debug {
    /// What stands in messages: "a duration".
    const NOUN: &'static str;
    /// How one is written.
    const EXAMPLE: &'static str;
    /// Reads it.
    ///
    /// # Errors
    /// [`UnitError`] says what is wrong with the text.
    fn parse(text: &str) -> Result<Self, UnitError>;
    /// Writes it as [`Quantity::parse`] reads it.
    fn show(self) -> String;
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// How many workers run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that the process may use, but one for housekeeping where there are several.
    Auto,
    /// So many, on the first CPUs that the process may use.
    Count(u32),
    /// One on each of these CPUs, in ascending order.
    Cpus(Vec<u32>),
}

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than anything meant.
    #[error("it is longer than {UNIT_TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// No digits at the start.
    #[error("it does not start with a whole number")]
    NoNumber,
    /// A number with a point.
    #[error("fractions are not read")]
    Fraction,
    /// A number and nothing behind it.
    #[error("the unit is missing; units are {units}")]
    NoUnit {
        /// Those there are.
        units: &'static str,
    },
    /// Something else behind the number.
    #[error("`{unit}` is no unit; units are {units}")]
    UnknownUnit {
        /// What was found.
        unit: String,
        /// Those there are.
        units: &'static str,
    },
    /// More than 64 bits hold.
    #[error("the number is too large")]
    TooLarge,
    /// A count of workers outside the limits.
    #[error("{found} workers, expected 1 to {WORKERS_MAX}")]
    WorkerCount {
        /// What was found.
        found: u64,
    },
    /// A part of a CPU list.
    #[error("`{part}` is no CPU and no range of CPUs")]
    CpuPart {
        /// What was found.
        part: String,
    },
    /// A range whose end lies before its start.
    #[error("`{part}` runs backwards")]
    CpuRange {
        /// What was found.
        part: String,
    },
    /// A CPU above the limit.
    #[error("CPU {found} is above {CPU_MAX}")]
    CpuNumber {
        /// What was found.
        found: u64,
    },
    /// A CPU named twice.
    #[error("CPU {found} is named twice")]
    CpuTwice {
        /// What was found.
        found: u32,
    },
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

impl Quantity for Duration {
    const NOUN: &'static str = "a duration";
    const EXAMPLE: &'static str = "100ms";

    fn parse(text: &str) -> Result<Self, UnitError> {
        number_with_unit(text, DURATION_UNITS, "ns, us, ms, s, m, h").map(Self::from_nanos)
    }

    fn show(self) -> String {
        let nanoseconds = u64::try_from(self.as_nanos()).unwrap_or(u64::MAX);
        with_largest_unit(nanoseconds, DURATION_UNITS, "")
    }
}

impl ByteSize {
    /// Returns the size as a count of bytes in memory.
    ///
    /// # Panics
    /// Never on the 64-bit targets that the host runs on.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).expect("64-bit targets alone")
    }
}

impl Quantity for ByteSize {
    const NOUN: &'static str = "a size";
    const EXAMPLE: &'static str = "16 MiB";

    fn parse(text: &str) -> Result<Self, UnitError> {
        number_with_unit(text, SIZE_UNITS, "B, kB, KiB, MB, MiB, GB, GiB").map(Self)
    }

    fn show(self) -> String {
        with_largest_unit(self.0, SIZE_UNITS, " ")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.show())
    }
}

impl Workers {
    /// Reads `auto`, a count, or a list of CPUs. A list of one CPU is written `4-4`: `4` is a count.
    ///
    /// # Errors
    /// [`UnitError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let text = bounded(text)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::count(text.parse().map_err(|_| UnitError::TooLarge)?);
        }
        cpu_list(text).map(Self::Cpus)
    }

    /// Makes a count.
    ///
    /// # Errors
    /// [`UnitError::WorkerCount`] outside 1 to [`WORKERS_MAX`].
    pub fn count(found: u64) -> Result<Self, UnitError> {
        match u32::try_from(found) {
            Ok(count) if (1..=WORKERS_MAX).contains(&count) => Ok(Self::Count(count)),
            _ => Err(UnitError::WorkerCount { found }),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Cpus(cpus) => formatter.write_str(&show_cpu_list(cpus)),
        }
    }
}

/// Reads a list as the kernel writes it: `0-3,8`.
///
/// # Errors
/// [`UnitError`] names the part that is wrong.
pub fn cpu_list(text: &str) -> Result<Vec<u32>, UnitError> {
    let mut cpus = Vec::new();
    for part in bounded(text)?.split(',') {
        let (first, last) = cpu_range(part.trim())?;
        cpus.extend(first..=last);
        if cpus.len() > width(CPU_MAX) + 1 {
            break; // Overlaps, and more of them than CPUs: the check below names one.
        }
    }
    cpus.sort_unstable();
    match cpus.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(UnitError::CpuTwice { found: pair[0] }),
        None => Ok(cpus),
    }
}

fn cpu_range(part: &str) -> Result<(u32, u32), UnitError> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (cpu(part, first)?, cpu(part, last)?);
    if first <= last { Ok((first, last)) } else { Err(UnitError::CpuRange { part: part.into() }) }
}

fn cpu(part: &str, digits: &str) -> Result<u32, UnitError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::CpuPart { part: part.into() });
    }
    let found: u64 = digits.parse().map_err(|_| UnitError::TooLarge)?;
    u32::try_from(found)
        .ok()
        .filter(|number| *number <= CPU_MAX)
        .ok_or(UnitError::CpuNumber { found })
}

fn show_cpu_list(cpus: &[u32]) -> String {
    // Always as ranges, so that a single CPU isn't read back as a count.
    cpus.chunk_by(|left, right| left + 1 == *right)
        .map(|run| format!("{}-{}", run[0], run[run.len() - 1]))
        .collect::<Vec<_>>()
        .join(",")
}

fn number_with_unit(
    text: &str,
    units: &[(&str, u64)],
    unit_names: &'static str,
) -> Result<u64, UnitError> {
    let text = bounded(text)?;
    let digits_end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let unit = rest.trim_start();
    if unit.is_empty() {
        return Err(UnitError::NoUnit { units: unit_names });
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit { unit: unit.into(), units: unit_names });
    };
    let number: u64 = digits.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

fn bounded(text: &str) -> Result<&str, UnitError> {
    match text.trim() {
        "" => Err(UnitError::Empty),
        long if long.len() > UNIT_TEXT_BYTES_MAX => Err(UnitError::TooLong),
        text => Ok(text),
    }
}

/// Writes `count` in the largest unit that divides it, powers of 1024 before powers of 1000.
fn with_largest_unit(count: u64, units: &[(&str, u64)], between: &str) -> String {
    let divides = |factor: u64| count != 0 && count.is_multiple_of(factor);
    let zero_unit = if between.is_empty() { "s" } else { "B" };
    if count == 0 {
        return format!("0{between}{zero_unit}");
    }
    let binary =
        units.iter().rev().find(|(_, factor)| factor.is_power_of_two() && divides(*factor));
    let any = units.iter().rev().find(|(_, factor)| divides(*factor));
    let (name, factor) = match (binary, any) {
        (Some(binary), _) if binary.1 > 1 => binary,
        (_, Some(any)) => any,
        _ => &units[0],
    };
    format!("{}{between}{name}", count / factor)
}

fn width(number: u32) -> usize {
    usize::try_from(number).expect("midge runs on 64-bit targets alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Result<u64, UnitError>) {
        assert_eq!(Duration::parse(text), expected.map(Duration::from_nanos), "{text}");
    }

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        let units = "ns, us, ms, s, m, h";
        check_duration("100ms", Ok(100_000_000));
        check_duration(" 1 s ", Ok(1_000_000_000));
        check_duration("0s", Ok(0));
        check_duration("2h", Ok(7_200_000_000_000));
        check_duration("", Err(UnitError::Empty));
        check_duration("ms", Err(UnitError::NoNumber));
        check_duration("-5ms", Err(UnitError::NoNumber));
        check_duration("1.5s", Err(UnitError::Fraction));
        check_duration("100", Err(UnitError::NoUnit { units }));
        check_duration("100 msec", Err(UnitError::UnknownUnit { unit: "msec".into(), units }));
        check_duration("99999999999h", Err(UnitError::TooLarge));
        check_duration("99999999999999999999999ns", Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes_are_shown_in_binary_units_where_they_divide() {
        for (text, bytes, shown) in [
            ("16 MiB", 16 << 20, "16 MiB"),
            ("1024KiB", 1 << 20, "1 MiB"),
            ("1 MB", 1_000_000, "1 MB"),
            ("1500 B", 1500, "1500 B"),
            ("0 B", 0, "0 B"),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).show(), shown);
        }
    }

    #[test]
    fn workers_are_auto_a_count_or_cpus() {
        for (text, expected) in [
            ("auto", Ok(Workers::Auto)),
            ("4", Ok(Workers::Count(4))),
            ("4-4", Ok(Workers::Cpus(vec![4]))),
            ("1-3,9", Ok(Workers::Cpus(vec![1, 2, 3, 9]))),
            ("9, 1-2", Ok(Workers::Cpus(vec![1, 2, 9]))),
            ("0", Err(UnitError::WorkerCount { found: 0 })),
            ("1-3,3", Err(UnitError::CpuTwice { found: 3 })),
            ("3-1", Err(UnitError::CpuRange { part: "3-1".into() })),
            ("1,,2", Err(UnitError::CpuPart { part: String::new() })),
            ("all", Err(UnitError::CpuPart { part: "all".into() })),
            ("0-9999", Err(UnitError::CpuNumber { found: 9999 })),
        ] {
            assert_eq!(Workers::parse(text), expected, "{text}");
        }
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(count in any::<u64>(), unit in 0..SIZE_UNITS.len()) {
            let bytes = ByteSize(count / SIZE_UNITS[unit].1 * SIZE_UNITS[unit].1);
            prop_assert_eq!(ByteSize::parse(&bytes.show()), Ok(bytes));
            let duration = Duration::from_nanos(count);
            prop_assert_eq!(Duration::parse(&duration.show()), Ok(duration));
        }

        #[test]
        fn cpu_lists_are_read_back(cpus in proptest::collection::btree_set(0..=CPU_MAX, 1..64)) {
            let workers = Workers::Cpus(cpus.into_iter().collect());
            prop_assert_eq!(Workers::parse(&workers.to_string()), Ok(workers));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), list in "[0-9,-]{0,40}") {
            drop((Duration::parse(&text), ByteSize::parse(&text), Workers::parse(&list)));
        }
    }
}
