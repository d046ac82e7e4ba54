//! The built program over real sockets, a module per capability.

mod boot; // the first process of a machine
mod bundles; // files that programs and components find
mod compress; // responses made smaller
mod connections; // keep-alive, pipelining, HEAD, many connections
mod dev; // `midge new` and `midge dev`
mod examples; // every example's expected answers
mod files; // files of folders
mod lines; // lines of the source in traps
mod listeners; // several addresses, Unix sockets, proxies, socket activation
mod limits; // slow, silent and too many peers
mod observe; // metrics, Server-Timing, log lines, traps
mod outgoing; // requests that functions make
mod programs; // programs of WASI
mod prove; // every example against fresh instances of itself
mod reload; // SIGHUP
mod remote; // logs and metrics that others are told
mod routes; // which function answers, and what is refused
mod streams; // bodies piece by piece
mod stop; // SIGTERM
mod unlinked; // components that the engine's runtime runs
mod techniques; // every way to start an instance
mod trailers; // fields behind bodies, both ways
