//! Datagrams over real sockets on loopback.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;

use landfall_net::{Batch, BindError, DatagramSettings, DatagramSocket, Datagrams, Path};
use tokio::net::UdpSocket;

use crate::support::within;

async fn bind(address: &str, sockets: usize) -> Vec<DatagramSocket> {
    let settings = DatagramSettings { sockets, ..DatagramSettings::default() };
    Datagrams::bind(&address.parse().unwrap(), settings).await.unwrap()
}

async fn bind_one(address: &str) -> DatagramSocket {
    bind(address, 1).await.pop().unwrap()
}

/// The next one datagram.
async fn next(socket: &DatagramSocket) -> (Path, Vec<u8>) {
    let mut all = next_many(socket, 1).await;
    assert_eq!(all.len(), 1);
    all.pop().unwrap()
}

/// At least so many datagrams.
async fn next_many(socket: &DatagramSocket, least: usize) -> Vec<(Path, Vec<u8>)> {
    let mut batch = Batch::new();
    let mut all = Vec::new();
    while all.len() < least {
        let came = within(socket.recv(&mut batch)).await.unwrap();
        assert!(came > 0 && came == batch.len() && came == batch.iter().count());
        all.extend(batch.iter().map(|(path, bytes)| (path, bytes.to_vec())));
    }
    all
}

/// A client that blocks, though not for ever.
fn blocking() -> StdSocket {
    let socket = StdSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

async fn answered(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut answer = [0; 100];
    let (len, from) = within(client.recv_from(&mut answer)).await.unwrap();
    (answer[..len].to_vec(), from)
}

#[tokio::test]
async fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let socket = bind_one("udp://0.0.0.0:0").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for ip in ["127.0.0.1", "127.0.0.2", "127.7.7.7"] {
        let asked = SocketAddr::new(ip.parse().unwrap(), socket.local_addr().port());
        client.send_to(b"ask", asked).await.unwrap();
        let (path, bytes) = next(&socket).await;
        assert_eq!(bytes, b"ask");
        assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: Some(asked.ip()) });
        socket.try_send(&path, b"answer").unwrap();
        assert_eq!(answered(&client).await, (b"answer".to_vec(), asked));
    }
}

#[tokio::test]
async fn a_socket_of_both_families_tells_an_ipv4_peer_as_ipv4() {
    let socket = bind_one("udp://[::]:0").await;
    let port = socket.local_addr().port();
    for (client, ip) in [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.3"), ("[::1]:0", "::1")] {
        let client = UdpSocket::bind(client).await.unwrap();
        let asked = SocketAddr::new(ip.parse().unwrap(), port);
        client.send_to(b"ask", asked).await.unwrap();
        let (path, _) = next(&socket).await;
        assert_eq!(path, Path { remote: client.local_addr().unwrap(), local: Some(asked.ip()) });
        socket.try_send(&path, b"answer").unwrap();
        assert_eq!(answered(&client).await, (b"answer".to_vec(), asked));
        // Also when nobody knows which address was asked.
        socket.try_send(&Path { local: None, ..path }, b"again").unwrap();
        assert_eq!(answered(&client).await.0, b"again");
    }
}

#[tokio::test]
async fn an_ipv6_address_is_bound_and_answers() {
    let socket = bind_one("udp://[::1]:0").await;
    assert_eq!(socket.endpoint().to_string(), format!("udp://[::1]:{}", socket.local_addr().port()));
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    client.send_to(b"ask", socket.local_addr()).await.unwrap();
    let (path, _) = next(&socket).await;
    assert_eq!(path.local, Some("::1".parse::<IpAddr>().unwrap()));
    socket.try_send(&path, b"answer").unwrap();
    assert_eq!(answered(&client).await, (b"answer".to_vec(), socket.local_addr()));
}

