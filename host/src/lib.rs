//! The parts of the `midge` program.
//!
//! A library only so that the program's own tests and its generated documentation can reach them: nothing
//! else depends on this package.
#![forbid(unsafe_code)]

pub mod cli; // the command line
pub mod commands; // one file for each command
pub mod config; // midge.toml, environment and flags become settings, each with its origin
pub mod files; // files of folders
pub mod forwarded; // the client behind proxies
pub mod host; // everything that runs, started, reloaded and stopped together
pub mod worker; // one worker: the way of a request
pub mod route; // host and path to a function
pub mod plan; // how many slots fit into the process's mappings
pub mod shelf; // the slots of all functions on one worker, and which give way
pub mod slots; // the slots of one function on one worker
pub mod budget; // the memory that clients may make a host take
pub mod call; // a request into a guest's memory, a response out of it
pub mod certificates; // whose certificates outgoing requests trust
pub mod grant; // what a function may reach
pub mod extras; // arguments and environment of programs
pub mod compress; // responses made smaller
pub mod compile; // a module compiled in a child process, within limits
pub mod deployment; // functions loaded, and the routes to them
pub mod services; // clocks, chance and log of the guests
pub mod deadline; // slices and the coarse clock
pub mod stats; // counters: a worker writes, the admin thread reads
pub mod listeners; // the sockets that workers accept from
pub mod log; // the host's own log, and that of the data plane
pub mod syslog; // lines to a server of logs
pub mod push; // metrics to those who cannot ask for them
pub mod admin; // health and metrics over HTTP
pub mod tuning; // what a machine that does nothing else is set to
pub mod doctor; // what the machine offers
pub mod prove; // the requests that a proof is made with
pub mod notify; // what a host tells whoever started it
pub mod image; // what lies in an image of a machine
pub mod update; // images that replace the one that runs, signed
pub mod boot; // midge as the first process of a machine
pub mod output; // the one place that prints
