//! Where a message body ends: content length, chunks, or the end of the connection (RFC 9112, section 6).
//!
//! Strict in framing, since two readers that disagree about it are what request smuggling is made of: chunk sizes are
//! hexadecimal digits and nothing else, every line ends in CRLF, and extensions and trailers are bounded.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::HeadError;

/// Longest line of a chunk size with its extensions.
const MAX_CHUNK_LINE: usize = 4096;
/// Most bytes that trailers may take.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// How far the body of the message being read has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    Done,
    Length(u64),
    Chunked(Chunk),
    /// The body of a response that ends with its connection, or bytes after an upgrade.
    UntilEof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    Size,
    Data(u64),
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
}

/// What came out of the buffer.
#[derive(Debug)]
pub enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

impl Decoder {
    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Takes the next piece of the body out of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, HeadError> {
        loop {
            match self {
                Self::Done | Self::Length(0) => {
                    *self = Self::Done;
                    return Ok(Decoded::End);
                }
                Self::Length(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::UntilEof => {
                    if buffer.is_empty() {
                        return Ok(Decoded::More);
                    }
                    return Ok(Decoded::Data(buffer.split().freeze()));
                }
                Self::Chunked(state) => match state {
                    Chunk::Size => match chunk_size(buffer)? {
                        None => return Ok(Decoded::More),
                        Some(0) => *state = Chunk::Trailers,
                        Some(size) => *state = Chunk::Data(size),
                    },
                    Chunk::Data(left) => {
                        if buffer.is_empty() {
                            return Ok(Decoded::More);
                        }
                        let data = take(buffer, *left);
                        *left -= data.len() as u64;
                        if *left == 0 {
                            *state = Chunk::DataEnd;
                        }
                        return Ok(Decoded::Data(data));
                    }
                    Chunk::DataEnd => {
                        if buffer.len() < 2 {
                            return match buffer.first() {
                                Some(b'\r') | None => Ok(Decoded::More),
                                Some(_) => Err(HeadError::Malformed("chunk data not followed by CRLF")),
                            };
                        }
                        if &buffer.split_to(2)[..] != b"\r\n" {
                            return Err(HeadError::Malformed("chunk data not followed by CRLF"));
                        }
                        *state = Chunk::Size;
                    }
                    Chunk::Trailers => {
                        return match trailers(buffer)? {
                            None => Ok(Decoded::More),
                            Some(trailers) => {
                                *self = Self::Done;
                                Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
                            }
                        };
                    }
                },
            }
        }
    }
}

fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let count = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    buffer.split_to(count).freeze()
}

/// A line without its CRLF, or `None` when it has not arrived whole.
fn line_end(buffer: &[u8], limit: usize) -> Result<Option<usize>, HeadError> {
    match memchr::memchr(b'\n', buffer) {
        Some(0) => Err(HeadError::Malformed("bare line feed in chunked framing")),
        Some(end) if end > limit => Err(HeadError::Malformed("line of chunked framing is too long")),
        Some(end) if buffer[end - 1] != b'\r' => Err(HeadError::Malformed("bare line feed in chunked framing")),
        Some(end) => Ok(Some(end - 1)),
        None if buffer.len() > limit => Err(HeadError::Malformed("line of chunked framing is too long")),
        None => Ok(None),
    }
}

fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, HeadError> {
    let Some(end) = line_end(buffer, MAX_CHUNK_LINE)? else {
        return Ok(None);
    };
    let line = buffer.split_to(end + 2);
    let line = &line[..end];
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(HeadError::Malformed("chunk size is not a hexadecimal number in range"));
    }
    let rest = &line[digits..];
    let extension = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).map(|start| rest[start]);
    if !matches!(extension, None | Some(b';')) || rest.contains(&b'\r') || (extension.is_none() && !rest.is_empty()) {
        return Err(HeadError::Malformed("chunk size is followed by something that is no extension"));
    }
    let size = line[..digits].iter().fold(0u64, |size, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => byte - b'A' + 10,
        };
        size << 4 | u64::from(digit)
    });
    Ok(Some(size))
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, HeadError> {
    if buffer.len() < 2 {
        return Ok(None);
    }
    if buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    // A whole block first, so that a slow sender does not make us parse it again and again.
    if memchr::memmem::find(buffer, b"\r\n\r\n").is_none() {
        if buffer.len() > MAX_TRAILER_BYTES {
            return Err(HeadError::Malformed("trailers are too large"));
        }
        return Ok(None);
    }
    let mut trailers = HeaderMap::new();
    let end = match httparse::parse_headers(buffer, &mut parsed) {
        Ok(httparse::Status::Complete((end, headers))) if end <= MAX_TRAILER_BYTES => {
            for header in headers {
                let name = HeaderName::from_bytes(header.name.as_bytes())
                    .map_err(|_| HeadError::Malformed("trailer name is not a token"))?;
                let value = HeaderValue::from_bytes(header.value)
                    .map_err(|_| HeadError::Malformed("trailer value has a control character"))?;
                // Framing and routing are settled by the head; in a trailer they are an attack (RFC 9110, 6.5.1).
                if matches!(name.as_str(), "content-length" | "transfer-encoding" | "host" | "trailer" | "connection") {
                    continue;
                }
                trailers.append(name, value);
            }
            end
        }
        Ok(httparse::Status::Complete(_)) => return Err(HeadError::Malformed("trailers are too large")),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HeadError::Malformed("trailers cannot be parsed")),
    };
    let raw = buffer.split_to(end);
    if super::head::has_bare_line_feed(&raw) {
        return Err(HeadError::Malformed("bare line feed in trailers"));
    }
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut decoder: Decoder, input: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), HeadError> {
        let mut buffer = BytesMut::new();
        let (mut body, mut end) = (Vec::new(), false);
        let mut pieces = input.chunks(step.max(1));
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(_) => {}
                Decoded::End => {
                    end = true;
                    break;
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => break,
                },
            }
        }
        let mut rest = buffer.to_vec();
        pieces.for_each(|piece| rest.extend_from_slice(piece));
        Ok((body, end, rest))
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let input = b"5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for step in 1..input.len() {
            let (body, end, rest) = all(Decoder::Chunked(Chunk::Size), input, step).unwrap();
            assert_eq!((body.as_slice(), end, rest.as_slice()), (&b"hello world"[..], true, &b"GET"[..]), "{step}");
        }
    }

    #[test]
    fn sloppy_chunks_are_refused() {
        for input in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"0\r\nx : y\r\n\r\n",
        ] {
            let result = all(Decoder::Chunked(Chunk::Size), input, 1);
            assert!(result.is_err(), "{:?} gave {result:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        let (body, end, rest) = all(Decoder::Length(3), b"abcGET", 4).unwrap();
        assert_eq!((body.as_slice(), end, rest.as_slice()), (&b"abc"[..], true, &b"GET"[..]));
    }
}
