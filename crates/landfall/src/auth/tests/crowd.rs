//! Passwords under a crowd: memory, and who is kept waiting. Real hashes, and real time with a bound.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

/// `secret`, hashed as `landfall hash-password` does.
fn costly() -> String {
    crate::auth::hash_password(b"secret").unwrap()
}

fn from(address: impl Into<IpAddr>, name: &str, password: &str) -> Credentials {
    Credentials { remote_address: SocketAddr::new(address.into(), 5), ..user(name, password) }
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_wrong_passwords_leave_no_more_memory_than_two_of_them_need() {
    let world = World::new(&format!("[[device]]\nid = \"a\"\npassword = \"{}\"\n", costly()));
    let auth = Arc::new(DevicesAuth::open(&world.path, (2, 4096)).unwrap());
    let before = resident();
    let mut tries = JoinSet::new();
    for n in 0..60 {
        let auth = Arc::clone(&auth);
        let credentials = from([198, 51, 100, n], "a", "wrong");
        tries.spawn(async move { auth.authenticate(&credentials).await.is_err() });
    }
    assert!(tries.join_all().await.into_iter().all(|refused| refused));
    let grown = resident().saturating_sub(before);
    // Two permits of 19 MiB, and what the threads and the tasks take.
    assert!(grown < 2 * (19 << 20) + (24 << 20), "{grown} bytes");
}

/// Logs in with wrong passwords, 200 a second, until it is dropped.
fn flood(auth: &Arc<DevicesAuth>, credentials: impl Fn(u32) -> Credentials + Send + 'static) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    let auth = Arc::clone(auth);
    flood.spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_millis(5));
        let mut tries = JoinSet::new();
        for n in 0.. {
            clock.tick().await;
            let (auth, credentials) = (Arc::clone(&auth), credentials(n));
            tries.spawn(async move {
                let within = Duration::from_secs(10);
                let _ = tokio::time::timeout(within, auth.authenticate(&credentials)).await;
            });
            while tries.try_join_next().is_some() {}
        }
    });
    flood
}

fn kind(n: u32) -> usize {
    usize::try_from(n).unwrap()
}

/// The devices were not verified before, as just after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_wrong_logins_a_second_keep_no_hashed_device_out() {
    let entries: String =
        (0..10).map(|n| format!("[[device]]\nid = \"d{n}\"\npassword = \"{}\"\n", costly())).collect();
    let world = World::new(&entries);
    let unknown = |n: u32| from(n.to_be_bytes(), "nobody", "x");
    let guessed = |n: u32| from([203, 0, 113, 7], &format!("d{}", n % 10), "wrong");
    let forged = |n: u32| Credentials {
        transport: Transport::Udp,
        ..from(n.to_be_bytes(), &format!("d{}", n % 10), "x")
    };
    let all = move |n: u32| [unknown(n), guessed(n), forged(n)][kind(n) % 3].clone();
    let kinds: [Box<dyn Fn(u32) -> Credentials + Send>; 4] =
        [Box::new(unknown), Box::new(guessed), Box::new(forged), Box::new(all)];
    for (at, credentials) in kinds.into_iter().enumerate() {
        let auth = Arc::new(DevicesAuth::open(&world.path, (2, 4096)).unwrap());
        let flood = flood(&auth, credentials);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        for n in 0..10 {
            let shown = from([192, 0, 2, n], &format!("d{n}"), "secret");
            let let_in = tokio::time::timeout(Duration::from_secs(10), auth.authenticate(&shown)).await;
            assert!(let_in.is_ok_and(|answer| answer.is_ok()), "kind {at}, device {n}");
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "kind {at}: ten devices took {took:?}");
        drop(flood);
    }
}
