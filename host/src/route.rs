//! Which function answers a request: an immutable table, made from the settings.
//!
//! Order: the request's host before any host; within one of them an exact path before the longest prefix.
//! A path that the host's own table does not have is looked up in the table for any host. Paths are compared
//! as the raw bytes of the request, before `?`, without decoding (see `config/pattern.rs`).
//!
//!   hosts    [ example.org | www.example.org ]          sorted; binary search
//!   exact    [ /a | /a/b | /c ]                         sorted; binary search
//!   prefix   [ / | /a/ | /a/b/ | /c/ ]                  sorted; binary search finds the last one <= path,
//!              ^----'^-----'     |                      then up the parents until one is a prefix
//!              ^-----------------'
//!
//! Invariant: the cost is bounded by the table and the path's length, whatever the bytes are: every prefix
//! of the path that the table holds is the entry found by the search or one of its parents, so no hash can be
//! made to collide and no pattern to backtrack.
//!
//! Not here: methods. The caller asks `Function::methods` and answers 405 with what it shows as `Allow`.
//! Hot path: `route`.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::config::{Pattern, pattern::HOST_BYTES_MAX};

/// A target's position in the settings: functions, then folders of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionIndex(pub u32);

/// All routes of a host.
#[derive(Debug)]
pub struct RouteTable {
    /// INVARIANT: sorted by name, names in lower case.
    hosts: Vec<(Box<[u8]>, Paths)>,
    any_host: Paths,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Paths {
    /// INVARIANT: sorted by path.
    exact: Vec<(Box<[u8]>, FunctionIndex)>,
    /// INVARIANT: sorted by path; a parent lies before its children.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    path: Box<[u8]>,
    /// The longest other prefix that this one starts with.
    parent: Option<usize>,
    function: FunctionIndex,
}

impl RouteTable {
    /// Makes the table from host and routes of each target. A target's index is its position.
    ///
    /// # Panics
    /// If there are more targets than an index counts: settings bound them far below.
    #[must_use]
    pub fn new<'a>(targets: impl IntoIterator<Item = (Option<&'a str>, &'a [Pattern])>) -> Self {
        let mut hosts: BTreeMap<&[u8], Paths> = BTreeMap::new();
        let mut any_host = Paths::default();
        for (position, (host, routes)) in targets.into_iter().enumerate() {
            let index = u32::try_from(position).expect("bounded by FUNCTIONS_MAX");
            let paths = match host {
                Some(host) => hosts.entry(host.as_bytes()).or_default(),
                None => &mut any_host,
            };
            for pattern in routes {
                paths.add(pattern, FunctionIndex(index));
            }
        }
        let sorted = |(host, paths): (&[u8], Paths)| (host.into(), paths.sorted());
        Self { hosts: hosts.into_iter().map(sorted).collect(), any_host: any_host.sorted() }
    }

    /// Returns the function for a request, given its Host header (with or without port) and its path.
    ///
    /// # Cost
    /// No allocation. Binary searches over hosts, paths and prefixes, each comparison linear in the path.
    #[must_use]
    pub fn route(&self, host: &[u8], path: &[u8]) -> Option<FunctionIndex> {
        let own = if self.hosts.is_empty() { None } else { self.host(host) };
        own.and_then(|paths| paths.route(path)).or_else(|| self.any_host.route(path))
    }

    fn host(&self, host: &[u8]) -> Option<&Paths> {
        let name = without_port(host);
        if name.len() > HOST_BYTES_MAX {
            return None;
        }
        let found = self.hosts.binary_search_by(|(known, _)| compare_lower(known, name));
        found.ok().map(|position| &self.hosts[position].1)
    }
}

impl Paths {
    fn add(&mut self, pattern: &Pattern, function: FunctionIndex) {
        match pattern {
            Pattern::Exact(path) => self.exact.push((path.as_bytes().into(), function)),
            Pattern::Prefix(path) => {
                let path = path.as_bytes().into();
                self.prefixes.push(Prefix { path, parent: None, function });
            }
        }
    }

    fn sorted(mut self) -> Self {
        self.exact.sort_unstable();
        self.prefixes.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        let mut open: Vec<usize> = Vec::new(); // the prefixes that the current one may start with
        for position in 0..self.prefixes.len() {
            let path = &self.prefixes[position].path;
            while open.last().is_some_and(|last| !path.starts_with(&self.prefixes[*last].path)) {
                open.pop();
            }
            self.prefixes[position].parent = open.last().copied();
            open.push(position);
        }
        self
    }

    fn route(&self, path: &[u8]) -> Option<FunctionIndex> {
        match self.exact.binary_search_by(|(known, _)| (**known).cmp(path)) {
            Ok(position) => Some(self.exact[position].1),
            Err(_) => self.longest_prefix(path),
        }
    }

    fn longest_prefix(&self, path: &[u8]) -> Option<FunctionIndex> {
        let after = self.prefixes.partition_point(|prefix| *prefix.path <= *path);
        let last = self.prefixes.get(after.checked_sub(1)?)?;
        // What the entry and the path share bounds every parent too, so each step up is one comparison
        // of lengths.
        let shared = last.path.iter().zip(path).take_while(|(left, right)| left == right).count();
        let mut candidate = last;
        while candidate.path.len() > shared {
            candidate = &self.prefixes[candidate.parent?];
        }
        Some(candidate.function)
    }
}

/// Returns a Host header's name: without port, and without the final dot of a rooted name.
fn without_port(host: &[u8]) -> &[u8] {
    let name = match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if host[at] == b':' => &host[..at],
        _ => host,
    };
    name.strip_suffix(b".").unwrap_or(name)
}

