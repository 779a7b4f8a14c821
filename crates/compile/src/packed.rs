//! [`Packed`]: an accepted resource as it came, kept small. Nothing is obeyed from it: it is for dumps, and for the disk.
//!
//! The resources of one type resemble one another, so each is compressed (LZ4) against one that came before. A thousand
//! clusters that differ in their names then take a tenth of their bytes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The encoded message of a resource and its version. Cheap to clone.
#[derive(Clone, Default)]
pub struct Packed(Arc<Inner>);

#[derive(Default)]
struct Inner {
    version: Box<str>,
    length: usize,
    bytes: Box<[u8]>,
    /// What `bytes` refer to beside themselves.
    sample: Option<Arc<[u8]>>,
    /// `bytes` are the message itself, which did not get smaller.
    plain: bool,
}

/// Packs the resources of one type.
#[derive(Default)]
pub(crate) struct Packer {
    sample: Option<Arc<[u8]>>,
    /// How many there were.
    samples: usize,
}

/// A sample is good for a message that becomes so many times smaller by it.
const GAIN: usize = 5;
/// Where nothing resembles anything there is no use in trying on, and each sample is kept whole.
const SAMPLES: usize = 16;
/// LZ4 refers back so far at most.
const REACH: usize = 64 << 10;
/// A message that is shorter than this is a bad example of the others.
const SAMPLE: usize = 64;

impl Packed {
    /// Without another to compress it against.
    pub fn alone(version: &str, body: &[u8]) -> Self {
        Self::new(version, body, None)
    }

    fn new(version: &str, body: &[u8], sample: Option<&Arc<[u8]>>) -> Self {
        let bytes = match sample {
            Some(sample) => lz4_flex::block::compress_with_dict(body, sample),
            None => lz4_flex::block::compress(body),
        };
        let plain = bytes.len() >= body.len();
        Self(Arc::new(Inner {
            version: version.into(),
            length: body.len(),
            // Boxed anew: what the compressor gives back has room for the worst case.
            bytes: if plain { body.into() } else { bytes.as_slice().into() },
            sample: sample.filter(|_| !plain).cloned(),
            plain,
        }))
    }

    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// The encoded message, without the `Any` around it.
    pub fn unpack(&self) -> Bytes {
        let Inner { length, bytes, sample, plain, .. } = &*self.0;
        if *plain {
            return Bytes::copy_from_slice(bytes);
        }
        let sample = sample.as_deref().unwrap_or_default();
        // What was packed here can be unpacked.
        lz4_flex::block::decompress_with_dict(bytes, *length, sample).map(Bytes::from).unwrap_or_default()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("version", &self.version())
            .field("length", &self.0.length)
            .finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn pack(&mut self, version: &str, body: &[u8]) -> Packed {
        let packed = Packed::new(version, body, self.sample.as_ref());
        // Those that are unlike the others come first (Istio: `BlackHoleCluster`). One that its sample was no help for is
        // the next sample; the old one goes with the last that needs it.
        let helped = packed.0.bytes.len() * GAIN <= body.len();
        if !helped && self.samples < SAMPLES && (SAMPLE..=REACH).contains(&body.len()) {
            self.sample = Some(body.into());
            self.samples += 1;
        }
        packed
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: usize) -> Vec<u8> {
        format!(
            "outbound|80||svc-{number}.ns-1.svc.cluster.local {} spiffe://cluster.local/ns/ns-1/sa/svc-{number}",
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext ".repeat(8)
        )
        .into_bytes()
    }

    #[test]
    fn resources_that_resemble_one_another_take_a_fraction() {
        let mut packer = Packer::default();
        let other = "something else altogether, which begins the list and is nothing like what follows after it";
        assert_eq!(packer.pack("v", other.as_bytes()).unpack(), other);
        let packed: Vec<_> = (0..100).map(|number| packer.pack("v", &text(number))).collect();
        let (mut whole, mut kept) = (0, 0);
        for (number, packed) in packed.iter().enumerate() {
            assert_eq!(packed.unpack(), text(number));
            whole += text(number).len();
            kept += packed.0.bytes.len();
        }
        assert!(kept * 8 < whole, "{kept} of {whole}");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
            let mut packer = Packer::default();
            for body in &bodies {
                let packed = packer.pack("v1", body);
                prop_assert_eq!(packed.unpack(), body.as_slice());
                prop_assert_eq!(packed.version(), "v1");
            }
        }
    }
}
