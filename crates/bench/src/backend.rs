//! The server behind the proxies: HTTP/1.1 keep-alive, a fixed body, one thread per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Starts it on a free port and returns its address.
pub(crate) fn start(body_bytes: usize) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\n\r\n").into_bytes();
    response.resize(response.len() + body_bytes, b'x');
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let response = response.clone();
            std::thread::spawn(move || serve(stream, &response));
        }
    });
    Ok(address)
}

/// Answers every request head; the load has no bodies. An error ends the connection, which is all a client notices.
fn serve(mut stream: TcpStream, response: &[u8]) {
    stream.set_nodelay(true).ok();
    let mut buffer = [0; 16 * 1024];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return,
            Ok(count) => filled += count,
        }
        while let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            if stream.write_all(response).is_err() {
                return;
            }
        }
        if filled == buffer.len() {
            return;
        }
    }
}
