//! The server behind the proxies: HTTP/1.1 keep-alive, a fixed body, one thread with an event loop.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts it on a free port and returns its address.
pub(crate) fn start(body_bytes: usize) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\n\r\n").into_bytes();
    response.resize(response.len() + body_bytes, b'x');
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let response: Rc<[u8]> = response.into();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, Rc::clone(&response)));
            }
        });
    });
    Ok(address)
}

/// Answers every request head; the load has no bodies. An error ends the connection, which is all a client notices.
async fn serve(mut stream: TcpStream, response: Rc<[u8]>) {
    stream.set_nodelay(true).ok();
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => filled += count,
        }
        while let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            if stream.write_all(&response).await.is_err() {
                return;
            }
        }
        if filled == buffer.len() {
            return;
        }
    }
}
