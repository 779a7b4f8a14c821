//! A chunked body: where its bytes are cut on their way changes nothing of what they say (request smuggling lives in such differences).
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mizzen_net::http1::Decoder;
use mizzen_net::http1::decode::{Chunk, Decoded};

/// Data, number of trailers when the body was complete, bytes behind it.
type Read = (Vec<u8>, Option<usize>, Vec<u8>);

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Read, ()> {
    let (mut decoder, mut buffer) = (Decoder::Chunked(Chunk::Size), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), 0);
    let mut complete = false;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !complete {
            match decoder.decode(&mut buffer).map_err(drop)? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::Trailers(headers) => trailers = headers.len(),
                Decoded::End => complete = true,
                Decoded::More => break,
            }
        }
    }
    Ok((data, complete.then_some(trailers), if complete { buffer.to_vec() } else { Vec::new() }))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = (usize::from(input.0).max(1), input.1);
    let (whole, cut) = (read(std::iter::once(body)), read(body.chunks(size)));
    match (&whole, &cut) {
        // What is refused is refused either way; a part of the data may have been taken before.
        (Err(()), Err(())) => {}
        _ => assert_eq!(whole, cut),
    }
});