#[tokio::test]
async fn each_of_two_listeners_answers_from_its_own_port() {
    let sockets = [bind_one("udp://127.0.0.1:0").await, bind_one("udp://127.0.0.1:0").await];
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for socket in &sockets {
        client.send_to(b"ask", socket.local_addr()).await.unwrap();
        let (path, _) = next(socket).await;
        socket.try_send(&path, b"answer").unwrap();
        assert_eq!(answered(&client).await.1, socket.local_addr());
    }
}

#[tokio::test]
async fn sockets_on_one_port_share_the_peers_and_each_peer_keeps_its_socket() {
    let sockets = bind("udp://127.0.0.1:0", 2).await;
    let at = sockets[0].local_addr();
    assert!(sockets.iter().all(|socket| socket.local_addr() == at && socket.endpoint().port() == at.port()));
    let clients: Vec<_> = (0..64).map(|_| blocking()).collect();
    for round in 0..3_u8 {
        for client in &clients {
            client.send_to(&[round], at).unwrap();
        }
    }
    let mut peers = [BTreeSet::new(), BTreeSet::new()];
    let mut came = 0;
    let mut batch = Batch::new();
    within(async {
        while came < clients.len() * 3 {
            let (which, some) = {
                let mut other = Batch::new();
                tokio::select! {
                    some = sockets[0].recv(&mut batch) => (0, some),
                    some = sockets[1].recv(&mut other) => { batch = other; (1, some) }
                }
            };
            came += some.unwrap();
            peers[which].extend(batch.iter().map(|(path, _)| path.remote));
        }
    })
    .await;
    assert_eq!(came, clients.len() * 3, "every datagram came once");
    let [first, second] = &peers;
    assert!(first.is_disjoint(second), "no peer is split");
    assert!(!first.is_empty() && !second.is_empty(), "both have work: {} and {}", first.len(), second.len());
    // Either answers, whoever was asked.
    let path = Path { remote: clients[0].local_addr().unwrap(), local: Some(at.ip()) };
    for socket in &sockets {
        socket.try_send(&path, b"answer").unwrap();
        assert_eq!(clients[0].recv_from(&mut [0; 10]).unwrap(), (6, at));
    }
}

