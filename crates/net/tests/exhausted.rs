//! Running out of file descriptors: alone in its process, because the limit is the process's.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd as _;
    use std::sync::Arc;
    use std::time::Duration;

    use landfall_net::{
        AcceptSettings, Accepted, Gate, Limits, Listener, Refusal, Scope, Serve, Stream, StreamKind,
    };
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Writes one byte and holds the connection until its peer goes.
    struct Greet;

    impl Serve for Greet {
        async fn serve<S: Stream>(self: Arc<Self>, mut connection: Accepted<S>) {
            let _ = connection.stream.write_all(b"!").await;
            let _ = connection.stream.read_u8().await;
        }

        fn refused(&self, _: SocketAddr, _: StreamKind, _: Refusal) {}
    }

    async fn greeted(client: &mut TcpStream) -> bool {
        tokio::time::timeout(Duration::from_secs(20), client.read_u8()).await.expect("in time").is_ok()
    }

    #[tokio::test]
    async fn what_cannot_be_accepted_now_is_accepted_when_there_is_room() {
        let scope = Scope::new();
        let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let at = listener.local_addr().unwrap();
        listener.run(&scope, Arc::new(Greet), Gate::new(Limits::default()), AcceptSettings::default());
        let mut early = TcpStream::connect(at).await.unwrap();
        assert!(greeted(&mut early).await);

        // All in the backlog: connecting blocks this thread, which is the loop's too.
        let clients: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        let limit = getrlimit(Resource::Nofile);
        let room_for_one = {
            let lowest_free = std::fs::File::open("/proc/self/stat").unwrap();
            u64::try_from(lowest_free.as_raw_fd()).unwrap() + 1
        };
        setrlimit(Resource::Nofile, Rlimit { current: Some(room_for_one), maximum: limit.maximum }).unwrap();
        // The loop takes what it can, and pauses instead of spinning or ending: itself, the early one and one more.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(scope.len(), 3);

        setrlimit(Resource::Nofile, limit).unwrap();
        for client in clients {
            client.set_nonblocking(true).unwrap();
            assert!(greeted(&mut TcpStream::from_std(client).unwrap()).await, "the backlog kept it");
        }
        drop(early);
        assert!(scope.drain(Duration::from_secs(10)).await.is_clean());
    }
}
