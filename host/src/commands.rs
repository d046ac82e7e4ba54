//! One file for each command: it takes the arguments, does the work, and prints through `output`.

pub mod build; // module in, artifact out
pub mod check; // what is wrong with a settings file
pub mod dev; // builds and serves again with each change
pub mod demo; // the newcomer's first minute
pub mod doctor; // what the machine offers
pub mod image; // an image of a machine
pub mod inspect; // what is in a module or an artifact
pub mod invoke; // one call without a network
pub mod new; // a folder to begin with
pub mod prove; // a technique's instances against fresh ones
pub mod serve; // `serve` and `run`
