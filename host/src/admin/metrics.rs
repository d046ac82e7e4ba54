//! The counters as OpenMetrics text, and the table from which the manual's is generated.
//!
//! A function's series appear with its first request: of a hundred thousand functions most rest.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use midge_abi::problem::Problem;
use midge_loader::{slot::Discard, start::Tier};
use midge_net::RingTier;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::log::remote;
use crate::stats::{
    Counter, FUNCTION_HISTOGRAMS_MAX, FunctionStats, HostStats, Stats, WorkerStats,
    histogram::HistogramSnapshot,
};

/// Content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bounds of exported buckets: `2^BITS` nanoseconds, from 256 ns to 17 s.
const BUCKET_BITS: std::ops::RangeInclusive<u32> = 8..=34;

const _: () = assert!(FUNCTION_HISTOGRAMS_MAX == 256, "the help texts below say so");

/// The text's source.
#[derive(Debug)]
pub struct Metrics(Registry);

/// One family of metrics.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name without `_total`, `_seconds` and the like.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Where its numbers come from.
    source: Source,
}

/// Where the numbers of a family come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Version,
    RingTier,
    Draining,
    HostCount(fn(&HostStats) -> u64),
    WorkerGauge(fn(&WorkerStats) -> u64),
    WorkerCount(fn(&WorkerStats) -> u64),
    WorkerTimes(fn(&WorkerStats) -> HistogramSnapshot),
    Unrouted,
    FunctionCount(fn(&FunctionStats) -> &Counter),
    FunctionRefused,
    FunctionStarts,
    FunctionDiscards,
    FunctionTimes(fn(&Stats, usize) -> Option<HistogramSnapshot>),
}

const fn family(
    name: &'static str,
    labels: &'static [&'static str],
    source: Source,
    help: &'static str,
) -> Family {
    Family { name, help, labels, source }
}