/// Compares a name in lower case with one in any case.
fn compare_lower(known: &[u8], name: &[u8]) -> Ordering {
    known.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Function, Overrides, Setting, Settings};

    pub(super) fn function(host: Option<&str>, routes: &[Pattern]) -> Function {
        let mut settings = Settings::of_one(Path::new("x.wasm"), &Overrides::default());
        let mut function = settings.functions.remove(0);
        function.host = Setting::default(host.map(str::to_owned));
        function.routes = Setting::default(routes.to_vec());
        function
    }

    fn target(function: &Function) -> (Option<&str>, &[Pattern]) {
        (function.host.value.as_deref(), &function.routes.value)
    }

    pub(super) fn table_of(functions: &[Function]) -> RouteTable {
        RouteTable::new(functions.iter().map(target))
    }

    fn parsed(host: Option<&str>, routes: &[&str]) -> Function {
        let routes: Vec<_> = routes.iter().map(|route| Pattern::parse(route).unwrap()).collect();
        function(host, &routes)
    }

    #[track_caller]
    fn check(table: &RouteTable, host: &str, path: &str, expected: Option<u32>) {
        let found = table.route(host.as_bytes(), path.as_bytes());
        assert_eq!(found, expected.map(FunctionIndex), "{host} {path}");
    }

    #[test]
    fn exact_before_longest_prefix() {
        let table = table_of(&[
            parsed(None, &["/a"]),
            parsed(None, &["/*"]),
            parsed(None, &["/a/*"]),
            parsed(None, &["/a/b/*", "/a/bc"]),
        ]);
        for (path, expected) in [
            ("/a", 0),
            ("/a/", 2),
            ("/a/x", 2),
            ("/a/b", 2),
            ("/a/b/", 3),
            ("/a/b/c/d", 3),
            ("/a/bc", 3),
            ("/a/bd", 2),
            ("/b", 1),
            ("/", 1),
        ] {
            check(&table, "", path, Some(expected));
        }
        check(&table, "", "*", None);
        check(&table, "", "", None);
    }

    #[test]
    fn the_host_before_any_host() {
        let table = table_of(&[
            parsed(None, &["/a", "/*"]),
            parsed(Some("example.org"), &["/b/*"]),
            parsed(Some("[::1]"), &["/a"]),
        ]);
        for (host, path, expected) in [
            ("example.org", "/b/c", 1),
            ("EXAMPLE.org:8080", "/b/c", 1),
            ("example.org.", "/b/c", 1),
            ("example.org", "/a", 0),
            ("example.com", "/b/c", 0),
            ("[::1]:80", "/a", 2),
            ("[::1]", "/a", 2),
            ("", "/a", 0),
        ] {
            check(&table, host, path, Some(expected));
        }
    }

    #[test]
    fn paths_are_not_decoded() {
        let table = table_of(&[parsed(None, &["/caf%C3%A9"])]);
        check(&table, "", "/caf%C3%A9", Some(0));
        check(&table, "", "/caf%c3%a9", None);
        check(&table, "", "/x/../caf%C3%A9", None);
    }
}

#[cfg(test)]
mod props {
    use proptest::prelude::*;

    use super::tests::{function, table_of};
    use super::*;
    use crate::config::Function;

    /// The naive twin: looks at every route of every function.
    fn linear(functions: &[Function], host: &str, path: &[u8]) -> Option<FunctionIndex> {
        let rank = |function: &Function, pattern: &Pattern| {
            let is_own = match &function.host.value {
                Some(own) if own == host => true,
                Some(_) => return None,
                None => false,
            };
            match pattern {
                Pattern::Exact(exact) if exact.as_bytes() == path => {
                    Some((is_own, true, exact.len()))
                }
                Pattern::Prefix(prefix) if path.starts_with(prefix.as_bytes()) => {
                    Some((is_own, false, prefix.len()))
                }
                _ => None,
            }
        };
        let mut best = None;
        for (index, function) in (0..).zip(functions) {
            for pattern in &function.routes.value {
                best = best.max(rank(function, pattern).map(|rank| (rank, FunctionIndex(index))));
            }
        }
        best.map(|(_, index)| index)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            "(/[ab]{0,2}){1,4}".prop_map(Pattern::Exact),
            "/([ab]{0,2}/){0,4}".prop_map(Pattern::Prefix),
        ]
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_linear_search(
            routes in proptest::collection::btree_set((0..3usize, pattern()), 0..40),
            paths in proptest::collection::vec("(/[abc]{0,2}){0,5}", 1..20),
        ) {
            // One function for each route: hosts and routes are unique together, as settings check.
            let hosts = [None, Some("a"), Some("b")];
            let functions: Vec<_> =
                routes.iter().map(|(host, pattern)| function(hosts[*host], std::slice::from_ref(pattern))).collect();
            let table = table_of(&functions);
            for path in &paths {
                for host in ["a", "b", "c"] {
                    let path = path.as_bytes();
                    prop_assert_eq!(table.route(host.as_bytes(), path), linear(&functions, host, path));
                }
            }
        }

        #[test]
        fn any_bytes_are_routed_or_not(host in any::<Vec<u8>>(), path in any::<Vec<u8>>()) {
            let table = table_of(&[function(Some("a"), &[Pattern::Prefix("/".into())])]);
            prop_assert!(table.route(&host, &path).is_none() || path.starts_with(b"/"));
        }
    }
}
