//! A new process for each cycle: pristine because it has only begun.
#![expect(unsafe_code, reason = "forks; the safe face is the ways")]

use std::ffi::CString;
use std::io;
use std::ptr;

use crate::mapping::{Slots, check, file_of};
use crate::{Plan, Way};

struct Forking {
    slots: Slots,
    /// Namespaces that the child leaves this process's for.
    namespaces: i32,
}

/// Makes the way by fork: this process, with its image, is the template.
pub(crate) fn fork(plan: &Plan) -> io::Result<Box<dyn Way>> {
    Ok(Box::new(Forking { slots: Slots::filled(&one(plan))?, namespaces: 0 }))
}

/// Makes the way by fork with namespaces, without a file system or limits of its own: less than any container.
pub(crate) fn namespaces(plan: &Plan) -> io::Result<Box<dyn Way>> {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let mut way = Forking { slots: Slots::filled(&one(plan))?, namespaces };
    // Needs rights that not everybody has: known before it is measured.
    way.cycle(0, &[])?;
    Ok(Box::new(way))
}

fn one(plan: &Plan) -> Plan {
    Plan { slots: 1, ..plan.clone() }
}

impl Way for Forking {
    fn cycle(&mut self, _slot: usize, pages: &[usize]) -> io::Result<()> {
        // SAFETY: the child calls nothing but `unshare`, writes to its own copy of the slots, and `_exit`: what is
        // safe after a fork of a process with threads.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                if self.namespaces != 0 && libc::unshare(self.namespaces) != 0 {
                    libc::_exit(1);
                }
                self.slots.write(0, pages);
                libc::_exit(0);
            }
        }
        wait(child)
    }

    fn is_pristine(&self, _slot: usize) -> bool {
        self.slots.is_pristine(0)
    }
}

struct Starting {
    words: Vec<CString>,
    forks: bool,
}

/// Makes the way by posix_spawn: the program maps the image anew and writes to it ([`write_and_exit`]).
pub(crate) fn spawn(plan: &Plan) -> io::Result<Box<dyn Way>> {
    start(plan, false)
}

/// Makes the same by fork and exec, as programs did before there was posix_spawn.
pub(crate) fn exec(plan: &Plan) -> io::Result<Box<dyn Way>> {
    start(plan, true)
}

fn start(plan: &Plan, forks: bool) -> io::Result<Box<dyn Way>> {
    if plan.program.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program to run"));
    }
    Ok(Box::new(Starting { words: plan.program.clone(), forks }))
}

impl Way for Starting {
    fn cycle(&mut self, _slot: usize, pages: &[usize]) -> io::Result<()> {
        let count = CString::new(pages.len().to_string())?;
        let mut words: Vec<*mut libc::c_char> =
            self.words.iter().chain([&count]).map(|word| word.as_ptr().cast_mut()).collect();
        words.push(ptr::null_mut());
        let none = [ptr::null_mut::<libc::c_char>()];
        if self.forks {
            // SAFETY: the child calls nothing but `execve` and `_exit`; the words are strings that live until
            // then, and both lists end with null.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe {
                    libc::execve(words[0], words.as_ptr().cast(), none.as_ptr().cast());
                    libc::_exit(127);
                }
            }
            return wait(child);
        }
        let mut child = 0;
        // SAFETY: the words are strings that live until the call returns, and both lists end with null.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut child,
                self.words[0].as_ptr(),
                ptr::null(),
                ptr::null(),
                words.as_ptr(),
                none.as_ptr(),
            )
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        wait(child)
    }

    fn is_pristine(&self, _slot: usize) -> bool {
        true
    }
}

fn wait(child: libc::pid_t) -> io::Result<()> {
    check(child)?;
    let mut status = 0;
    // SAFETY: the kernel writes the status where an integer lies; the child is ours.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    if status == 0 { Ok(()) } else { Err(io::Error::other("the child ended with an error")) }
}

/// What the new process does: maps an image and writes to so many of its pages, spread over it.
///
/// # Errors
/// If memory cannot be mapped.
pub fn write_and_exit(image_pages: usize, count: usize) -> io::Result<()> {
    let plan = Plan::new(image_pages, 1, Vec::new());
    let slots = Slots::of_file(&plan, &file_of(&plan)?)?;
    let pages: Vec<usize> = (0..count).map(|page| page * image_pages / count.max(1)).collect();
    slots.write(0, &pages);
    Ok(())
}
