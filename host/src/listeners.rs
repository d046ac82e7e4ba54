//! The sockets that workers accept from, as the settings ask for them.
//!
//! Of an internet address each worker has one of its own; a Unix socket and those of a service manager are
//! shared. A Unix socket's file goes when the host stops.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use core_affinity::CoreId;
use midge_net::Listener;
use midge_net::inherited::{self, Handover};
use midge_net::listen::{self, BACKLOG_DEFAULT, ListenOptions};

use crate::config::{Listen, ListenAddress, Settings, keys::LISTENS_MAX};

/// Where functions are served.
#[derive(Debug)]
pub struct Places(Vec<Place>);

#[derive(Debug)]
enum Place {
    Internet(SocketAddr),
    Local(SocketFile),
    Inherited(String),
}

/// A Unix socket's file: removed with this.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Places {
    /// Opens everything; returns the listeners of each worker beside it, in the order of the settings.
    ///
    /// # Errors
    /// The first that cannot be had, with its address.
    pub fn open(settings: &Settings, cpus: &[CoreId]) -> Result<(Self, Vec<Vec<Listener>>)> {
        let mut places = Vec::new();
        let mut workers: Vec<Vec<Listener>> = cpus.iter().map(|_| Vec::new()).collect();
        let mut inherited: Option<Vec<(String, Listener)>> = None;
        for listen in &settings.listen.value.0 {
            let failed = || format!("cannot listen on `{}`", listen.address);
            match &listen.address {
                ListenAddress::Internet(address) => {
                    let address = spread(settings, listen, *address, cpus, &mut workers)
                        .with_context(failed)?;
                    places.push(Place::Internet(address));
                }
                ListenAddress::Local(path) => {
                    let listener = listen::bind_local(path, listen.mode, BACKLOG_DEFAULT);
                    let listener = listener.with_context(failed)?;
                    places.push(Place::Local(SocketFile(path.clone())));
                    share(listen, &listener, &mut workers).with_context(failed)?;
                }
                ListenAddress::Inherited(name) => {
                    let all = match &mut inherited {
                        Some(all) => all,
                        none => none.insert(from_manager().with_context(failed)?),
                    };
                    let is_wanted =
                        |found: &str| name.as_ref().is_none_or(|name| name.as_str() == found);
                    let wanted: Vec<_> =
                        all.extract_if(.., |(found, _)| is_wanted(found)).collect();
                    anyhow::ensure!(
                        !wanted.is_empty(),
                        "cannot listen on `{}`: the service manager handed no such socket over; \
                         see the socket unit's ListenStream= and FileDescriptorName=",
                        listen.address
                    );
                    for (name, listener) in wanted {
                        let address = listener.address();
                        let place = address.map_or_else(|| Place::Inherited(name), Place::Internet);
                        places.push(place);
                        share(listen, &listener, &mut workers).with_context(failed)?;
                    }
                }
            }
        }
        let count = places.len();
        anyhow::ensure!(count <= LISTENS_MAX, "{count} places to listen at, at most {LISTENS_MAX}");
        Ok((Self(places), workers))
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the first internet address.
    #[must_use]
    pub fn internet(&self) -> Option<SocketAddr> {
        self.0.iter().find_map(|place| match place {
            Place::Internet(address) => Some(*address),
            _ => None,
        })
    }

    /// Returns each, as settings name it.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|place| match place {
            Place::Internet(address) => address.to_string(),
            Place::Local(SocketFile(path)) => format!("unix:{}", path.display()),
            Place::Inherited(name) => format!("systemd:{name}"),
        })
    }
}

impl fmt::Display for Places {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(place, address): (&Place, String)| match place {
            Place::Internet(_) => format!("http://{address}"),
            _ => address,
        };
        let all: Vec<_> = self.0.iter().zip(self.addresses()).map(shown).collect();
        formatter.write_str(&all.join(", "))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!("the socket {} stays: {error}", self.0.display());
        }
    }
}

/// Opens a listener of its own for each worker.
fn spread(
    settings: &Settings,
    listen: &Listen,
    address: SocketAddr,
    cpus: &[CoreId],
    workers: &mut [Vec<Listener>],
) -> std::io::Result<SocketAddr> {
    let leaves_v4 = settings.listen.value.leaves_v4(address);
    let mut options =
        ListenOptions { only_v6: leaves_v4.then_some(true), ..ListenOptions::default() };
    // Listeners of other processes that share their ports as ours do would take a part of the connections
    // without a word. A plain bind finds them; it is given up before the workers' own. One of IPv6 alone would
    // find our own of IPv4.
    if !leaves_v4 {
        listen::check_free(address)?;
    }
    let mut address = address;
    for (cpu, own) in cpus.iter().zip(workers) {
        options.incoming_cpu = settings.listen_on_cpu.value.then_some(cpu.id);
        let listener = listen::bind(address, &options)?;
        // A port that the kernel chose is the others' as well.
        address = listener.local_addr()?;
        own.push(Listener::from(listener).with_preface(listen.proxy_protocol));
    }
    Ok(address)
}

/// Gives each worker a descriptor of one socket.
fn share(
    listen: &Listen,
    listener: &Listener,
    workers: &mut [Vec<Listener>],
) -> std::io::Result<()> {
    for own in workers {
        own.push(listener.try_clone()?.with_preface(listen.proxy_protocol));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the manager's way to tell of its sockets")]
fn from_manager() -> std::io::Result<Vec<(String, Listener)>> {
    let variable = |name| std::env::var(name).ok();
    let (pid, count, names) =
        (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    inherited::take(Handover {
        pid: pid.as_deref(),
        count: count.as_deref(),
        names: names.as_deref(),
    })
}
