//! Moves a request body to the upstream, as fast as the slower of both sides.

use std::task::{Context, Poll, ready};

use mizzen_net::body::BodyError;
use mizzen_net::http1::{self, Encoder, connection::HIGH_WATER};
use mizzen_net::http2;

use super::request::RequestBody;

pub struct Pump {
    pub body: RequestBody,
    sink: Sink,
    state: State,
}

enum Sink {
    Http1 { connection: http1::Connection, encoder: Encoder },
    Http2(http2::Sender),
}

#[derive(PartialEq, Eq)]
enum State {
    Sending,
    Flushing,
    Done,
}

#[derive(Debug)]
pub enum PumpError {
    /// The client's side failed.
    Source(BodyError),
    /// The upstream's side failed.
    Sink(String),
}

impl Pump {
    pub fn to_http1(body: RequestBody, connection: http1::Connection, encoder: Encoder) -> Self {
        let state = if encoder == Encoder::None { State::Flushing } else { State::Sending };
        Self { body, sink: Sink::Http1 { connection, encoder }, state }
    }

    /// `sender` is absent when the request ended with its head.
    pub fn to_http2(body: RequestBody, sender: http2::Sender, ended: bool) -> Self {
        let state = if ended { State::Done } else { State::Sending };
        Self { body, sink: Sink::Http2(sender), state }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        match &mut self.sink {
            Sink::Http1 { connection, encoder } => {
                if self.state == State::Sending {
                    match poll_http1(&mut self.body, connection, encoder, cx) {
                        Poll::Ready(Ok(())) => self.state = State::Flushing,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                if self.state == State::Flushing {
                    ready!(connection.poll_flush(cx)).map_err(|error| PumpError::Sink(error.to_string()))?;
                    self.state = State::Done;
                }
                Poll::Ready(Ok(()))
            }
            Sink::Http2(sender) => {
                if self.state == State::Sending {
                    ready!(poll_http2(&mut self.body, sender, cx))?;
                    self.state = State::Done;
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Tells the upstream that no more comes (a stream is reset; a connection is dropped by whoever holds it).
    pub fn cancel(&mut self) {
        if let Sink::Http2(sender) = &mut self.sink {
            sender.reset(h2::Reason::CANCEL);
        }
    }
}

fn poll_http1(
    body: &mut RequestBody,
    connection: &http1::Connection,
    encoder: &mut Encoder,
    cx: &mut Context<'_>,
) -> Poll<Result<(), PumpError>> {
    let sink = |error: &dyn std::fmt::Display| PumpError::Sink(error.to_string());
    loop {
        if connection.unsent() > HIGH_WATER {
            ready!(connection.poll_flush(cx)).map_err(|error| sink(&error))?;
        }
        match body.poll_frame(cx) {
            Poll::Pending => {
                // What is here goes out now; the rest follows when it comes.
                if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
                    return Poll::Ready(Err(sink(&error)));
                }
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                connection.queue_end(*encoder, None).map_err(|error| sink(&error))?;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(PumpError::Source(error))),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => connection.queue_data(encoder, data).map_err(|error| sink(&error))?,
                Err(frame) => {
                    connection.queue_end(*encoder, frame.trailers_ref()).map_err(|error| sink(&error))?;
                    return Poll::Ready(Ok(()));
                }
            },
        }
    }
}

fn poll_http2(body: &mut RequestBody, sender: &mut http2::Sender, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
    let sink = |error: h2::Error| PumpError::Sink(error.to_string());
    loop {
        ready!(sender.poll_sent(cx)).map_err(sink)?;
        match ready!(body.poll_frame(cx)) {
            None => return Poll::Ready(sender.end(None).map_err(sink)),
            Some(Err(error)) => return Poll::Ready(Err(PumpError::Source(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => sender.push(data),
                Err(frame) => return Poll::Ready(sender.end(frame.into_trailers().ok()).map_err(sink)),
            },
        }
    }
}