#[tokio::test]
async fn a_second_gateway_fails_instead_of_sharing_the_port() {
    let sockets = bind("udp://127.0.0.1:0", 2).await;
    let endpoint = sockets[0].endpoint().clone();
    let settings = DatagramSettings { sockets: 2, ..DatagramSettings::default() };
    for settings in [settings, DatagramSettings::default()] {
        let error = Datagrams::bind(&endpoint, settings).await.unwrap_err();
        assert!(matches!(error, BindError::Bind { .. }));
        assert!(error.to_string().starts_with(&format!("cannot listen at {endpoint}: ")), "{error}");
    }
    drop(sockets);
    assert_eq!(Datagrams::bind(&endpoint, settings).await.unwrap().len(), 2, "the port is free again");
    let error = Datagrams::bind(&"udp://name.invalid:1".parse().unwrap(), settings).await.unwrap_err();
    assert!(matches!(error, BindError::Lookup { .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_cut_and_an_empty_datagram_is_one() {
    let socket = bind_one("udp://127.0.0.1:0").await;
    let client = blocking();
    let sizes = [0, 1, 1200, 9000, 65_507, 0, 65_507];
    let sent: Vec<Vec<u8>> = sizes.iter().zip(1..).map(|(size, fill)| vec![fill; *size]).collect();
    for bytes in &sent {
        client.send_to(bytes, socket.local_addr()).unwrap();
    }
    let came: Vec<Vec<u8>> = next_many(&socket, sent.len()).await.into_iter().map(|(_, b)| b).collect();
    assert!(came == sent);

    let path = Path { remote: client.local_addr().unwrap(), local: None };
    socket.try_send(&path, &sent[4]).unwrap();
    let mut answer = vec![0; 70_000];
    assert_eq!(client.recv(&mut answer).unwrap(), 65_507);
    assert!(socket.try_send(&path, &[0; 65_508]).is_err(), "larger than UDP");
    let nowhere = Path { remote: "127.0.0.1:0".parse().unwrap(), local: None };
    assert_eq!(socket.try_send(&nowhere, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    socket.try_send(&path, b"and still alive").unwrap();
    assert_eq!(client.recv(&mut answer).unwrap(), 15);
}

#[tokio::test]
async fn a_row_that_the_system_hands_over_as_one_is_many_datagrams() {
    let socket = bind_one("udp://127.0.0.1:0").await;
    let client = quinn_client();
    let (io, state) = &client;
    // Ten of 100 bytes and one of 7, in one call.
    let row: Vec<u8> = (0..=10_u8).flat_map(|i| vec![i; if i == 10 { 7 } else { 100 }]).collect();
    let transmit = quinn_udp::Transmit {
        destination: socket.local_addr(),
        ecn: None,
        contents: &row,
        segment_size: (state.max_gso_segments() > 10).then_some(100),
        src_ip: None,
    };
    state.try_send(io.into(), &transmit).unwrap();
    if transmit.segment_size.is_none() {
        // A kernel without segmentation: one datagram it is.
        assert_eq!(next(&socket).await.1, row);
        return;
    }
    let came = next_many(&socket, 11).await;
    assert_eq!(came.len(), 11);
    for (i, (path, bytes)) in (0..).zip(came) {
        assert_eq!(bytes, vec![i; if i == 10 { 7 } else { 100 }]);
        assert_eq!(path.remote, io.local_addr().unwrap());
    }
}

fn quinn_client() -> (StdSocket, quinn_udp::UdpSocketState) {
    let io = StdSocket::bind("127.0.0.1:0").unwrap();
    let state = quinn_udp::UdpSocketState::new((&io).into()).unwrap();
    (io, state)
}

#[tokio::test]
async fn a_peer_that_is_gone_does_not_end_the_socket() {
    let socket = bind_one("udp://127.0.0.1:0").await;
    let gone = StdSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = Path { remote: gone, local: None };
    for _ in 0..10 {
        // The first may bring an ICMP answer, which a later one may be told of.
        let _ = socket.try_send(&path, b"anybody there?");
    }
    let client = blocking();
    client.send_to(b"here", socket.local_addr()).unwrap();
    let (path, bytes) = next(&socket).await;
    assert_eq!(bytes, b"here");
    socket.try_send(&path, b"welcome").unwrap();
    assert_eq!(client.recv(&mut [0; 10]).unwrap(), 7);
}

#[tokio::test]
async fn what_was_sent_to_a_group_is_not_ours() {
    let socket = bind_one("udp://0.0.0.0:0").await;
    let port = socket.local_addr().port();
    // The group is joined by another socket of this machine; a wildcard socket hears it all the same.
    let group = "224.0.1.187".parse().unwrap();
    let member = StdSocket::bind("0.0.0.0:0").unwrap();
    let client = blocking();
    let joined = member.join_multicast_v4(&group, &"127.0.0.1".parse().unwrap());
    if joined.is_ok() {
        let _ = client.send_to(b"everybody", (group, port));
    }
    client.send_to(b"you", ("127.0.0.1", port)).unwrap();
    assert_eq!(next(&socket).await.1, b"you");
}

#[tokio::test]
async fn the_receive_buffer_is_asked_for() {
    let endpoint = "udp://127.0.0.1:0".parse().unwrap();
    let small = DatagramSettings { sockets: 1, receive_buffer: 32 * 1024 };
    let large = DatagramSettings { receive_buffer: 128 * 1024, ..small };
    let mut sizes = Vec::new();
    for settings in [small, large] {
        let sockets = Datagrams::bind(&endpoint, settings).await.unwrap();
        sizes.push(sockets[0].receive_buffer().unwrap());
    }
    assert!(sizes[0] >= 32 * 1024 && sizes[1] >= 128 * 1024 && sizes[0] < sizes[1], "{sizes:?}");
}
