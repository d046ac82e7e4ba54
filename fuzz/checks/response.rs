//! A guest's response. Input: where the guest says it is, the limit of bodies, then the guest's memory.

use midge_abi::response::{Answer, HEADER_BYTES_MAX, Response};

/// Reads the response, and looks at all that is handed out.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[a, b, c, d, limit, unit], memory)) = bytes.split_first_chunk() else { return };
    let address = u32::from_le_bytes([a, b, c, d]);
    let limit = usize::from(limit) << (unit % 16);
    let inside = memory.as_ptr_range();
    let is_inside = |part: &[u8]| {
        part.is_empty() || inside.contains(&part.as_ptr()) && part.as_ptr_range().end <= inside.end
    };
    match Response::read(memory, address, limit) {
        Ok(Answer::Response(response)) => {
            assert!((200..=599).contains(&response.status()));
            assert!(response.body().len() <= limit && is_inside(response.body()));
            let mut size = 0;
            for (name, value) in response.headers() {
                assert!(!name.is_empty() && is_inside(name) && is_inside(value));
                assert!(name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':'));
                assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0 | 0x7F)));
                size += name.len() + value.len();
            }
            assert!(size <= HEADER_BYTES_MAX);
        }
        Ok(Answer::Error(message)) => assert!(is_inside(message)),
        Err(_) => {}
    }
}
