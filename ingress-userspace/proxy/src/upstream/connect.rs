//! Opens a connection to an endpoint.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use super::ForwardError;

/// Connects to `endpoint`, with Nagle's algorithm off.
///
/// # Errors
/// The endpoint refuses, cannot be reached, or does not accept within `limit`.
///
/// # Cancel safety
/// Dropping the future closes the half-open connection.
pub async fn connect(endpoint: SocketAddr, limit: Duration) -> Result<TcpStream, ForwardError> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(endpoint))
        .await
        .map_err(|_| ForwardError::ConnectTimeout { endpoint })?
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|source| match source.kind() {
            // The kernel gave up before we did.
            std::io::ErrorKind::TimedOut => ForwardError::ConnectTimeout { endpoint },
            _ => ForwardError::Connect { endpoint, source },
        })?;
    Ok(stream)
}
