//! Images of machines, as bytes: file systems, archives and headers that firmware, kernels and container
//! runtimes read.
//!
//! Invariants: nothing here needs root, a mount, a clock or chance; the same inputs give the same bytes, for
//! entries are sorted, times are constant, and names of partitions are made of the content. Nothing here
//! knows midge, its settings or its engine, so that it builds in seconds.
#![forbid(unsafe_code)]

pub mod tree; // what is to be in an image: folders, files, devices
pub mod program; // a static program, without what only debuggers read
pub mod kernel; // what a kernel's file is
pub mod modules; // a kernel's modules, in the order in which they are loaded
pub mod cpio; // a tree as the kernel's initramfs
pub mod uki; // kernel, command line and initramfs as one program of the firmware's
pub mod fat; // a FAT file system
pub mod gpt; // a table of partitions
pub mod entry; // names of images on a disk, with the tries that they have
pub mod disk; // a disk that firmware starts from, with a partition for data
pub mod iso; // the same as an image of a CD
pub mod oci; // a tree as a container's image
mod bytes; // little-endian fields at offsets
