use std::collections::VecDeque;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A server that answers each message after `delay`, but nothing while it stands still.
struct StandIn {
    delay: Duration,
    still: Option<(Instant, Instant)>,
    is_acked: bool,
    under_way: VecDeque<(u16, Instant)>,
    seen: Arc<AtomicU64>,
}

impl StandIn {
    fn new(delay: Duration) -> Self {
        Self { delay, still: None, is_acked: true, under_way: VecDeque::new(), seen: Arc::default() }
    }
}

impl Pipe for StandIn {
    fn is_acked(&self) -> bool {
        self.is_acked
    }

    fn put(&mut self, place: u16, _: Message) {
        let mut at = Instant::now() + self.delay;
        if let Some((from, until)) = self.still
            && (from..until).contains(&at)
        {
            at = until;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.is_acked {
            self.under_way.push_back((place, at));
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn take(&mut self, taken: &mut Taken) -> io::Result<()> {
        let Some((_, first)) = self.under_way.front() else { return std::future::pending().await };
        tokio::time::sleep_until((*first).into()).await;
        let now = Instant::now();
        while let Some((place, _)) = self.under_way.pop_front_if(|(_, at)| *at <= now) {
            taken.acked.push(place);
        }
        Ok(())
    }

    async fn finish(self) -> io::Result<u64> {
        Ok(0)
    }
}

fn drive(rate: Option<f64>, window: u16, took: Duration) -> Drive {
    let from = Instant::now();
    let pace = rate.map(|rate| Steady::new(from, rate));
    Drive { pace, window, from, until: from + took, tally: Tally::new().unwrap() }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn at_a_rate_all_that_was_meant_is_sent_and_counted() {
    let drive = drive(Some(500.0), 20, 400 * MS);
    let tally = Arc::clone(&drive.tally);
    drive.run(StandIn::new(2 * MS)).await.unwrap();
    assert_eq!((read(&tally.sent), read(&tally.counted)), (200, 200));
    assert_eq!((tally.counters.latencies.len(), read(&tally.unanswered)), (200, 0));
}

/// A window of two and a standstill of 200 ms: 100 messages were meant for it, and each is measured from its own time.
#[tokio::test]
async fn what_waits_for_its_place_is_measured_from_when_it_was_meant() {
    let drive = drive(Some(500.0), 2, 400 * MS);
    let mut server = StandIn::new(Duration::ZERO);
    server.still = Some((drive.from + 100 * MS, drive.from + 300 * MS));
    let tally = Arc::clone(&drive.tally);
    drive.run(server).await.unwrap();
    let mut report = crate::report::Report::default();
    tally.counters.latencies.report("x", &mut report);
    let report = report.value();
    assert_eq!(tally.counters.latencies.len(), 200);
    assert!(report["x_p99_us"].as_u64() > Some(180_000), "{report}");
}

#[tokio::test]
async fn without_a_rate_the_window_is_kept_full() {
    let drive = drive(None, 3, 300 * MS);
    let tally = Arc::clone(&drive.tally);
    drive.run(StandIn::new(10 * MS)).await.unwrap();
    let sent = read(&tally.sent);
    // 30 turns of 3, less what a busy machine takes; what is under way at the end is heard and not counted.
    assert!((30..=93).contains(&sent), "{sent}");
    assert!(read(&tally.counted) <= sent && sent - read(&tally.counted) <= 3, "{sent} {tally:?}");
    assert_eq!(tally.counters.done(), sent);
}

#[tokio::test]
async fn who_never_answers_is_waited_for_and_counted() {
    let mut drive = drive(Some(100.0), 5, 100 * MS);
    // The end lies far enough back that the grace is nearly over.
    let back = GRACE - 150 * MS;
    drive.until -= back;
    drive.from -= back;
    drive.pace = Some(Steady::new(drive.from, 100.0));
    let tally = Arc::clone(&drive.tally);
    drive.run(StandIn::new(Duration::from_secs(60))).await.unwrap();
    assert_eq!((read(&tally.sent), read(&tally.counted), read(&tally.unanswered)), (5, 0, 10));
    assert_eq!(tally.counters.latencies.len(), 10, "they have waited until now at least");
}

#[tokio::test]
async fn what_nobody_acknowledges_is_counted_when_it_is_sent() {
    for rate in [Some(200.0), None] {
        let drive = drive(rate, 4, 100 * MS);
        let mut server = StandIn::new(MS);
        server.is_acked = false;
        let (tally, seen) = (Arc::clone(&drive.tally), Arc::clone(&server.seen));
        drive.run(server).await.unwrap();
        let sent = read(&tally.sent);
        assert_eq!((read(&seen), read(&tally.counted), tally.counters.latencies.len()), (sent, sent, 0));
        assert!(rate.is_none() || sent == 20, "{sent}");
    }
}
