use std::collections::BTreeMap;

use super::*;

#[test]
fn a_heartbeat_is_the_line_and_names_lead_back() {
    let mut out = Vec::new();
    put_heartbeat(&mut out, 17, 60, Some(4)).unwrap();
    assert_eq!(out, b"LF1 meter-0000017 hb=60 seq=4 ack");
    put_heartbeat(&mut out, 1_234_567, 1, None).unwrap();
    assert_eq!(out, b"LF1 meter-1234567 hb=1");
    assert_eq!((device("meter-0000017"), device("pump-1"), device("meter-x")), (Some(17), None, None));
    assert_eq!(
        (acked(b"LF1 ack seq=12"), acked(b"LF1 ack seq=12\n"), acked(b"LF1 ack")),
        (Some(12), Some(12), None)
    );
}

/// A stand-in that acks, but for every `lossy`-th datagram, which it never sees. Returns what it heard of whom.
async fn stand_in(
    socket: UdpSocket,
    lossy: usize,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, Vec<SocketAddr>> {
    let (mut heard, mut buffer, mut count) = (BTreeMap::new(), [0; 256], 0);
    while !stop.load(Ordering::Relaxed) {
        let receiving = tokio::time::timeout(Duration::from_millis(20), socket.recv_from(&mut buffer));
        let Ok(Ok((length, from))) = receiving.await else { continue };
        count += 1;
        if count % lossy == 0 {
            continue;
        }
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        heard.entry(words[1].to_owned()).or_insert_with(Vec::new).push(from);
        if let Some(seq) = words.iter().find(|word| word.starts_with("seq=")) {
            assert_eq!(words.last(), Some(&"ack"));
            socket.send_to(format!("LF1 ack {seq}").as_bytes(), from).await.unwrap();
        }
    }
    heard
}

async fn with_stand_in(
    lossy: usize,
    devices: u32,
) -> (Flock, JoinSet<BTreeMap<String, Vec<SocketAddr>>>, Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let (stop, mut running) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    running.spawn(stand_in(socket, lossy, Arc::clone(&stop)));
    (Flock::open(server, devices, 3, 30).await.unwrap(), running, stop)
}

#[tokio::test]
async fn what_is_lost_is_sent_again_from_the_same_socket() {
    let (flock, mut running, stop) = with_stand_in(7, 500).await;
    let first = flock.deliver(0..500, 60, 0).await.unwrap();
    let second = flock.deliver(100..103, 60, 1).await.unwrap();
    assert!(first.again >= 500 / 7, "{first:?} {second:?}");
    stop.store(true, Ordering::Relaxed);
    let heard = running.join_next().await.unwrap().unwrap();
    assert_eq!(heard.len(), 500);
    assert!(heard.values().all(|from| from.iter().all(|address| *address == from[0])));
    assert_eq!(heard["meter-0000101"].len(), 2);
}

#[tokio::test]
async fn a_storm_goes_on_when_marks_are_lost() {
    let (flock, mut running, stop) = with_stand_in(5, 100).await;
    let ending = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (stalls, ()) = tokio::join!(flock.storm(60, Arc::clone(&stop)), ending);
    stalls.unwrap();
    let heard = running.join_next().await.unwrap().unwrap();
    assert_eq!(heard.len(), 100);
}

#[tokio::test]
async fn devices_that_are_held_back_wait() {
    let (flock, mut running, stop) = with_stand_in(usize::MAX, 50).await;
    flock.pause().store(true, Ordering::Relaxed);
    let held = tokio::time::timeout(Duration::from_millis(50), flock.deliver(0..50, 60, 0)).await;
    assert!(held.is_err());
    flock.pause().store(false, Ordering::Relaxed);
    flock.deliver(0..50, 60, 0).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let heard = running.join_next().await.unwrap().unwrap();
    assert!(heard.values().all(|from| from.len() == 1), "nobody spoke while held back");
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    drop(socket);
    let flock = Flock::open(server, 10, 1, 4).await.unwrap();
    let error = flock.deliver(0..10, 60, 0).await.unwrap_err();
    assert!(error.contains(&server.to_string()), "{error}");
}
