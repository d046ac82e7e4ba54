//! The yardstick: a server on the same ring that does nothing. It finds blank lines and sends a constant.
//!
//! It has no parser, no limits and no deadlines, and closes a connection when the last bytes of a piece ask for
//! it: the cost of the kernel and of one pass over the bytes. Whatever stands above it in `midge-lab request` is
//! what a server adds.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Result;
use midge_net::listen::{ListenOptions, bind};
use midge_net::ring::{Completed, Completion, ConnectionId, Operation, Ring, Wait};
use midge_net::settings::Settings;
use midge_net::uring::Uring;

/// The response: as long as midge's own for the same body.
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
content-length: 16\r\ncontent-type: text/plain\r\n\r\nsixteen bytes ok";

/// What is known of a connection.
#[derive(Default)]
struct Peer {
    /// Bytes of a blank line that the last piece ended with.
    matched: usize,
    output: Vec<u8>,
    is_sending: bool,
    sending_bytes: usize,
    sent_bytes: usize,
    /// True once the client has asked for the connection's end.
    is_last: bool,
}

/// What the last request of a connection ends with, as the lab's client writes it.
const LAST: &[u8] = b"\r\nConnection: close\r\n\r\n";

/// Serves until the process is ended.
///
/// # Errors
/// If the address is taken or the ring fails.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let settings = Settings::default();
    let mut ring = Uring::new(&settings)?;
    ring.listen(bind(address, &ListenOptions::default())?.into());
    ring.push(Operation::Accept(0));
    let mut peers: HashMap<u32, Peer> = HashMap::new();
    let mut spare: Vec<Vec<u8>> = Vec::new();
    loop {
        ring.enter(Wait::Block, None)?;
        while let Some(completion) = ring.next_completion() {
            on_completion(&mut ring, &mut peers, &mut spare, completion);
        }
    }
}

fn on_completion(
    ring: &mut Uring,
    peers: &mut HashMap<u32, Peer>,
    spare: &mut Vec<Vec<u8>>,
    completion: Completion,
) {
    let id = completion.id;
    match completion.completed {
        Completed::Accept => {
            if let Ok(slot) = u32::try_from(completion.result) {
                peers.insert(slot, Peer::default());
                ring.push(Operation::Receive(ConnectionId::from_u64(slot.into())));
            }
            if !completion.has_more {
                ring.push(Operation::Accept(0));
            }
        }
        Completed::Receive => {
            let Some(peer) = peers.get_mut(&id.slot()) else { return };
            if let Some(buffer) = completion.buffer {
                let size = usize::try_from(completion.result).unwrap_or(0);
                let bytes = &ring.bytes(buffer)[..size];
                let count = blank_lines(bytes, &mut peer.matched);
                peer.is_last = bytes.ends_with(LAST);
                ring.recycle(buffer);
                for _ in 0..count {
                    peer.output.extend_from_slice(RESPONSE);
                }
                flush(ring, peer, spare, id);
            }
            if completion.result <= 0 && completion.result != -ENOBUFS {
                ring.push(Operation::Close(id));
            } else if !completion.has_more {
                ring.push(Operation::Receive(id));
            }
        }
        Completed::Send => {
            let mut output = ring.reclaim(id);
            let Some(peer) = peers.get_mut(&id.slot()) else { return };
            peer.is_sending = false;
            peer.sent_bytes += usize::try_from(completion.result).unwrap_or(peer.sending_bytes);
            if peer.sent_bytes < peer.sending_bytes {
                peer.is_sending = true;
                ring.push(Operation::Send { id, output, offset: peer.sent_bytes, is_last: false });
            } else {
                output.clear();
                spare.push(output);
                if peer.is_last {
                    // The socket is closed when its receive has ended.
                    ring.push(Operation::CancelReceive(id));
                } else {
                    flush(ring, peer, spare, id);
                }
            }
        }
        Completed::Close => {
            peers.remove(&id.slot());
        }
        _ => {}
    }
}

/// No receive buffer was free (Linux, errno-base.h).
const ENOBUFS: i32 = 105;

fn flush(ring: &mut Uring, peer: &mut Peer, spare: &mut Vec<Vec<u8>>, id: ConnectionId) {
    if peer.is_sending || peer.output.is_empty() {
        return;
    }
    let next = spare.pop().unwrap_or_default();
    let output = std::mem::replace(&mut peer.output, next);
    peer.is_sending = true;
    peer.sending_bytes = output.len();
    peer.sent_bytes = 0;
    ring.push(Operation::Send { id, output, offset: 0, is_last: false });
}

/// Counts ends of heads, also those that lie across two pieces.
fn blank_lines(mut bytes: &[u8], matched: &mut usize) -> usize {
    const BLANK: &[u8; 4] = b"\r\n\r\n";
    let mut count = 0;
    while *matched > 0 && !bytes.is_empty() {
        if bytes[0] == BLANK[*matched] {
            *matched += 1;
        } else {
            *matched = usize::from(bytes[0] == BLANK[0]);
        }
        bytes = &bytes[1..];
        if *matched == BLANK.len() {
            *matched = 0;
            count += 1;
            break;
        }
    }
    let mut end = 0;
    for position in memchr::memmem::find_iter(bytes, BLANK) {
        count += 1;
        end = position + BLANK.len();
    }
    let tail = &bytes[end..];
    let longest = BLANK.len().min(tail.len() + 1);
    let partial = (1..longest).rev().find(|size| tail.ends_with(&BLANK[..*size]));
    *matched = if bytes.is_empty() { *matched } else { partial.unwrap_or(0) };
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_found_wherever_they_are_split() {
        let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: b\r\n\r\n";
        for split in 0..=text.len() {
            let mut matched = 0;
            let first = blank_lines(&text[..split], &mut matched);
            let second = blank_lines(&text[split..], &mut matched);
            assert_eq!(first + second, 2, "split at {split}");
        }
    }
}
