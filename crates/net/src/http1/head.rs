//! Heads of HTTP/1 messages: parsing with the strictness that a proxy needs, and writing.
//!
//! Refused although some servers take them: bare line feeds, folded lines, white space before the colon, several or
//! malformed content lengths, content length beside transfer encoding, transfer encoding in HTTP/1.0 or other than
//! `chunked`, a missing or second `host` (RFC 9112, sections 2.2, 3.2, 5.1, 6.1, 6.3).

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::decode::{Chunk, Decoder};
use super::{HeadError, Limits};

/// Headers parsed without an allocation for their index.
const STACK_HEADERS: usize = 100;

/// Head of a request, and what follows from it for the connection.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Decoder,
    /// The client will send another request on this connection.
    pub keep_alive: bool,
    /// `Expect: 100-continue`: the client waits before it sends the body.
    pub expects_continue: bool,
}

/// Head of a response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Decoder,
    pub keep_alive: bool,
}

pub(super) fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// Length of the head at the start of `buffer`, its empty line included. `scanned` remembers how far earlier calls
/// looked, so that a head that trickles in costs linear time.
pub(super) fn find_end(buffer: &[u8], scanned: &mut usize, limits: Limits) -> Result<Option<usize>, HeadError> {
    let start = *scanned;
    for at in memchr::memchr_iter(b'\n', &buffer[start..]).map(|offset| offset + start) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(HeadError::Malformed("bare line feed in the head"));
        }
        if at >= 3 && &buffer[at - 3..at] == b"\r\n\r" {
            return if at < limits.head_bytes { Ok(Some(at + 1)) } else { Err(HeadError::TooLarge) };
        }
    }
    *scanned = buffer.len();
    if buffer.len() >= limits.head_bytes { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// Parses a whole head, as found by [`find_end`].
pub(super) fn parse_request(head: Bytes, limits: Limits) -> Result<Request, HeadError> {
    with_headers(limits, |parsed| {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&head, parsed) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::Malformed("head cannot be parsed")),
            Err(error) => return Err(malformed(error)),
        }
        let version = version(request.version)?;
        let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
            .map_err(|_| HeadError::Malformed("method is not a token"))?;
        let target = request.path.unwrap_or_default();
        let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
            .map_err(|_| HeadError::Malformed("request target is not a URI"))?;
        let mut framing = Framing::default();
        let headers = collect(&head, request.headers, &mut framing)?;
        if method == Method::CONNECT && uri.authority().is_none() {
            return Err(HeadError::Malformed("CONNECT without an authority"));
        }
        if version == Version::HTTP_11 && framing.hosts != 1 {
            return Err(HeadError::Malformed("HTTP/1.1 needs exactly one host header"));
        }
        if framing.hosts > 1 {
            return Err(HeadError::Malformed("more than one host header"));
        }
        let body = match (framing.chunked, framing.length) {
            (Some(_), Some(_)) => return Err(HeadError::Malformed("content-length beside transfer-encoding")),
            (Some(_), None) if version == Version::HTTP_10 => {
                return Err(HeadError::Malformed("transfer-encoding in HTTP/1.0"));
            }
            (Some(true), None) => Decoder::Chunked(Chunk::Size),
            (Some(false), None) => return Err(HeadError::UnknownTransferEncoding),
            (None, Some(0)) => Decoder::Done,
            (None, Some(length)) => Decoder::Length(length),
            (None, None) => Decoder::Done,
        };
        let keep_alive = framing.keep_alive(version);
        let expects_continue = version == Version::HTTP_11 && framing.expects_continue && !body.is_done();
        Ok(Request { method, uri, version, headers, body, keep_alive, expects_continue })
    })
}

/// Parses the head of a response to a request of this method.
pub(super) fn parse_response(head: Bytes, limits: Limits, method: &Method) -> Result<Response, HeadError> {
    with_headers(limits, |parsed| {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, &head, parsed) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::Malformed("head cannot be parsed")),
            Err(error) => return Err(malformed(error)),
        }
        let version = version(response.version)?;
        let status = StatusCode::from_u16(response.code.unwrap_or_default())
            .map_err(|_| HeadError::Malformed("status is not a three-digit number"))?;
        let mut framing = Framing::default();
        let mut headers = collect(&head, response.headers, &mut framing)?;
        let bodiless = method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let tunnel = (method == Method::CONNECT && status.is_success()) || status == StatusCode::SWITCHING_PROTOCOLS;
        let body = match (framing.chunked, framing.length) {
            _ if tunnel => Decoder::UntilEof,
            (Some(_), Some(_)) => return Err(HeadError::Malformed("content-length beside transfer-encoding")),
            (Some(_), None) if version == Version::HTTP_10 => {
                return Err(HeadError::Malformed("transfer-encoding in HTTP/1.0"));
            }
            _ if bodiless => Decoder::Done,
            (Some(true), None) => Decoder::Chunked(Chunk::Size),
            (Some(false), None) => return Err(HeadError::UnknownTransferEncoding),
            (None, Some(0)) => Decoder::Done,
            (None, Some(length)) => Decoder::Length(length),
            (None, None) => Decoder::UntilEof,
        };
        if status == StatusCode::NO_CONTENT || status.is_informational() {
            headers.remove(CONTENT_LENGTH);
        }
        let keep_alive = framing.keep_alive(version) && body != Decoder::UntilEof;
        Ok(Response { status, version, headers, body, keep_alive })
    })
}

