//! Applications: they know nothing of a mesh.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here takes long; a machine may.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

fn listen(port: u16) -> TcpListener {
    // Both families.
    TcpListener::bind(SocketAddr::new(IpAddr::from([0u16; 8]), port)).unwrap()
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Answers every request with what it saw: the peer, and the head of the request.
pub(crate) fn http_server(port: u16) {
    let listener = listen(port);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut writer = stream;
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        match reader.read_line(&mut head) {
                            Ok(1..) => {}
                            _ => return,
                        }
                    }
                    let peer = canonical(writer.peer_addr().unwrap());
                    let body = format!("peer: {peer}\r\n{head}");
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let last = head.to_ascii_lowercase().contains("connection: close");
                    if writer.write_all(answer.as_bytes()).is_err() || last {
                        return;
                    }
                }
            });
        }
    });
}

/// Says who is there before anybody asks, and closes when the client does.
pub(crate) fn greeter(port: u16) {
    let listener = listen(port);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let peer = canonical(stream.peer_addr().unwrap());
                let _ = stream.write_all(format!("hello {peer}\n").as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Page {
    /// A header of the request that reached the server; empty where there was none.
    pub(crate) fn header(&self, name: &str) -> String {
        let mut lines = self.body.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    /// What the server told of itself.
    pub(crate) fn told(&self, name: &str) -> String {
        self.header(name)
    }
}

/// One request on a connection of its own.
pub(crate) fn get(to: &str, host: &str) -> Page {
    try_get(to, host).unwrap_or_else(|error| panic!("GET {to}: {error}"))
}

pub(crate) fn try_get(to: &str, host: &str) -> std::io::Result<Page> {
    let mut stream = connect(to)?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Page { status, body })
}

/// Says nothing, and hears what the server has to say.
pub(crate) fn greeting(to: &str) -> String {
    let began = Instant::now();
    try_greeting(to).unwrap_or_else(|error| panic!("greeting of {to}: {error} after {:?}", began.elapsed()))
}

pub(crate) fn try_greeting(to: &str) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(connect(to)?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

pub(crate) fn connect(to: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
