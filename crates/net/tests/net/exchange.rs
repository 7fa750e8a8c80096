//! Reading and writing without a held buffer.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use landfall_net::{Exchanged, READ_CHUNK, close, exchange, receive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::support::within;

#[tokio::test]
async fn an_idle_wait_holds_no_buffer_and_loses_nothing_when_dropped() {
    let (mut near, mut far) = duplex(1024);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    for _ in 0..3 {
        tokio::select! {
            biased;
            moved = exchange(&mut near, Some(&mut input), &mut output) => panic!("nothing to move: {moved:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!((input.capacity(), output.capacity()), (0, 0));
    }
    far.write_all(b"hello").await.unwrap();
    let moved = within(exchange(&mut near, Some(&mut input), &mut output)).await.unwrap();
    assert_eq!((moved, &input[..]), (Exchanged::Read(5), &b"hello"[..]));
    drop(far);
    let moved = within(exchange(&mut near, Some(&mut input), &mut output)).await.unwrap();
    assert_eq!((moved, &input[..]), (Exchanged::End, &b"hello"[..]));
}

#[tokio::test]
async fn a_reader_that_stops_does_not_stop_what_it_sends() {
    let (mut near, mut far) = duplex(64);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::from(&[7; 100][..]));
    assert_eq!(within(exchange(&mut near, Some(&mut input), &mut output)).await.unwrap(), Exchanged::Wrote);
    assert_eq!(output.len(), 36, "what the pipe took is gone, the rest stays");
    far.write_all(b"in").await.unwrap();
    let moved = within(exchange(&mut near, Some(&mut input), &mut output)).await.unwrap();
    assert_eq!((moved, &input[..], output.len()), (Exchanged::Read(2), &b"in"[..], 36));
    let mut got = vec![0; 100];
    let (got_all, wrote) = tokio::join!(far.read_exact(&mut got), exchange(&mut near, None, &mut output));
    assert_eq!((got_all.unwrap(), wrote.unwrap()), (100, Exchanged::Wrote));
    assert!(output.is_empty() && output.capacity() == 0, "an emptied output gives its memory back");
}

#[tokio::test]
async fn without_an_input_nothing_is_read() {
    let (mut near, mut far) = duplex(64);
    far.write_all(b"waits").await.unwrap();
    let mut output = BytesMut::from(&b"out"[..]);
    assert_eq!(within(exchange(&mut near, None, &mut output)).await.unwrap(), Exchanged::Wrote);
    let mut input = BytesMut::new();
    assert_eq!(within(receive(&mut near, &mut input)).await.unwrap(), 5);
}

#[tokio::test]
async fn one_read_is_bounded() {
    let (mut near, mut far) = duplex(4 * READ_CHUNK);
    far.write_all(&vec![1; 2 * READ_CHUNK]).await.unwrap();
    let mut input = BytesMut::new();
    assert_eq!(within(receive(&mut near, &mut input)).await.unwrap(), READ_CHUNK);
}

#[tokio::test]
async fn a_peer_that_is_gone_is_an_error_to_write_to() {
    let (mut near, far) = duplex(8);
    drop(far);
    let mut output = BytesMut::from(&b"out"[..]);
    let error = within(exchange(&mut near, None, &mut output)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn the_last_words_arrive_although_input_is_left_unread() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(&[0; 100_000]).await.unwrap();
    server.readable().await.unwrap();
    server.write_all(b"goodbye").await.unwrap();
    let ((), said) = tokio::join!(within(close(server, Duration::from_secs(10))), async {
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        drop(client);
        said
    });
    assert_eq!(said, b"goodbye");
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_when_the_peer_stays() {
    let (near, far) = duplex(8);
    let began = tokio::time::Instant::now();
    close(near, Duration::from_secs(2)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    drop(far);
}
