use std::collections::VecDeque;
use std::task::Waker;

use mizzen_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tonic::Code;

use super::*;
use crate::wire::DeltaResponse;
use crate::{Mode, Resource, ResourceType};

fn response(count: usize, size: usize) -> Response {
    let resources = (0..count).map(|index| Arc::new(Resource::new(format!("r{index}"), vec![1; size]))).collect();
    Response { mode: Mode::Delta, kind: ResourceType::Cluster, nonce: 1, version: 1, resources, removed: Vec::new() }
}

fn poll(body: &mut ResponseBody) -> Poll<Option<Frame<Bytes>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())).map(|frame| frame.map(Result::unwrap))
}

fn body(sent: Vec<Result<Response, Status>>) -> ResponseBody {
    let (responses, queue) = mpsc::channel(sent.len().max(1));
    for response in sent {
        responses.try_send(response.map(Outgoing::Response)).unwrap();
    }
    ResponseBody::new(queue)
}

#[test]
fn responses_and_the_end_are_written() {
    for (end, code) in [(None, "0"), (Some(Status::unavailable("stopping")), "14")] {
        let ends = end.is_some();
        let mut body =
            body([Ok(response(100, 900)), Ok(response(1, 1 << 20))].into_iter().chain(end.map(Err)).collect());
        let mut read = BytesMut::new();
        let trailers = loop {
            let Poll::Ready(Some(frame)) = poll(&mut body) else { panic!("it goes on to its end") };
            match frame.into_data() {
                Ok(data) => read.put(data),
                Err(frame) => break frame.into_trailers().unwrap(),
            }
        };
        assert_eq!(trailers["grpc-status"], code);
        assert_eq!(trailers.get("grpc-message").is_some(), ends);
        assert!(matches!(poll(&mut body), Poll::Ready(None)) && body.is_end_stream());
        for (count, size) in [(100, 900), (1, 1 << 20)] {
            assert_eq!(read.get_u8(), 0);
            let length = read.get_u32() as usize;
            let message = DeltaResponse::decode(read.split_to(length)).unwrap();
            assert_eq!(message.resources.len(), count);
            assert!(message.resources.iter().all(|it| it.resource.as_ref().unwrap().value.len() == size));
        }
        assert!(read.is_empty());
    }
}

#[test]
fn no_more_is_gathered_than_there_is_room_for() {
    let mut body = body(vec![Ok(response(1000, 1000))]);
    let mut unwritten = VecDeque::new();
    for _ in 0..AHEAD {
        let Poll::Ready(Some(frame)) = poll(&mut body) else { panic!("there is room") };
        unwritten.push_back(frame);
    }
    assert!(poll(&mut body).is_pending());
    drop(unwritten.pop_front());
    let Poll::Ready(Some(frame)) = poll(&mut body) else { panic!("one piece was written: there is room for one") };
    assert!(poll(&mut body).is_pending());
    drop((frame, unwritten));
    assert!(poll(&mut body).is_ready());
}

/// A body that brings these bytes.
struct Sent(VecDeque<Bytes>);

impl Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn framed(request: &DeltaDiscoveryRequest) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.put_u32(u32::try_from(request.encoded_len()).unwrap());
    request.encode(&mut bytes).unwrap();
    bytes
}

/// What comes of bytes that arrive so many at a time: names asked for, and how it ends.
fn read(bytes: &[u8], at_once: usize) -> (Vec<Vec<String>>, Option<Code>) {
    let sent = Sent(bytes.chunks(at_once).map(Bytes::copy_from_slice).collect());
    let mut requests = Requests::<_, DeltaDiscoveryRequest>::new(sent, 1000);
    let mut names = Vec::new();
    loop {
        let Poll::Ready(next) = Pin::new(&mut requests).poll_next(&mut Context::from_waker(Waker::noop())) else {
            panic!("everything is there")
        };
        match next {
            Some(Ok(request)) => names.push(request.resource_names_subscribe),
            Some(Err(status)) => return (names, Some(status.code())),
            None => return (names, None),
        }
        assert!(!requests.read.is_empty() || requests.read.capacity() == 0, "nothing is kept");
    }
}

#[test]
fn requests_are_read_however_they_are_cut() {
    let asks = |names: &[&str]| DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let bytes = [framed(&asks(&["a", "b"])), framed(&asks(&[])), framed(&asks(&["c"]))].concat();
    for at_once in 1..=bytes.len() {
        let (names, end) = read(&bytes, at_once);
        assert_eq!((names, end), (vec![vec!["a".to_owned(), "b".into()], vec![], vec!["c".into()]], None), "{at_once}");
    }
    let (names, end) = read(&bytes[..bytes.len() - 1], 7);
    assert_eq!((names.len(), end), (2, Some(Code::Internal)));
    assert_eq!(read(&framed(&asks(&["x"; 400])), 100).1, Some(Code::OutOfRange));
    assert_eq!(read(&[1, 0, 0, 0, 1, 0], 6).1, Some(Code::Unimplemented));
    assert_eq!(read(&[0, 0, 0, 0, 1, 0xff], 6).1, Some(Code::InvalidArgument));
}

#[test]
fn an_answer_keeps_its_place_until_it_is_written() {
    let places = Arc::new(Semaphore::new(1));
    let message = || {
        let place = places.clone().try_acquire_owned().unwrap();
        Outgoing::message(&DeltaDiscoveryRequest { type_url: "t".to_owned(), ..Default::default() }, place).unwrap()
    };
    let (responses, queue) = mpsc::channel(1);
    responses.try_send(Ok(message())).unwrap();
    let mut body = ResponseBody::new(queue);
    let Poll::Ready(Some(frame)) = poll(&mut body) else { panic!("it is written") };
    let mut data = frame.into_data().unwrap();
    assert_eq!(places.available_permits(), 0, "it lies in a buffer still");
    data.advance(FRAME_HEADER);
    assert_eq!(DeltaDiscoveryRequest::decode(data.clone()).unwrap().type_url, "t");
    drop(data);
    assert_eq!(places.available_permits(), 1);
    // Nobody reads it at all.
    responses.try_send(Ok(message())).unwrap();
    drop(body);
    assert_eq!(places.available_permits(), 1);
}
