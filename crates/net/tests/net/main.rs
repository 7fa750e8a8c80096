//! Real sockets on loopback: accepting, limits, TLS, WebSocket, the scope.

#[cfg(test)]
mod accept;
#[cfg(test)]
mod datagram;
#[cfg(test)]
mod dtls;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod proxy;
mod scope;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod ws;
