//! The files that clouds have published, told apart by their first lines.
//!
//! - Azure 2019: `invocations_per_function_md.anon.d*.csv`, a line for each function, a count for each minute of a day;
//!   beside it `function_durations_percentiles.anon.d*.csv` and `app_memory_percentiles.anon.d*.csv`
//!   (<https://github.com/Azure/AzurePublicDataset>).
//! - Azure 2021: a line for each call, with its end and its duration.
//! - Huawei 2023 and 2025: `requests_minute` and `requests_second`, a line for each minute or second, a column for each
//!   function (<https://github.com/sir-lab/data-release>).
//! - Huawei 2025: the table of requests, a line for each call.
//! - Lines of one's own: `SECONDS,FUNCTION,US,KIB,PAGES`, of which all but the first may be left out.
//!
//! What a file does not tell of its calls is drawn from what was published of that cloud.

use std::collections::HashMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::shape::{Shape, Worker};
use super::work::pages;
use super::{CALLS_MAX, Call, Wanted, Work, nanoseconds, narrow, sorted, unit};

/// Why a file is no trace.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Faulty {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

/// What stands beside the counts of Azure 2019.
#[derive(Debug, Default)]
pub struct Extras {
    /// Durations of functions.
    pub durations: Option<Durations>,
    /// Heaps of applications.
    pub heaps: Option<Heaps>,
}

/// Durations of functions, by owner, application and function: percentiles in milliseconds.
#[derive(Debug)]
pub struct Durations(HashMap<[String; 3], Quantiles>);

/// Heaps of applications, by owner and application: percentiles in MB.
#[derive(Debug)]
pub struct Heaps(HashMap<[String; 2], Quantiles>);

/// Values by the share of all that lie below them, both ascending.
#[derive(Debug)]
struct Quantiles(Vec<(f64, f64)>);

impl Quantiles {
    /// Reads a line's values of these shares; what is not a number, or below the one before it, is no percentile.
    fn read<'a>(shares: &[f64], fields: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(shares.len());
        let mut fields = fields;
        for share in shares {
            let value = number(fields.next()?).filter(|value| 0.0 <= *value)?;
            if points.last().is_some_and(|(_, last)| value < *last) {
                return None;
            }
            points.push((*share, value));
        }
        Some(Self(points))
    }

    /// Draws a value: between two percentiles all are as likely.
    fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        let share = unit(random);
        for pair in self.0.windows(2) {
            let [(from, low), (to, high)] = [pair[0], pair[1]];
            if share < to {
                return low + (high - low) * ((share - from) / (to - from)).max(0.0);
            }
        }
        self.0.last().map_or(0.0, |(_, value)| *value)
    }
}

impl Durations {
    /// Reads `function_durations_percentiles.anon.d*.csv`.
    ///
    /// # Errors
    /// [`Faulty`] with the first line that is none of its kind.
    pub fn read(text: &str) -> Result<Self, Faulty> {
        const HEAD: &str = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,";
        let shares = [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0];
        let kind = "this is not function_durations_percentiles of Azure 2019";
        let row = "three hashes, four numbers and seven ascending percentiles are wanted";
        Ok(Self(table(text, HEAD, &shares, [kind, row])?))
    }
}

impl Heaps {
    /// Reads `app_memory_percentiles.anon.d*.csv`.
    ///
    /// # Errors
    /// [`Faulty`] with the first line that is none of its kind.
    pub fn read(text: &str) -> Result<Self, Faulty> {
        const HEAD: &str = "HashOwner,HashApp,SampleCount,AverageAllocatedMb,";
        let shares = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];
        let kind = "this is not app_memory_percentiles of Azure 2019";
        let row = "two hashes, two numbers and eight ascending percentiles are wanted";
        Ok(Self(table(text, HEAD, &shares, [kind, row])?))
    }
}

