//! Netlink: the kernel's binary protocol for `nf_tables` and for routing.
//!
//! Written by hand because no crate under a licence that we may use speaks `nf_tables`, and because it is little:
//! numbers, strings, and attributes inside attributes.

pub(crate) mod firewall;
pub(crate) mod links;
pub(crate) mod routing;

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

/// Messages one after another. Each has a sequence number and a name for error messages.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    names: Vec<String>,
    /// Where the last message begins.
    last: usize,
}

/// What the kernel said to one of the messages.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub(crate) struct Refused {
    pub(crate) what: String,
    pub(crate) error: io::Error,
}

impl Messages {
    /// One message: type, flags, the fixed part of its body, and its attributes.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        let sequence = u32::try_from(self.names.len()).unwrap_or(u32::MAX) + 1;
        self.names.push(name.into());
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(fixed);
        pad(&mut self.bytes);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// The kernel shall answer the last message even when all is well.
    pub(crate) fn acknowledge(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let with = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with.to_ne_bytes());
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sends all of it at once and waits for an answer: the first refusal of any message, or the acknowledgement that
    /// [`Self::acknowledge`] asked for.
    pub(crate) fn send(&self, protocol: isize) -> Result<(), Refused> {
        let failed = |error| Refused { what: "netlink".to_owned(), error };
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // The kernel takes one datagram; larger than the usual buffer where there are very many rules.
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(self.bytes.len().max(256 * 1024) * 2);
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1024 * 1024);
        let _ = socket2::SockRef::from(&socket).set_read_timeout(Some(std::time::Duration::from_secs(30)));
        let sent = socket.send_to(&self.bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        if sent != self.bytes.len() {
            return Err(failed(io::Error::other(format!("{sent} of {} bytes were taken", self.bytes.len()))));
        }
        loop {
            let (answer, _) = socket.recv_from_full().map_err(failed)?;
            let all = answers(&answer);
            for (sequence, code) in all.iter().copied() {
                if code != 0 {
                    let name = (sequence as usize).checked_sub(1).and_then(|index| self.names.get(index));
                    let what = name.cloned().unwrap_or_else(|| "netlink".to_owned());
                    return Err(Refused { what, error: io::Error::from_raw_os_error(-code) });
                }
            }
            if !all.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Sequence numbers and error codes (0: acknowledged) of the answers in a datagram.
fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, kind) = (word(0) as usize, u16::from_ne_bytes([header[4], header[5]]));
        if kind == NLMSG_ERROR
            && let Some(Ok(code)) = bytes.get(HEADER..HEADER + 4).map(<[u8; 4]>::try_from)
        {
            found.push((word(8), i32::from_ne_bytes(code)));
        }
        let Some(rest) = bytes.get(length.max(HEADER).next_multiple_of(4)..) else { break };
        bytes = rest;
    }
    found
}

/// Attributes: length, type, value, padded to four bytes.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        pad(self.bytes);
    }

    /// Numbers of `nf_tables` travel in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Numbers of routing travel as this machine writes them.
    pub(crate) fn ne32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Bytes that are no attribute: the fixed part of a message inside a message.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        pad(self.bytes);
    }

    pub(crate) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NLA_F_NESTED).to_ne_bytes());
        inside(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let mut messages = Messages::default();
        messages.add("x", 0x0a00, NLM_F_ACK, &[2, 0, 0, 0], |attributes| {
            attributes.text(1, "abcd");
            attributes.nest(2, |inside| inside.be32(3, 1));
        });
        let bytes = messages.bytes();
        assert_eq!(bytes.len() as u32, u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")));
        assert_eq!(bytes.len(), 16 + 4 + 12 + 12);
        assert_eq!(&bytes[20..32], [9, 0, 1, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0]);
        assert_eq!(&bytes[32..44], [12, 0, 2, 0x80, 8, 0, 3, 0, 0, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            answers(&bytes);
        }
    }
}
