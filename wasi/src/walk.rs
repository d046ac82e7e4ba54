//! Paths, which lead to files of a bundle as to those in memory.
//!
//! A path is resolved as the kernel does beneath a folder (`openat2` with `RESOLVE_BENEATH`): part by part, links
//! where they stand, and nothing leads above the folder that the caller holds.

use crate::preview1::Errno;
use crate::wire;

/// Longest path, as Linux has it: with the zero behind it, 4096.
pub const PATH_BYTES_MAX: u32 = 4095;
/// Longest part of a path.
pub const NAME_BYTES_MAX: usize = 255;
/// Most links on the way of one path.
pub const LINKS_MAX: usize = 40;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A link.
    Link,
}

/// Folders, files and links that paths lead to.
pub trait Tree<'a>: Copy {
    /// Returns what a node is.
    ///
    /// # Errors
    /// [`Errno::Io`] where the tree is broken, here and below.
    fn kind(self, node: u32) -> Result<Type, Errno>;
    /// Returns the folder that a folder lies in.
    ///
    /// # Errors
    /// As above.
    fn parent(self, folder: u32) -> Result<u32, Errno>;
    /// Finds a folder's child.
    ///
    /// # Errors
    /// As above.
    fn child(self, folder: u32, name: &[u8]) -> Result<Option<u32>, Errno>;
    /// Returns where a link leads.
    ///
    /// # Errors
    /// As above.
    fn target(self, link: u32) -> Result<&'a [u8], Errno>;
}

/// Where a path leads.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The node; `None` for a name that its folder does not have.
    pub found: Option<u32>,
    /// The folder that has the name, or lacks it.
    pub folder: u32,
    /// The name; `.` or `..` where the path ends in one, and names a folder that is known by another.
    pub name: &'a [u8],
    /// A slash follows the name.
    pub is_slashed: bool,
}

/// Finds where a path leads from a folder. A link in its last part is followed if that is asked for.
///
/// # Errors
/// Those that the kernel gives, and [`Errno::NotPermitted`] for a path that would leave the folder.
///
/// # Cost
/// Per part, the tree's way to find a child.
pub fn walk<'a>(
    tree: impl Tree<'a>,
    base: u32,
    path: &'a [u8],
    follows: bool,
) -> Result<Spot<'a>, Errno> {
    if wire(path.len()) > PATH_BYTES_MAX {
        return Err(Errno::NameTooLong);
    }
    if path.contains(&0) {
        return Err(Errno::Invalid);
    }
    match path.first() {
        None => return Err(Errno::NoEntry),
        Some(b'/') => return Err(Errno::NotPermitted),
        _ => {}
    }
    // What is still to be walked: the path, and in front of it what is left of the links on the way.
    let mut open: [&[u8]; LINKS_MAX + 1] = [&[]; LINKS_MAX + 1];
    let (mut depth, mut links) = (1usize, 0);
    open[0] = path;
    let mut current = base;
    let mut spot = Spot { found: Some(base), folder: base, name: b".", is_slashed: false };
    while let Some(last) = depth.checked_sub(1) {
        let text = open[last];
        let rest = &text[text.iter().take_while(|&&byte| byte == b'/').count()..];
        let size = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (part, rest) = rest.split_at(size);
        if tree.kind(current)? != Type::Folder {
            return Err(Errno::NotFolder);
        }
        open[last] = rest;
        if rest.is_empty() {
            depth = last;
        }
        match part {
            b"" => {
                spot.is_slashed = true;
                continue;
            }
            b"." => {}
            b".." if current == base => return Err(Errno::NotPermitted),
            b".." => current = tree.parent(current)?,
            _ if part.len() > NAME_BYTES_MAX => return Err(Errno::NameTooLong),
            _ => {
                let is_last =
                    open[..depth].iter().all(|rest| rest.iter().all(|&byte| byte == b'/'));
                let Some(child) = tree.child(current, part)? else {
                    let is_slashed = depth > 0;
                    let spot = Spot { found: None, folder: current, name: part, is_slashed };
                    return if is_last { Ok(spot) } else { Err(Errno::NoEntry) };
                };
                // Behind a link there is something, if only a slash: then it is followed in any case.
                if tree.kind(child)? == Type::Link && (depth > 0 || follows) {
                    links += 1;
                    let target = tree.target(child)?;
                    if links > LINKS_MAX || depth == open.len() {
                        return Err(Errno::Loop);
                    }
                    if target.is_empty() {
                        return Err(Errno::NoEntry);
                    }
                    if target.first() == Some(&b'/') {
                        return Err(Errno::NotPermitted);
                    }
                    open[depth] = target;
                    depth += 1;
                    continue;
                }
                spot = Spot { found: None, folder: current, name: part, is_slashed: false };
                current = child;
                continue;
            }
        }
        spot = Spot { found: None, folder: current, name: part, is_slashed: false };
    }
    spot.found = Some(current);
    Ok(spot)
}
