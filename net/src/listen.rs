//! Where connections come from.
//!
//! Each worker has a listening socket of its own for an internet address, and the kernel spreads connections
//! over them by a hash (`SO_REUSEPORT`). A Unix socket, or one that was inherited, is shared: whoever is free
//! accepts. What is set here is inherited by every accepted socket, so nothing needs to be set on those.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
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
    /// Takes no IPv4 on an address of IPv6; `None` leaves it to `net.ipv6.bindv6only`.
    pub only_v6: Option<bool>,
    /// Wants the connections whose packets this CPU handles (`SO_INCOMING_CPU`, socket(7)).
    pub incoming_cpu: Option<usize>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: BACKLOG_DEFAULT,
            keepalive: Some(KEEPALIVE_DEFAULT),
            only_v6: None,
            incoming_cpu: None,
        }
    }
}

/// What an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 or IPv6.
    Internet,
    /// A path of this machine.
    Local,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    family: Family,
    has_preface: bool,
}

/// The listeners of one endpoint.
#[derive(Debug)]
pub struct Listeners(pub Vec<Listener>);

impl Listener {
    /// Takes a socket that listens already, of this process or inherited by it.
    ///
    /// # Errors
    /// If it does not listen for streams of a known family.
    pub fn from_socket(socket: Socket) -> io::Result<Self> {
        let wrong = |what| Err(io::Error::new(ErrorKind::InvalidInput, what));
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return wrong("the socket does not listen for streams");
        }
        let family = match socket.domain()? {
            Domain::IPV4 | Domain::IPV6 => Family::Internet,
            Domain::UNIX => Family::Local,
            _ => return wrong("the socket is of another family than IP and Unix"),
        };
        if family == Family::Internet {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Self { socket, family, has_preface: false })
    }

    /// Says that each connection begins with the PROXY protocol.
    #[must_use]
    pub fn with_preface(self, has_preface: bool) -> Self {
        Self { has_preface, ..self }
    }

    /// Makes another descriptor of the same socket.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, ..*self })
    }

    /// Returns what its address is of.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Returns the address, of an internet socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Tells whether each connection begins with the PROXY protocol.
    #[must_use]
    pub const fn has_preface(&self) -> bool {
        self.has_preface
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: listener.into(), family: Family::Internet, has_preface: false }
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self { socket: listener.into(), family: Family::Local, has_preface: false }
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self(vec![listener.into()])
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Self(listeners)
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
    if let (Some(only), true) = (options.only_v6, address.is_ipv6()) {
        socket.set_only_v6(only)?;
    }
    if let Some(cpu) = options.incoming_cpu {
        socket.set_cpu_affinity(cpu)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Finds out whether nobody listens on `address` so far, neither alone nor sharing it. Does not listen meanwhile:
/// who connects then is refused, not taken and dropped.
///
/// # Errors
/// What the system says, most often that the address is in use.
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Opens a listening Unix socket at `path`, with the permissions `mode`. One that a process left behind which
/// has ended is replaced; one that somebody answers at is not.
///
/// # Errors
/// What the system says; `AddrInUse` if somebody answers there, or the path is something else.
pub fn bind_local(path: &Path, mode: u32, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = socket2::SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != ErrorKind::AddrInUse || !is_left_behind(path) {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok(UnixListener::from(socket).into())
}

/// Tells whether a path is a socket that nobody listens at.
fn is_left_behind(path: &Path) -> bool {
    // A plain file refuses connections as well.
    let is_socket = |file: std::fs::Metadata| file.file_type().is_socket();
    if !std::fs::symlink_metadata(path).is_ok_and(is_socket) {
        return false;
    }
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    UnixStream::connect(path).err().is_some_and(refused)
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

    #[test]
    fn an_address_that_is_shared_is_not_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(any, &ListenOptions::default()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(check_free(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        check_free(address).unwrap();
    }

    #[test]
    fn a_worker_wants_the_connections_of_its_cpu() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = ListenOptions { incoming_cpu: Some(0), ..ListenOptions::default() };
        let socket = Socket::from(bind(any, &options).unwrap());
        assert_eq!(socket.cpu_affinity().unwrap(), 0);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("midge-listen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let first = bind_local(&path, 0o600, 8).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_local(&path, 0o600, 8).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        bind_local(&path, 0o660, 8).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "notes").unwrap();
        assert_eq!(bind_local(&path, 0o600, 8).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"notes");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        Listener::from_socket(socket).unwrap_err();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = Listener::from_socket(listener.into()).unwrap();
        assert_eq!(listener.family(), Family::Internet);
    }
}