/// All families, in the order of the text and of the manual.
pub const FAMILIES: &[Family] = &[
    family("midge_build", &["version"], Source::Version, "The program's version"),
    family("midge_ring", &["tier"], Source::RingTier, "The way to the kernel that workers take"),
    family("midge_draining", &[], Source::Draining, "1 while the host is about to stop, else 0"),
    family(
        "midge_connections",
        &["worker"],
        Source::WorkerGauge(|worker| worker.connections.get()),
        "Open connections",
    ),
    family(
        "midge_connections_accepted",
        &["worker"],
        Source::WorkerCount(|worker| worker.accepted.get()),
        "Connections accepted",
    ),
    family(
        "midge_connections_shed",
        &["worker"],
        Source::WorkerCount(|worker| worker.shed.get()),
        "Connections that waited longest and gave way at `connections_per_worker`",
    ),
    family(
        "midge_connections_crowded",
        &["worker"],
        Source::WorkerCount(|worker| worker.crowded.get()),
        "Connections closed beyond `connections_per_source`",
    ),
    family(
        "midge_connections_passed",
        &["worker"],
        Source::WorkerCount(|worker| worker.passed.get()),
        "Connections sent to a worker with fewer; accepted by both",
    ),
    family(
        "midge_file_waits",
        &["worker"],
        Source::WorkerCount(|worker| worker.file_waits.get()),
        "Opens and reads of files that had to wait for a disk, and were done by a thread",
    ),
    family(
        "midge_prefaces_refused",
        &["worker"],
        Source::WorkerCount(|worker| worker.prefaces_refused.get()),
        "Connections closed for what stood in place of the PROXY protocol, or for who said it",
    ),
    family(
        "midge_ring_enters",
        &["worker"],
        Source::WorkerCount(|worker| worker.ring_enters.get()),
        "System calls that entered the ring",
    ),
    family(
        "midge_queue_depth",
        &["worker"],
        Source::WorkerGauge(|worker| worker.queue_depth.get()),
        "Calls that wait for their next slice",
    ),
    family(
        "midge_calls_parked",
        &["worker"],
        Source::WorkerGauge(|worker| worker.parked.get()),
        "Calls that wait for their client or for time to pass",
    ),
    family(
        "midge_outgoing_requests",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches.get()),
        "Requests that functions made of other servers",
    ),
    family(
        "midge_outgoing_failed",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches_failed.get()),
        "Those that had no whole response",
    ),
    family(
        "midge_outgoing_reused",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches_reused.get()),
        "Those that went out on a connection that had rested",
    ),
    family(
        "midge_outgoing_repeated",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches_repeated.get()),
        "Those that were sent anew, for that connection had been closed",
    ),
    family(
        "midge_outgoing_connections",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches_connected.get()),
        "Connections to other servers that were begun",
    ),
    family(
        "midge_outgoing_denied",
        &["worker"],
        Source::WorkerCount(|worker| worker.fetches_denied.get()),
        "Requests to other servers, or addresses of theirs, that nothing grants",
    ),
    family(
        "midge_bodies_reserved_bytes",
        &["worker"],
        Source::WorkerGauge(|worker| worker.bodies_bytes.get()),
        "What request bodies and streams have reserved of `bodies`",
    ),
    family(
        "midge_body_read_bytes",
        &["worker"],
        Source::WorkerCount(|worker| worker.body_read_bytes.get()),
        "Request bodies that functions read piece by piece",
    ),
    family(
        "midge_response_written_bytes",
        &["worker"],
        Source::WorkerCount(|worker| worker.response_written_bytes.get()),
        "Response bodies that functions wrote piece by piece",
    ),
    family(
        "midge_requests",
        &["worker"],
        Source::WorkerCount(|worker| worker.requests.get()),
        "Requests read, with those that no function got",
    ),
    family(
        "midge_unrouted",
        &["problem"],
        Source::Unrouted,
        "Requests that no function got, by their refusal",
    ),
    family(
        "midge_call_cpu",
        &["worker"],
        Source::WorkerTimes(|worker| worker.cpu_ns.snapshot()),
        "CPU time of calls that were not suspended, of one request in 16",
    ),
    family(
        "midge_service",
        &["worker"],
        Source::WorkerTimes(|worker| worker.service_ns.snapshot()),
        "Time from a request's parsing to its response's hand-over, of one request in 16",
    ),
    family(
        "midge_log_dropped",
        &["worker"],
        Source::WorkerCount(|worker| worker.log_dropped.get()),
        "Records of the log that found no room",
    ),
    family(
        "midge_syslog_dropped",
        &[],
        Source::HostCount(|_| remote::lost()),
        "Lines that the server of logs was not told: it took none, or they found no room",
    ),
    family(
        "midge_push_failures",
        &[],
        Source::HostCount(|host| host.pushes_failed.load(Relaxed)),
        "Pushes of metrics that failed",
    ),
    family(
        "midge_function_requests",
        &["function"],
        Source::FunctionCount(|function| &function.requests),
        "Requests routed to the function, or to the folder of files",
    ),
    family(
        "midge_function_refused",
        &["function", "problem"],
        Source::FunctionRefused,
        "Requests of the function that got a problem report, by its slug",
    ),
    family(
        "midge_function_starts",
        &["function", "tier"],
        Source::FunctionStarts,
        "Instances that requests got, by how they came to be",
    ),
    family(
        "midge_function_dirty_pages",
        &["function"],
        Source::FunctionCount(|function| &function.dirty_pages),
        "Memory pages that calls wrote to",
    ),
    family(
        "midge_function_fuel",
        &["function"],
        Source::FunctionCount(|function| &function.fuel),
        "Instructions of calls, of functions that are metered by fuel",
    ),
    family(
        "midge_function_outgoing",
        &["function"],
        Source::FunctionCount(|function| &function.fetches),
        "Requests that the function's calls made of other servers",
    ),
    family(
        "midge_function_discards",
        &["function", "reason"],
        Source::FunctionDiscards,
        "Slots given up instead of restored",
    ),
    family(
        "midge_function_call_cpu",
        &["function"],
        Source::FunctionTimes(Stats::function_cpu_ns),
        "CPU time of the function's calls; for the first 256 functions",
    ),
    family(
        "midge_function_service",
        &["function"],
        Source::FunctionTimes(Stats::function_service_ns),
        "Service time of the function's requests; for the first 256 functions",
    ),
];

