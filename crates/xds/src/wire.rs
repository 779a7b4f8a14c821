//! The discovery messages as they cross the wire without a copy of their resources: responses are written straight
//! from shared bytes, and read as slices of the received buffer. Requests are the ordinary generated messages.
//!
//! Field numbers are those of `envoy.service.discovery.v3`.

use bytes::{Buf, BufMut, Bytes};
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use crate::Mode;
use crate::resource::{Resource, version_text};
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

/// Decodes `Req`, encodes [`Response`].
#[derive(Debug)]
pub(crate) struct ServerCodec<Req>(std::marker::PhantomData<Req>);

impl<Req> Default for ServerCodec<Req> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<Req: Message + Default + Send + 'static> Codec for ServerCodec<Req> {
    type Encode = Response;
    type Decode = Req;
    type Encoder = ResponseEncoder;
    type Decoder = <ProstCodec<Req, Req> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Req, Req>::default().decoder()
    }
}

#[derive(Debug)]
pub(crate) struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(encoded_size(&response));
        encode_response(&response, buffer);
        Ok(())
    }
}

/// An upper bound, so that the buffer grows once.
fn encoded_size(response: &Response) -> usize {
    const OVERHEAD: usize = 160;
    let resources: usize = response.resources.iter().map(|it| it.name.len() + it.body.len() + OVERHEAD).sum();
    let removed: usize = response.removed.iter().map(|name| name.len() + 8).sum();
    resources + removed + OVERHEAD
}

/// Writes a response in the form of its stream's mode.
pub fn encode_response(response: &Response, buffer: &mut impl BufMut) {
    let url = response.kind.type_url();
    put_text(1, &version_text(response.version), buffer);
    for resource in &response.resources {
        match response.mode {
            Mode::Sotw => {
                put_header(2, any_len(url, resource), buffer);
                put_any(url, resource, buffer);
            }
            Mode::Delta => {
                let version = version_text(resource.version);
                let any = any_len(url, resource);
                let len = text_len(1, &version) + field_len(2, any) + text_len(3, &resource.name);
                put_header(2, len, buffer);
                put_text(1, &version, buffer);
                put_header(2, any, buffer);
                put_any(url, resource, buffer);
                put_text(3, &resource.name, buffer);
            }
        }
    }
    put_text(4, url, buffer);
    put_text(5, &response.nonce.to_string(), buffer);
    if response.mode == Mode::Delta {
        for name in &response.removed {
            put_text(6, name, buffer);
        }
    }
}

fn any_len(url: &str, resource: &Resource) -> usize {
    text_len(1, url) + field_len(2, resource.body.len())
}

fn put_any(url: &str, resource: &Resource, buffer: &mut impl BufMut) {
    put_text(1, url, buffer);
    put_header(2, resource.body.len(), buffer);
    buffer.put(resource.body.chunk());
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
