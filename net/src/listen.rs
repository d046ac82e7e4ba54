//! A listening socket of one's own per worker.
//!
//! The kernel spreads connections over the sockets of one address by a hash (`SO_REUSEPORT`). What is set here
//! is inherited by every accepted socket, so nothing needs to be set on those.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections the kernel holds until they are accepted: `net.core.somaxconn` of current kernels.
pub const BACKLOG_DEFAULT: i32 = 4096;

/// Silence after which the kernel asks whether the peer still lives.
pub const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(60);

/// How a worker listens.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Length of the accept queue.
    pub backlog: i32,
    /// Silence before keep-alive probes; `None` for no probes.
    pub keepalive: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: BACKLOG_DEFAULT, keepalive: Some(KEEPALIVE_DEFAULT) }
    }
}

/// Opens a listening socket on `address`.
///
/// # Errors
/// What the system says, most often that the address is in use or needs privileges.
pub fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(time) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_share_an_address() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(any, &ListenOptions::default()).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address, &ListenOptions::default()).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
    }
}
