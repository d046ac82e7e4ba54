//! A socket to the server.

use std::io;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Size of a receive where connections are read slowly, and of the socket's own buffer.
pub(super) const SLOW_READ_BYTES: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connect {
    /// Until it is there.
    Wait,
    /// Without waiting: what is sent waits for it, in the kernel.
    Go,
}

pub(super) fn open(address: &SockAddr, how: Connect, is_slow: bool) -> io::Result<OwnedFd> {
    let domain = address.domain();
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let socket = Socket::new(domain, Type::STREAM, is_ip.then_some(Protocol::TCP))?;
    if is_ip {
        socket.set_tcp_nodelay(true)?;
    }
    if is_slow {
        // Else the kernel reads what the connection does not, and the server notices nothing.
        socket.set_recv_buffer_size(SLOW_READ_BYTES as usize)?;
    }
    if how == Connect::Wait {
        socket.connect(address)?;
        return Ok(socket.into());
    }
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // A ring waits for a socket only if it is not marked so.
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// The connection is being made (Linux, errno.h).
const EINPROGRESS: i32 = 115;