#[derive(Debug)]
struct StatsCollector {
    stats: Arc<Stats>,
    host: Arc<HostStats>,
    ring_tier: RingTier,
}

impl Metrics {
    /// Makes the source.
    #[must_use]
    pub fn new(stats: Arc<Stats>, host: Arc<HostStats>, ring_tier: RingTier) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(StatsCollector { stats, host, ring_tier }));
        Self(registry)
    }

    /// Returns the text of this moment.
    ///
    /// # Panics
    /// Never: writing to a string does not fail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes what it is given");
        text
    }

    /// Returns the same in the older format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn classic_text(&self) -> String {
        classic(&self.text())
    }
}

/// Turns our OpenMetrics text into the format of Prometheus: a family has the name of its samples, an info is a gauge,
/// and there is no unit and no end.
fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), kind) = (words.next(), words.next()) else {
            classic += line;
            classic.push('\n');
            continue;
        };
        let (name, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match kind {
            // It stands before the kind, on which the name depends.
            Some("HELP") => help = Some(rest),
            Some("TYPE") => {
                let (suffix, kind) = match rest {
                    "counter" => ("_total", rest),
                    "info" => ("_info", "gauge"),
                    _ => ("", rest),
                };
                if let Some(help) = help.take() {
                    classic += &format!("# HELP {name}{suffix} {help}\n");
                }
                classic += &format!("# TYPE {name}{suffix} {kind}\n");
            }
            _ => {}
        }
    }
    classic
}

