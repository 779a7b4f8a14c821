//! The discovery messages as they cross the wire without a copy of large resources: responses are written from shared
//! bytes, and read as slices of the received buffer. Requests are the ordinary generated messages.
//!
//! Field numbers are those of `envoy.service.discovery.v3`.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::Mode;
use crate::resource::Resource;
use crate::server::stream::Response;

/// `google.protobuf.Any` whose value is a slice of the received message.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.service.discovery.v3.Resource`, the fields that are used.
#[derive(Clone, PartialEq, Message)]
pub struct NamedResource {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse` as a client reads it.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaResponse {
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<NamedResource>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse` as a client reads it.
#[derive(Clone, PartialEq, Message)]
pub struct SotwResponse {
    #[prost(string, tag = "1")]
    pub version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// Service path of the delta method.
pub(crate) const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Service path of the state-of-the-world method.
pub(crate) const SOTW_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// Name of the service, as routers want it.
pub(crate) const SERVICE_NAME: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

/// The first field of all five resource types is their name (`cluster_name` for endpoints).
pub(crate) fn resource_name(body: &Bytes) -> Option<String> {
    #[derive(Clone, PartialEq, Message)]
    struct OnlyName {
        #[prost(string, tag = "1")]
        name: String,
    }
    OnlyName::decode(body.clone()).ok().map(|it| it.name).filter(|name| !name.is_empty())
}

/// The name under which a cluster asks for its endpoints by EDS; `None` when it does not, or is no cluster at all.
pub(crate) fn endpoint_name(body: &Bytes) -> Option<String> {
    #[derive(Clone, PartialEq, Message)]
    struct EdsConfig {
        #[prost(string, tag = "2")]
        service_name: String,
    }
    #[derive(Clone, PartialEq, Message)]
    struct OnlyDiscovery {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(int32, tag = "2")]
        discovery_type: i32,
        #[prost(message, optional, tag = "3")]
        eds: Option<EdsConfig>,
    }
    const EDS: i32 = 3;
    let cluster = OnlyDiscovery::decode(body.clone()).ok().filter(|it| it.discovery_type == EDS)?;
    Some(cluster.eds.map(|eds| eds.service_name).filter(|name| !name.is_empty()).unwrap_or(cluster.name))
}

/// Resources of this size go out as the bytes that all streams share; smaller ones are gathered, for fewer writes.
const LARGE: usize = 8 << 10;
/// How much is gathered before it goes out: two frames of HTTP/2.
const PIECE: usize = 32 << 10;
/// gRPC's frame header: whether the message is compressed, and its length.
pub(crate) const FRAME_HEADER: usize = 5;

/// Bytes of a response on their way out.
#[derive(Debug)]
pub(crate) enum Piece {
    Gathered(Vec<u8>),
    Shared(Bytes),
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Gathered(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// A response in the form of its stream's mode, with gRPC's frame header, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    response: Response,
    /// Bytes that are still to come.
    left: usize,
    /// The resource to write next.
    next: usize,
    began: bool,
    /// A large body whose beginning was in the piece before.
    shared: Option<Bytes>,
}

impl Pieces {
    pub(crate) fn new(response: Response) -> Self {
        let left = FRAME_HEADER + message_len(&response);
        Self { response, left, next: 0, began: false, shared: None }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some(body) = self.shared.take() {
            self.left -= body.len();
            return Some(Piece::Shared(body));
        }
        if self.left == 0 {
            return None;
        }
        let Response { mode, kind, resources, .. } = &self.response;
        let url = kind.type_url();
        let mut piece = Vec::with_capacity(self.left.min(PIECE));
        if !std::mem::replace(&mut self.began, true) {
            piece.put_u8(0);
            // A message longer than gRPC can say is longer than any machine has memory for.
            piece.put_u32(u32::try_from(self.left - FRAME_HEADER).unwrap_or(u32::MAX));
            put_version(self.response.version, &mut piece);
        }
        while let Some(resource) = resources.get(self.next) {
            let large = resource.body.len() >= LARGE;
            let size = if large { 0 } else { resource.body.len() } + resource.name.len() + OVERHEAD;
            if !piece.is_empty() && piece.len() + size > PIECE {
                self.left -= piece.len();
                return Some(Piece::Gathered(piece));
            }
            self.next += 1;
            put_head(*mode, url, resource, &mut piece);
            if large {
                self.left -= piece.len();
                self.shared = Some(resource.body.clone());
                return Some(Piece::Gathered(piece));
            }
            piece.put_slice(&resource.body);
        }
        put_tail(&self.response, &mut piece);
        self.left -= piece.len();
        Some(Piece::Gathered(piece))
    }
}

/// Writes a response in the form of its stream's mode.
pub fn encode_response(response: &Response, buffer: &mut impl BufMut) {
    for (index, piece) in Pieces::new(response.clone()).enumerate() {
        buffer.put_slice(&piece.as_ref()[if index == 0 { FRAME_HEADER } else { 0 }..]);
    }
}

/// What a resource takes besides its name and body, at most.
const OVERHEAD: usize = 160;

/// Of a version as field 1.
const VERSION_LEN: usize = 18;

/// What [`version_text`](crate::resource::version_text) says, as field 1.
fn put_version(version: u64, buffer: &mut impl BufMut) {
    put_header(1, 16, buffer);
    for shift in (0..64).step_by(4).rev() {
        let digit = (version >> shift & 0xf) as usize;
        buffer.put_u8(b"0123456789abcdef"[digit]);
    }
}

fn message_len(response: &Response) -> usize {
    let url = response.kind.type_url();
    let resource = |it: &Arc<Resource>| match response.mode {
        Mode::Sotw => field_len(2, any_len(url, it)),
        Mode::Delta => field_len(2, named_len(url, it)),
    };
    let resources: usize = response.resources.iter().map(resource).sum();
    VERSION_LEN + resources + tail_len(response)
}

fn named_len(url: &str, resource: &Resource) -> usize {
    VERSION_LEN + text_len(3, &resource.name) + field_len(2, any_len(url, resource))
}

/// Everything of a resource but its body, which comes last.
fn put_head(mode: Mode, url: &str, resource: &Resource, buffer: &mut Vec<u8>) {
    let any = any_len(url, resource);
    match mode {
        Mode::Sotw => put_header(2, any, buffer),
        Mode::Delta => {
            put_header(2, named_len(url, resource), buffer);
            put_version(resource.version, buffer);
            put_text(3, &resource.name, buffer);
            put_header(2, any, buffer);
        }
    }
    put_text(1, url, buffer);
    put_header(2, resource.body.len(), buffer);
}

fn any_len(url: &str, resource: &Resource) -> usize {
    text_len(1, url) + field_len(2, resource.body.len())
}

fn removed(response: &Response) -> &[Arc<str>] {
    if response.mode == Mode::Delta { &response.removed } else { &[] }
}

fn tail_len(response: &Response) -> usize {
    let names: usize = removed(response).iter().map(|name| text_len(6, name)).sum();
    text_len(4, response.kind.type_url()) + text_len(5, &response.nonce.to_string()) + names
}

fn put_tail(response: &Response, buffer: &mut Vec<u8>) {
    put_text(4, response.kind.type_url(), buffer);
    put_text(5, &response.nonce.to_string(), buffer);
    for name in removed(response) {
        put_text(6, name, buffer);
    }
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn text_len(tag: u32, text: &str) -> usize {
    field_len(tag, text.len())
}

fn put_header(tag: u32, len: usize, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

fn put_text(tag: u32, text: &str, buffer: &mut impl BufMut) {
    put_header(tag, text.len(), buffer);
    buffer.put_slice(text.as_bytes());
}

/// What a client sends, in either mode.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Delta(DeltaDiscoveryRequest),
    Sotw(DiscoveryRequest),
}

impl Request {
    pub fn type_url(&self) -> &str {
        match self {
            Self::Delta(request) => &request.type_url,
            Self::Sotw(request) => &request.type_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResourceType;
    use crate::resource::version_text;

    /// Small and large resources, enough for several pieces.
    fn response(mode: Mode, sizes: &[usize]) -> Response {
        let resource = |(index, size): (usize, &usize)| {
            let name = format!("resource-{index}");
            Arc::new(Resource::new(name, vec![u8::try_from(index % 200).unwrap_or(0); *size]))
        };
        Response {
            mode,
            kind: ResourceType::Cluster,
            nonce: 1234,
            version: 7,
            resources: sizes.iter().enumerate().map(resource).collect(),
            removed: vec!["gone".into(), "past".into()],
        }
    }

    #[track_caller]
    fn check(sizes: &[usize]) {
        for mode in [Mode::Delta, Mode::Sotw] {
            let response = response(mode, sizes);
            let pieces: Vec<_> = Pieces::new(response.clone()).collect();
            for piece in &pieces {
                match piece {
                    Piece::Gathered(bytes) => assert!(!bytes.is_empty() && bytes.len() <= PIECE, "{}", bytes.len()),
                    Piece::Shared(bytes) => assert!(
                        response.resources.iter().any(|it| it.body.as_ptr() == bytes.as_ptr()),
                        "a large body is not copied"
                    ),
                }
            }
            let all: Vec<u8> = pieces.iter().flat_map(AsRef::as_ref).copied().collect();
            let (head, mut message) = all.split_at(FRAME_HEADER);
            assert_eq!(head, [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat());
            let expect = |it: &NamedResource| (it.name.clone(), it.resource.clone().unwrap().value);
            let sent: Vec<_> = response.resources.iter().map(|it| (it.name.to_string(), it.body.clone())).collect();
            match mode {
                Mode::Delta => {
                    let read = DeltaResponse::decode(&mut message).unwrap();
                    assert_eq!(read.resources.iter().map(expect).collect::<Vec<_>>(), sent);
                    assert_eq!(read.removed_resources, ["gone", "past"]);
                    assert_eq!((read.nonce.as_str(), read.system_version_info), ("1234", version_text(7)));
                    let versions = response.resources.iter().map(|it| version_text(it.version));
                    assert!(read.resources.iter().map(|it| it.version.clone()).eq(versions));
                }
                Mode::Sotw => {
                    let read = SotwResponse::decode(&mut message).unwrap();
                    assert_eq!(read.nonce, "1234");
                    assert!(read.resources.iter().map(|it| &it.value).eq(sent.iter().map(|(_, body)| body)));
                }
            }
        }
    }

    #[test]
    fn responses_are_written_in_pieces_and_read_whole() {
        check(&[]);
        check(&[0, 10, 300]);
        check(&[1200; 200]);
        check(&[LARGE - 1, LARGE, 5, PIECE, LARGE, LARGE, 1 << 20]);
        check(&[PIECE - 100; 1]);
        check(&[LARGE - 1; 9]);
    }
}