/// Reads percentiles of these shares, which follow the columns that `head` names, by the first `N` of those. A file that
/// begins otherwise is faulty for the first reason, a line for the second.
fn table<const N: usize>(
    text: &str,
    head: &str,
    shares: &[f64],
    [kind, wanted]: [&'static str; 2],
) -> Result<HashMap<[String; N], Quantiles>, Faulty> {
    if !text.starts_with(head) {
        return Err(Faulty { line: 1, why: kind });
    }
    let named = head.matches(',').count();
    let row = |(line, row): (usize, &str)| {
        let fields: Vec<_> = row.split(',').collect();
        let quantiles = Quantiles::read(shares, fields.iter().skip(named).copied());
        key(&fields).zip(quantiles).ok_or(Faulty { line, why: wanted })
    };
    lines(text).skip(1).map(row).collect()
}

/// Returns the lines that hold something, with their numbers, from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().zip(1..).map(|(line, number)| (number, line));
    numbered.filter(|(_, line)| !line.trim().is_empty())
}

fn key<const N: usize>(fields: &[&str]) -> Option<[String; N]> {
    let first: [&str; N] = fields.get(..N)?.try_into().ok()?;
    Some(first.map(str::to_owned))
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Reads a trace; what kind of file it is, its first line says.
///
/// # Errors
/// [`Faulty`] with the first line that is none of its kind.
pub fn read(text: &str, extras: &Extras, wanted: &Wanted) -> Result<Arc<[Call]>, Faulty> {
    let first = text.lines().next().unwrap_or_default();
    let is_2019 = first.starts_with("HashOwner,HashApp,HashFunction,Trigger,");
    if !is_2019 && (extras.durations.is_some() || extras.heaps.is_some()) {
        let why = "durations and memory in files of their own belong to the counts of Azure 2019";
        return Err(Faulty { line: 1, why });
    }
    let mut reading = Reading {
        wanted,
        calls: Vec::new(),
        random: ChaCha8Rng::seed_from_u64(wanted.seed),
        workers: HashMap::new(),
    };
    if is_2019 {
        reading.minutes_of_2019(text, extras)?;
    } else if first.starts_with("app,func,end_timestamp,duration") {
        reading.calls_of_2021(text)?;
    } else if first.starts_with("day,time,") {
        reading.columns(text)?;
    } else if first.contains("funcName") && first.contains("time_worker") {
        reading.requests_of_2025(text, first)?;
    } else {
        reading.plain(text)?;
    }
    if reading.calls.is_empty() {
        return Err(Faulty { line: 1, why: "there is no call within the time" });
    }
    Ok(sorted(reading.calls))
}

struct Reading<'a> {
    wanted: &'a Wanted,
    calls: Vec<Call>,
    random: ChaCha8Rng,
    /// What draws the work of functions that the file tells none of.
    workers: HashMap<u32, Worker>,
}

