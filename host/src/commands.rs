//! One file for each command: it takes the arguments, does the work, and prints through `output`.

pub mod check; // what is wrong with a settings file
pub mod doctor; // what the machine offers
