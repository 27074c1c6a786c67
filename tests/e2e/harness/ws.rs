//! A WebSocket client.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::wait::{secs, within};

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn open(addr: SocketAddr, host: &str, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        Self::over(stream, host, path).await
    }

    pub async fn over(stream: TcpStream, host: &str, path: &str) -> Result<Self, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let handshake = tokio_tungstenite::client_async(format!("ws://{host}{path}"), stream);
        let (socket, _answer) = within(secs(20), "the WebSocket handshake", handshake).await.map_err(|error| error.to_string())?;
        Ok(Self(socket))
    }

    /// Waits until the server says why it closes.
    pub async fn close_code(&mut self) -> Result<u16, String> {
        let closed = tokio::time::timeout(secs(30), async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return Ok(u16::from(frame.code)),
                    Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                    other => return Err(format!("{other:?}")),
                }
            }
        });
        closed.await.map_err(|_| "no Close within 30 s".to_owned())?
    }

    /// Sends the text and waits until it comes back.
    pub async fn echo(&mut self, text: &str) -> Result<(), String> {
        self.0.send(Message::text(text.to_owned())).await.map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(secs(20), async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(answer))) => return Ok(answer.to_string()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return Err(format!("{other:?}")),
                }
            }
        });
        let answer = answer.await.map_err(|_| "no echo within 20 s".to_owned())??;
        if answer == text { Ok(()) } else { Err(format!("{text:?} came back as {answer:?}")) }
    }
}
