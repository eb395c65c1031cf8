//! Heads as HTTP/1.1 writes them.

use http::{StatusCode, Version};

use crate::{http1::Line, net::Outbound, worker::phases::HeadWriter};

/// Writes a head as HTTP/1.1.
pub(super) struct Http1Head<'o>(pub(super) &'o mut Outbound);

impl HeadWriter for Http1Head<'_> {
    fn start(&mut self, status: u16, reason: &[u8]) {
        let mut start = *b"HTTP/1.1 000 ";
        for (digit, power) in [(9, 100), (10, 10), (11, 1)] {
            start[digit] = b'0' + (status / power % 10) as u8;
        }
        let reason = if reason.is_empty() {
            let known = StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason());
            known.unwrap_or_default().as_bytes()
        } else {
            reason
        };
        self.0.put(&[&start, reason, b"\r\n"]);
    }

    #[inline(always)]
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.put(&[name, b": ", value, b"\r\n"]);
    }

    fn pass(&mut self, line: Line<'_>) {
        line.write(self.0);
    }
}

/// Writes what the head says of the connection, and its end.
pub(super) fn end_head(out: &mut Outbound, version: Version, keep_alive: bool, upgrade: bool) {
    let connection: &[u8] = match (keep_alive, upgrade) {
        (true, true) => b"Connection: upgrade\r\n",
        (false, true) => b"Connection: upgrade, close\r\n",
        (false, false) => b"Connection: close\r\n",
        (true, false) if version == Version::HTTP_10 => b"Connection: keep-alive\r\n",
        (true, false) => b"",
    };
    out.put(&[connection, b"\r\n"]);
}