/// Returns the manual's table.
#[must_use]
pub fn manual_table() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Family { name, help, labels, source } in FAMILIES {
        let (kind, suffix) = match source.kind() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", "_seconds"),
            MetricType::Info => ("info", "_info"),
            _ => ("unknown", ""),
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{name}{suffix}` | {kind} | {} | {help} |\n", labels.join(" "));
    }
    text
}

impl Source {
    const fn kind(self) -> MetricType {
        match self {
            Self::Version | Self::RingTier => MetricType::Info,
            Self::Draining | Self::WorkerGauge(_) => MetricType::Gauge,
            Self::WorkerTimes(_) | Self::FunctionTimes(_) => MetricType::Histogram,
            _ => MetricType::Counter,
        }
    }
}

impl Collector for StatsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            let kind = family.source.kind();
            let unit = matches!(kind, MetricType::Histogram).then_some(&Unit::Seconds);
            let metric = encoder.encode_descriptor(family.name, family.help, unit, kind)?;
            self.encode_family(family, metric)?;
        }
        Ok(())
    }
}

impl StatsCollector {
    fn encode_family(&self, family: &Family, mut metric: MetricEncoder<'_>) -> fmt::Result {
        match family.source {
            Source::RingTier => metric.encode_info(&[("tier", self.ring_tier.name())]),
            Source::Version => metric.encode_info(&[("version", env!("CARGO_PKG_VERSION"))]),
            Source::Draining => {
                metric.encode_gauge(&i64::from(self.host.is_draining.load(Relaxed)))
            }
            Source::HostCount(number) => count(&mut metric, number(&self.host)),
            Source::WorkerGauge(number) => self.each_worker(|labels, worker| {
                let value = i64::try_from(number(worker)).unwrap_or(i64::MAX);
                metric.encode_family(labels)?.encode_gauge(&value)
            }),
            Source::WorkerCount(number) => self.each_worker(|labels, worker| {
                count(&mut metric.encode_family(labels)?, number(worker))
            }),
            Source::WorkerTimes(times) => self.each_worker(|labels, worker| {
                histogram(&mut metric.encode_family(labels)?, &times(worker))
            }),
            Source::Unrouted => self.unrouted(&mut metric),
            Source::FunctionCount(number) => self.each_function(|index, name| {
                let sum = self.stats.function_sum(index, number);
                count(&mut metric.encode_family(&[("function", name)])?, sum)
            }),
            Source::FunctionRefused => {
                let slugs = Problem::ALL.map(|problem| problem.row().slug);
                self.by_kind(&mut metric, "problem", &slugs, |stats, kind| &stats.problems[kind])
            }
            Source::FunctionStarts => {
                let tiers = Tier::ALL.map(Tier::name);
                self.by_kind(&mut metric, "tier", &tiers, |stats, kind| &stats.starts[kind])
            }
            Source::FunctionDiscards => {
                let reasons = Discard::ALL.map(Discard::name);
                self.by_kind(&mut metric, "reason", &reasons, |stats, kind| &stats.discards[kind])
            }
            Source::FunctionTimes(times) => self.each_function(|index, name| {
                let Some(times) = times(&self.stats, index) else { return Ok(()) };
                histogram(&mut metric.encode_family(&[("function", name)])?, &times)
            }),
        }
    }

    fn unrouted(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        for problem in Problem::ALL {
            let workers = self.stats.workers().iter();
            let sum = workers.map(|worker| worker.problems[problem.index()].get()).sum();
            if sum > 0 {
                count(&mut metric.encode_family(&[("problem", problem.row().slug)])?, sum)?;
            }
        }
        Ok(())
    }

    fn by_kind(
        &self,
        metric: &mut MetricEncoder<'_>,
        label: &'static str,
        names: &[&'static str],
        number: fn(&FunctionStats, usize) -> &Counter,
    ) -> fmt::Result {
        self.each_function(|index, function| {
            for (kind, name) in names.iter().enumerate() {
                let sum = self.stats.function_sum(index, |stats| number(stats, kind));
                if sum > 0 {
                    let labels = [("function", function), (label, *name)];
                    count(&mut metric.encode_family(&labels)?, sum)?;
                }
            }
            Ok(())
        })
    }

    fn each_worker(
        &self,
        mut encode: impl FnMut(&[(&'static str, String); 1], &WorkerStats) -> fmt::Result,
    ) -> fmt::Result {
        let mut workers = self.stats.workers().iter().enumerate();
        workers.try_for_each(|(index, worker)| encode(&[("worker", index.to_string())], worker))
    }

    fn each_function(&self, mut encode: impl FnMut(usize, &str) -> fmt::Result) -> fmt::Result {
        for (index, name) in self.stats.function_names().iter().enumerate() {
            if self.stats.function_sum(index, |function| &function.requests) > 0 {
                encode(index, name)?;
            }
        }
        Ok(())
    }
}

fn count(metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn histogram(metric: &mut MetricEncoder<'_>, snapshot: &HistogramSnapshot) -> fmt::Result {
    let mut buckets = Vec::new();
    let mut below = 0;
    // A bound counts what is shorter; the format says "or equal", a difference of one nanosecond.
    for bits in BUCKET_BITS {
        let so_far = snapshot.count_below_power(bits);
        buckets.push((seconds(1 << bits), so_far - below));
        below = so_far;
    }
    let count = snapshot.count();
    buckets.push((f64::INFINITY, count - below));
    metric.encode_histogram::<NoLabelSet>(seconds(snapshot.sum_ns()), count, &buckets, None)
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::route::FunctionIndex;

    /// Checks each line: families described once and before their samples, samples of the kind's suffixes,
    /// numbers that are numbers, cumulative buckets that end in `+Inf`, and `# EOF` at the end.
    pub(in crate::admin) fn check_open_metrics(text: &str) {
        let body = text.strip_suffix("# EOF\n").expect("the text ends in # EOF");
        let mut kinds: HashMap<&str, &str> = HashMap::new();
        let mut buckets: HashMap<String, f64> = HashMap::new();
        let mut counts: HashMap<String, f64> = HashMap::new();
        let mut family = "";
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (word, name) = (words.next().unwrap(), words.next().unwrap());
                let rest = words.next().unwrap_or("");
                if word == "TYPE" {
                    assert!(kinds.insert(name, rest).is_none(), "{name} is described twice");
                    family = name;
                }
                assert!(matches!(word, "HELP" | "TYPE" | "UNIT"), "{line}");
                if word == "UNIT" {
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            assert!(labels.is_empty() || labels.ends_with('}'), "{line}");
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
            let allowed: &[&str] = match kinds[family] {
                "counter" => &["_total", "_created"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count", "_created"],
                other => panic!("kind {other}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            let labels = labels.trim_end_matches('}').split(',');
            let (bounds, others): (Vec<_>, Vec<_>) =
                labels.partition(|label| label.starts_with("le="));
            let key = format!("{family}{others:?}");
            match suffix {
                "_count" => drop(counts.insert(key, value)),
                "_bucket" => {
                    let last = buckets.entry(key.clone()).or_insert(0.0);
                    assert!(*last <= value, "buckets are cumulative: {line}");
                    *last = value;
                    if bounds == ["le=\"+Inf\""] {
                        assert_eq!(counts.remove(&key), Some(value), "{line}");
                    }
                }
                _ => {}
            }
        }
        assert!(counts.is_empty(), "each histogram ends in +Inf: {counts:?}");
        assert!(!body.contains("\n\n"));
    }

    fn busy() -> Metrics {
        let (stats, writers) = Stats::new(2, &["hello".into(), "idle".into()]);
        let hello = FunctionIndex(0);
        for writer in &writers {
            writer.connections(1, 1);
            writer.request_routed(hello);
            writer.started(hello, Tier::T3);
            writer.dirtied(hello, 3);
            writer.discarded(hello, Discard::Heavy);
            writer.refused(hello, Problem::DeadlineExceeded);
            writer.call_took(hello, 900);
            writer.service_took(hello, 100_000_000_000);
            writer.request_unrouted(Problem::NotFound);
        }
        Metrics::new(stats, Arc::default(), RingTier::A)
    }

    #[test]
    fn the_text_is_open_metrics() {
        check_open_metrics(&busy().text());
    }

    #[test]
    fn the_older_format_names_families_as_their_samples() {
        let text = busy().classic_text();
        for lines in [
            "# HELP midge_build_info The program's version\n# TYPE midge_build_info gauge\nmidge_build_info{version=\"",
            "# TYPE midge_requests_total counter\nmidge_requests_total{worker=\"0\"} 2\n",
            "# TYPE midge_draining gauge\nmidge_draining 0\n",
            "# TYPE midge_service_seconds histogram\nmidge_service_seconds_sum{worker=\"0\"} ",
            "# TYPE midge_push_failures_total counter\nmidge_push_failures_total 0\n",
        ] {
            assert!(text.contains(lines), "{lines}\n{text}");
        }
        assert!(!text.contains("# UNIT") && !text.contains("# EOF") && !text.contains(" info\n"));
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&busy().text()));
    }

    #[test]
    fn functions_are_summed_over_workers_and_idle_ones_left_out() {
        let text = busy().text();
        for line in [
            "midge_draining 0",
            "midge_connections{worker=\"1\"} 1",
            "midge_requests_total{worker=\"0\"} 2",
            "midge_unrouted_total{problem=\"not-found\"} 2",
            "midge_function_starts_total{function=\"hello\",tier=\"T3\"} 2",
            "midge_function_dirty_pages_total{function=\"hello\"} 6",
            "midge_function_discards_total{function=\"hello\",reason=\"heavy\"} 2",
            "midge_function_refused_total{function=\"hello\",problem=\"deadline-exceeded\"} 2",
            "midge_function_call_cpu_seconds_count{function=\"hello\"} 2",
            "midge_function_call_cpu_seconds_bucket{le=\"0.000001024\",function=\"hello\"} 2",
            "midge_function_service_seconds_bucket{le=\"+Inf\",function=\"hello\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("idle"));
    }
}