fn with_headers<'head, R>(
    limits: Limits,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'head>>]) -> Result<R, HeadError>,
) -> Result<R, HeadError> {
    if limits.headers <= STACK_HEADERS {
        parse(&mut [const { MaybeUninit::uninit() }; STACK_HEADERS][..limits.headers])
    } else {
        let mut index = Vec::new();
        index.resize_with(limits.headers, MaybeUninit::uninit);
        parse(&mut index)
    }
}

fn malformed(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::HeaderName => HeadError::Malformed("header name is not a token"),
        httparse::Error::HeaderValue => HeadError::Malformed("header value has a control character"),
        httparse::Error::NewLine => HeadError::Malformed("line does not end in CRLF"),
        httparse::Error::Status => HeadError::Malformed("status line cannot be parsed"),
        httparse::Error::Token => HeadError::Malformed("first line cannot be parsed"),
        httparse::Error::Version => HeadError::Malformed("neither HTTP/1.0 nor HTTP/1.1"),
    }
}

fn version(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        Some(0) => Ok(Version::HTTP_10),
        _ => Err(HeadError::Malformed("neither HTTP/1.0 nor HTTP/1.1")),
    }
}

/// What the headers say about the connection and the body.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    /// Present; and whether it is `chunked` and nothing else.
    chunked: Option<bool>,
    hosts: usize,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

impl Framing {
    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep)
    }
}

/// Copies headers into a map whose values share the head's bytes. `transfer-encoding` is left out: it belongs to this
/// hop, and the body knows.
fn collect(head: &Bytes, parsed: &[httparse::Header<'_>], framing: &mut Framing) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + 8);
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| HeadError::Malformed("header name is not a token"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(header.value))
            .map_err(|_| HeadError::Malformed("header value has a control character"))?;
        if name == CONTENT_LENGTH {
            let length = content_length(header.value)?;
            if framing.length.is_some() {
                return Err(HeadError::Malformed("more than one content-length"));
            }
            framing.length = Some(length);
        } else if name == TRANSFER_ENCODING {
            let only_chunked = framing.chunked.is_none() && header.value.eq_ignore_ascii_case(b"chunked");
            framing.chunked = Some(only_chunked);
            continue;
        } else if name == HOST {
            framing.hosts += 1;
        } else if name == CONNECTION {
            for option in options(header.value) {
                framing.close |= option.eq_ignore_ascii_case(b"close");
                framing.keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == http::header::EXPECT {
            framing.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.len() < 19 && value.iter().all(u8::is_ascii_digit);
    if !digits {
        return Err(HeadError::Malformed("content-length is not a number"));
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Elements of a comma-separated list.
pub fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// Framing of an outgoing body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// No body.
    None,
    /// So many bytes, said by `content-length`.
    Length(u64),
    Chunked,
    /// The body ends with the connection; or raw bytes after an upgrade.
    UntilClose,
}

pub(super) fn write_request(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    host: &[u8],
    headers: &HeaderMap,
    encoder: Encoder,
) {
    out.reserve(64 + target.len() + host.len() + headers.len() * 48);
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(host);
    out.put_slice(b"\r\n");
    write_headers(out, headers, true);
    write_framing(out, headers, encoder);
    out.put_slice(b"\r\n");
}

pub(super) fn write_response(
    out: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    encoder: Encoder,
    connection: Option<&'static str>,
) {
    out.reserve(64 + headers.len() * 48);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.put_slice(b"\r\n");
    write_headers(out, headers, false);
    if !status.is_informational() {
        write_framing(out, headers, encoder);
    }
    if let Some(option) = connection {
        out.put_slice(b"connection: ");
        out.put_slice(option.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}

fn write_headers(out: &mut BytesMut, headers: &HeaderMap, skip_host: bool) {
    for (name, value) in headers {
        if skip_host && name == HOST {
            continue;
        }
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}

fn write_framing(out: &mut BytesMut, headers: &HeaderMap, encoder: Encoder) {
    match encoder {
        Encoder::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::Length(length) if !headers.contains_key(CONTENT_LENGTH) => {
            use std::fmt::Write as _;
            // Writing into a growing buffer cannot fail.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Encoder::Length(_) | Encoder::None | Encoder::UntilClose => {}
    }
}

pub(super) fn write_trailers(out: &mut BytesMut, trailers: &HeaderMap) {
    write_headers(out, trailers, false);
    out.put_slice(b"\r\n");
}