impl Reading<'_> {
    /// A line for each function, with a count for each minute of a day.
    fn minutes_of_2019(&mut self, text: &str, extras: &Extras) -> Result<(), Faulty> {
        for (function, (line, row)) in lines(text).skip(1).enumerate() {
            let function = narrow(function);
            let fields: Vec<_> = row.split(',').take(4).collect();
            let durations = extras.durations.as_ref().zip(key::<3>(&fields));
            let durations = durations.and_then(|(of, key)| of.0.get(&key));
            let heaps = extras.heaps.as_ref().zip(key::<2>(&fields));
            let heaps = heaps.and_then(|(of, key)| of.0.get(&key));
            for (minute, count) in row.split(',').skip(4).enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "minutes of a day")]
                let begins = minute as f64 * 60.0;
                if self.is_beyond(begins) {
                    break;
                }
                let why = "a count of calls is no number";
                let count: u32 = count.trim().parse().map_err(|_| Faulty { line, why })?;
                for _ in 0..count {
                    let mut work = self.drawn(Shape::Azure2019, function);
                    if let Some(durations) = durations {
                        work.us = self.wanted.scale.us(durations.draw(&mut self.random) / 1000.0);
                    }
                    if let Some(heaps) = heaps {
                        work.kib = self.wanted.scale.kib(heaps.draw(&mut self.random));
                        work.pages = pages(&mut self.random, work.kib);
                    }
                    // Where in its minute a call was, nobody knows.
                    let time = begins + unit(&mut self.random) * 60.0;
                    self.push(time, function, work, line)?;
                }
            }
        }
        Ok(())
    }

    /// A line for each call, with its end and its duration in seconds.
    fn calls_of_2021(&mut self, text: &str) -> Result<(), Faulty> {
        let mut functions: HashMap<(&str, &str), u32> = HashMap::new();
        let mut starts = Vec::new();
        for (line, row) in lines(text).skip(1) {
            let faulty = |why| Faulty { line, why };
            let mut fields = row.split(',');
            let (Some(app), Some(function)) = (fields.next(), fields.next()) else {
                return Err(faulty("app, func, end_timestamp, duration are wanted"));
            };
            let mut field = || fields.next().and_then(number);
            let (Some(end), Some(duration)) = (field(), field()) else {
                return Err(faulty("end or duration is no number"));
            };
            let next = narrow(functions.len());
            let function = *functions.entry((app, function)).or_insert(next);
            starts.push((end - duration, function, duration, line));
        }
        let first = starts.iter().map(|(start, ..)| *start).fold(f64::MAX, f64::min);
        for (start, function, duration, line) in starts {
            if self.is_beyond(start - first) {
                continue;
            }
            let us = self.wanted.scale.us(duration);
            let work = Work { us, ..self.drawn(Shape::Azure2021, function) };
            self.push(start - first, function, work, line)?;
        }
        Ok(())
    }

    /// A line for each minute or second, with a column for each function; nothing where it was not called.
    fn columns(&mut self, text: &str) -> Result<(), Faulty> {
        let mut times = lines(text).skip(1).filter_map(|(_, row)| number(row.split(',').nth(1)?));
        let first = times.next().unwrap_or(0.0);
        // Of one line nobody knows what it spans: a minute, as most files have it.
        let step = times.next().map_or(60.0, |second| second - first);
        for (line, row) in lines(text).skip(1) {
            let faulty = |why| Faulty { line, why };
            let mut fields = row.split(',');
            let time = fields.nth(1).and_then(number).ok_or(faulty("the time is no number"))?;
            let begins = time - first;
            if begins < 0.0 || !(0.001..=86_400.0).contains(&step) {
                return Err(faulty("times do not ascend"));
            }
            if self.is_beyond(begins) {
                break;
            }
            for (function, count) in fields.enumerate() {
                let count = count.trim();
                if count.is_empty() || count.eq_ignore_ascii_case("nan") {
                    continue;
                }
                let is_count = |count: &f64| (0.0..1e9).contains(count);
                let count = number(count).filter(is_count);
                let count = count.ok_or(faulty("a count of calls is no number"))?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked above"
                )]
                for _ in 0..count as u32 {
                    let function = narrow(function);
                    let work = self.drawn(Shape::Huawei2025, function);
                    let time = begins + unit(&mut self.random) * step;
                    self.push(time, function, work, line)?;
                }
            }
        }
        Ok(())
    }

    /// A line for each call, whose columns the first line names.
    fn requests_of_2025(&mut self, text: &str, first: &str) -> Result<(), Faulty> {
        let place = |name: &str| first.split(',').position(|column| column.trim() == name);
        let why = "columns time_worker, funcName, userID, podID and runtimeCost are wanted";
        let places = ["time_worker", "funcName", "userID", "podID", "runtimeCost"].map(place);
        let [Some(time), Some(name), Some(user), Some(pod), Some(lasts)] = places else {
            return Err(Faulty { line: 1, why });
        };
        let memory = place("memory_usage");
        let mut functions: HashMap<(&str, &str, &str), u32> = HashMap::new();
        let mut found = Vec::new();
        for (line, row) in lines(text).skip(1) {
            let fields: Vec<_> = row.split(',').collect();
            let of = |place: usize| fields.get(place).copied().unwrap_or_default();
            let why = "time_worker or runtimeCost is no number";
            let (Some(time), Some(lasts)) = (number(of(time)), number(of(lasts))) else {
                return Err(Faulty { line, why });
            };
            // A function is one in its pool: `pool22-300-128-0000618412` is a pod of `pool22-300-128`.
            let pool = of(pod).rsplit_once('-').map_or(of(pod), |(pool, _)| pool);
            let next = narrow(functions.len());
            let function = *functions.entry((of(name), of(user), pool)).or_insert(next);
            let mb = memory.and_then(|memory| number(of(memory)));
            found.push((time, function, lasts, mb, line));
        }
        let first = found.iter().map(|(time, ..)| *time).fold(f64::MAX, f64::min);
        for (time, function, lasts, mb, line) in found {
            if self.is_beyond(time - first) {
                continue;
            }
            let mut work = self.drawn(Shape::Huawei2025, function);
            work.us = self.wanted.scale.us(lasts);
            if let Some(mb) = mb {
                work.kib = self.wanted.scale.kib(mb);
                work.pages = pages(&mut self.random, work.kib);
            }
            self.push(time - first, function, work, line)?;
        }
        Ok(())
    }

    /// Lines of one's own.
    fn plain(&mut self, text: &str) -> Result<(), Faulty> {
        for (line, row) in lines(text) {
            let faulty = |why| Faulty { line, why };
            let mut fields = row.split(',').map(str::trim);
            let time = fields.next().and_then(number).ok_or(faulty("no time in seconds"))?;
            let mut whole = |why| match fields.next() {
                None => Ok(0),
                Some(text) => text.parse::<u32>().map_err(|_| faulty(why)),
            };
            let function = whole("no number of a function")?;
            let us = whole("no duration in microseconds")?;
            let kib = whole("no heap in KiB")?;
            let work = Work { us, kib, pages: whole("no number of pages")? };
            if !(0.0..1e9).contains(&time) {
                return Err(faulty("a time is 0 or more, and below 10^9 seconds"));
            }
            self.push(time, function, work, line)?;
        }
        Ok(())
    }

    fn is_beyond(&self, time: f64) -> bool {
        self.wanted.seconds <= time / self.wanted.speed
    }

    /// Draws the work of a call of which the file tells none.
    fn drawn(&mut self, shape: Shape, function: u32) -> Work {
        let random = &mut self.random;
        let worker =
            self.workers.entry(function).or_insert_with(|| shape.worker(self.wanted, random));
        worker.draw(random)
    }

    fn push(&mut self, time: f64, function: u32, work: Work, line: usize) -> Result<(), Faulty> {
        if !self.is_beyond(time) {
            if self.calls.len() == CALLS_MAX {
                return Err(Faulty { line, why: "more calls than a run can hold" });
            }
            let due_ns = nanoseconds(time / self.wanted.speed);
            self.calls.push(Call { due_ns, function, work });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Scale;

    fn wanted(seconds: f64, speed: f64) -> Wanted {
        Wanted { seconds, speed, scale: Scale { duration: 1.0, heap: 1.0 }, seed: 1 }
    }

    fn calls(text: &str, seconds: f64, speed: f64) -> Result<Arc<[Call]>, Faulty> {
        read(text, &Extras::default(), &wanted(seconds, speed))
    }

    fn times(calls: &[Call]) -> Vec<(u64, u32)> {
        calls.iter().map(|call| (call.due_ns, call.function)).collect()
    }

    const COUNTS: &str =
        "HashOwner,HashApp,HashFunction,Trigger,1,2,3\na,b,c,http,2,0,1\na,b,d,timer,1,1,1\n";

    #[test]
    fn the_counts_of_2019_are_read() {
        let read = calls(COUNTS, 100.0, 60.0).unwrap();
        assert_eq!(read.len(), 6);
        // At sixty times its speed a minute is a second.
        let second = |index: u64| {
            let range = index * 1_000_000_000..(index + 1) * 1_000_000_000;
            read.iter().filter(|call| range.contains(&call.due_ns)).count()
        };
        assert_eq!((second(0), second(1), second(2)), (3, 1, 2));
        assert_eq!(calls(COUNTS, 2.0, 60.0).unwrap().len(), 4, "two minutes of it");
        let faulty = calls("HashOwner,HashApp,HashFunction,Trigger,1\na,b,c,http,x\n", 9.0, 1.0);
        assert_eq!(faulty, Err(Faulty { line: 2, why: "a count of calls is no number" }));
    }

    #[test]
    fn durations_and_heaps_of_2019_are_those_of_their_files() {
        let durations = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,\
            percentile_Average_1,percentile_Average_25,percentile_Average_50,percentile_Average_75,\
            percentile_Average_99,percentile_Average_100\na,b,c,5,9,1,9,1000,1000,1000,1000,1000,1000,2000\n";
        let heaps = "HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1,p5,p25,p50,p75,p95,\
            p99,p100\na,b,7,20,8,8,8,8,8,8,8,16\n";
        let extras = Extras {
            durations: Some(Durations::read(durations).unwrap()),
            heaps: Some(Heaps::read(heaps).unwrap()),
        };
        let read = super::read(COUNTS, &extras, &wanted(1000.0, 1.0)).unwrap();
        for call in read.iter() {
            let Work { us, kib, pages } = call.work;
            assert!((8192..=16_384).contains(&kib) && pages <= kib / 4, "{call:?}");
            let is_known = (1_000_000..=2_000_000).contains(&us);
            assert!(is_known || call.function == 1, "{call:?}: of the other nothing is told");
        }
        for (line, text) in [(2, durations.replace("2000", "200")), (1, heaps.to_owned())] {
            assert_eq!(Durations::read(&text).unwrap_err().line, line);
        }
        let wrong = super::read("1,0\n", &extras, &wanted(9.0, 1.0)).unwrap_err();
        assert!(wrong.why.contains("Azure 2019"), "{wrong}");
    }

    #[test]
    fn the_trace_of_2021_is_read_by_starts() {
        let text = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11.0,3.0\nb,f,12.0,1.0\n";
        let read = calls(text, 100.0, 1.0).unwrap();
        assert_eq!(times(&read), [(0, 1), (2_000_000_000, 0), (3_000_000_000, 2)]);
        let lasts: Vec<_> = read.iter().map(|call| call.work.us).collect();
        assert_eq!(lasts, [3_000_000, 500_000, 1_000_000]);
        assert!(calls("app,func,end_timestamp,duration\na,f,x,1\n", 9.0, 1.0).is_err());
    }

    #[test]
    fn columns_of_huawei_are_read_by_minutes_and_by_seconds() {
        let minutes = "day,time,0,1,2\n3,259200,2,,NaN\n3,259260,,1.0,\n";
        let read = calls(minutes, 1000.0, 1.0).unwrap();
        let functions: Vec<_> = read.iter().map(|call| call.function).collect();
        assert_eq!(functions, [0, 0, 1]);
        assert!(read[1].due_ns < 60_000_000_000 && 60_000_000_000 <= read[2].due_ns, "{read:?}");
        let seconds = "day,time,400---418---pool22-300-128\n0,0,2\n0,1,3\n";
        let read = calls(seconds, 1000.0, 1.0).unwrap();
        assert_eq!(read.len(), 5);
        assert!(read[4].due_ns < 2_000_000_000, "{read:?}");
        for (line, text) in [(2, "day,time,0\n0,0,x\n"), (3, "day,time,0\n0,60,1\n0,0,1\n")] {
            // Times that descend are found at once.
            let found = calls(text, 9.0, 1.0).unwrap_err().line;
            assert!(found == line || found == 2, "{text}: {found}");
        }
    }

    #[test]
    fn requests_of_huawei_are_read_with_duration_and_memory() {
        let text = "day,time_worker,time_frontend,requestID,clusterName,funcName,podID,userID,totalCost_worker,\
            workerCost,runtimeCost,memory_usage\n\
            30,2600186.5,0,aa,1,296,pool22-300-128-0000618412,224,0.1,0,0.05,32.0\n\
            30,2600185.5,0,ab,1,296,pool22-300-128-0000618413,224,0.1,0,0.02,16.0\n\
            30,2600187.5,0,ac,1,296,pool23-400-256-0000618413,224,0.1,0,0.02,16.0\n";
        let read = calls(text, 100.0, 1.0).unwrap();
        assert_eq!(times(&read), [(0, 0), (1_000_000_000, 0), (2_000_000_000, 1)]);
        assert_eq!((read[1].work.us, read[1].work.kib), (50_000, 32 * 1024));
        let lacks = calls("time_worker,funcName\n1,2\n", 9.0, 1.0).unwrap_err();
        assert!(lacks.why.contains("runtimeCost"), "{lacks}");
    }

    #[test]
    fn lines_of_ones_own_are_read() {
        let read = calls("1.5,2\n0.5\n\n2,1,1000,64,3\n", 100.0, 0.5).unwrap();
        assert_eq!(times(&read), [(1_000_000_000, 0), (3_000_000_000, 2), (4_000_000_000, 1)]);
        assert_eq!(read[0].work, Work::default());
        assert_eq!(read[2].work, Work { us: 1000, kib: 64, pages: 3 });
        for text in ["x", "1,y", "-1", "nan", "", "1,2,z", "1,2,3,4,-5"] {
            assert!(calls(text, 10.0, 1.0).is_err(), "{text}");
        }
    }
}
