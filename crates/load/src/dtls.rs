//! `dtls`: clients with a pre-shared key at any server of DTLS 1.2. What a handshake, an idle session and a record cost it.
//!
//! Owns: the course of each measurement. Does not own: one client ([`client`]), who the clients are ([`fleet`]), what the
//! kernel dropped ([`queue`]).

mod client;
mod fleet;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::process::{Memory, add_cpu, cpu};
use crate::progress::{Counters, Progress};
use crate::report::Report;
pub(crate) use client::{Client, Scratch};
pub(crate) use fleet::{Clients, Fleet, Shaken};

/// A record that is not answered for so long is taken for lost.
const UNANSWERED: Duration = Duration::from_millis(250);
/// Records that a session sends before the others have their turn, where nobody answers.
const TURN: u32 = 32;

/// Settings of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Dtls {
    #[command(flatten)]
    clients: Clients,
    /// Process id of the server: its CPU time and its resident memory are measured.
    #[arg(long, global = true)]
    pid: Option<u32>,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Clone, Debug, Subcommand)]
enum Measure {
    /// Handshakes as fast as the server does them, each with one datagram and a close.
    Handshakes {
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        count: u32,
        /// Clients at the same time.
        #[arg(long, default_value_t = 16)]
        at_once: u32,
    },
    /// Opens sessions, says one datagram in each, holds them, and measures the server's memory before and with them.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        sessions: u32,
        /// Sessions being opened at the same time.
        #[arg(long, default_value_t = 16)]
        at_once: u32,
        /// Seconds to hold them before measuring.
        #[arg(long, default_value_t = 2)]
        hold: u64,
        /// Nothing is said in them.
        #[arg(long)]
        mute: bool,
    },
    /// Records in sessions that stand already.
    Records {
        /// Sessions.
        #[arg(long, default_value_t = 100)]
        sessions: u32,
        /// Unanswered records of a session, if records are answered.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        window: u32,
        /// Seconds that are counted.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// Seconds before, not counted.
        #[arg(long, default_value_t = 1)]
        warmup: u64,
    },
}

/// What all clients together went through.
struct Tally {
    /// Handshakes that came to nothing, and what became of the first of them.
    lost: u32,
    first_lost: Option<String>,
    /// Flights and datagrams that were sent again.
    flights_again: u64,
    said_again: u64,
    /// From the ClientHello to the Finished of the server, in microseconds.
    latencies: Histogram<u64>,
    open: Vec<Client>,
}

impl Tally {
    fn new() -> Result<Self, String> {
        let latencies = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| error.to_string())?;
        Ok(Self { lost: 0, first_lost: None, flights_again: 0, said_again: 0, latencies, open: Vec::new() })
    }

    fn add(&mut self, other: Self) -> Result<(), String> {
        self.lost += other.lost;
        self.first_lost = self.first_lost.take().or(other.first_lost);
        self.flights_again += other.flights_again;
        self.said_again += other.said_again;
        self.latencies.add(other.latencies).map_err(|error| error.to_string())?;
        self.open.extend(other.open);
        Ok(())
    }

    fn lose(&mut self, why: String) {
        self.lost += 1;
        self.first_lost.get_or_insert(why);
    }

    fn report(&self, report: &mut Report) {
        report.add("lost", self.lost);
        if let Some(why) = &self.first_lost {
            report.add("first_lost", why.as_str());
        }
        report.add("flights_sent_again", self.flights_again).add("datagrams_sent_again", self.said_again);
        for (name, at) in [("handshake_p50_us", 0.5), ("handshake_p99_us", 0.99)] {
            report.add(name, self.latencies.value_at_quantile(at));
        }
    }
}

/// What becomes of a client whose handshake has succeeded.
#[derive(Clone, Copy)]
struct Then {
    /// It says one datagram.
    speaks: bool,
    /// It says goodbye.
    leaves: bool,
}

impl Dtls {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        let fleet = Arc::new(Fleet::new(&self.clients)?);
        let mut report = Report::default();
        match self.measure {
            Measure::Handshakes { count, at_once } => {
                self.handshakes(&fleet, (count, at_once), progress, &mut report).await?;
            }
            Measure::Idle { sessions, at_once, hold, mute } => {
                let memory = Memory::before(self.pid)?;
                let then = Then { speaks: !mute, leaves: false };
                let opened = self.open(&fleet, (sessions, at_once), then, progress, &mut report).await?;
                tokio::time::sleep(Duration::from_secs(hold)).await;
                report.add("sessions", opened.open.len());
                if let Some(memory) = memory {
                    memory.report(opened.open.len(), "bytes_per_session", &mut report)?;
                }
                leave(opened.open).await?;
            }
            Measure::Records { sessions, window, seconds, warmup } => {
                let then = Then { speaks: false, leaves: false };
                let opened = self.open(&fleet, (sessions, 16), then, progress, &mut report).await?;
                let (warmup, seconds) = (Duration::from_secs(warmup), Duration::from_secs(seconds));
                let window = self.clients.answered.then_some(window);
                self.records(opened.open, window, (warmup, seconds), &mut report).await?;
            }
        }
        Ok(report)
    }

    fn cpu(&self) -> Result<Option<Duration>, String> {
        self.pid.map(cpu).transpose()
    }

    async fn handshakes(
        &self,
        fleet: &Arc<Fleet>,
        (count, at_once): (u32, u32),
        progress: Progress,
        report: &mut Report,
    ) -> Result<(), String> {
        let before = self.cpu()?;
        let then = Then { speaks: true, leaves: true };
        self.open(fleet, (count, at_once), then, progress, report).await?;
        if let (Some(before), Some(after)) = (before, self.cpu()?) {
            add_cpu(report, "handshake", after.saturating_sub(before), u64::from(count));
        }
        Ok(())
    }

    /// So many clients come, each when one of those before it is through.
    async fn open(
        &self,
        fleet: &Arc<Fleet>,
        (count, at_once): (u32, u32),
        then: Then,
        progress: Progress,
        report: &mut Report,
    ) -> Result<Tally, String> {
        let counters = Counters::new()?;
        let (started, next, mut lanes) = (Instant::now(), Arc::new(AtomicU32::new(0)), JoinSet::new());
        for _ in 0..at_once.clamp(1, count.max(1)) {
            lanes.spawn(lane(Arc::clone(fleet), Arc::clone(&next), count, (then, Arc::clone(&counters))));
        }
        let _showing = progress.show("handshakes", &counters);
        let mut all = Tally::new()?;
        while let Some(done) = lanes.join_next().await {
            all.add(done.map_err(|error| error.to_string())??)?;
        }
        let took = started.elapsed().as_secs_f64();
        if all.lost == count {
            let why = all.first_lost.unwrap_or_default();
            return Err(format!("no handshake with {} succeeded: {why}", self.clients.server));
        }
        report.add("handshakes", count).add("at_once", at_once).add("handshake_seconds", rounded(took));
        report.add("handshakes_per_second", (f64::from(count - all.lost) / took).round());
        all.report(report);
        Ok(all)
    }

    async fn records(
        &self,
        clients: Vec<Client>,
        window: Option<u32>,
        (warmup, seconds): (Duration, Duration),
        report: &mut Report,
    ) -> Result<(), String> {
        let from = Instant::now() + warmup;
        let (mut running, sessions) = (JoinSet::new(), clients.len());
        for client in clients {
            running.spawn(speak(client, window, from, from + seconds));
        }
        tokio::time::sleep_until(from.into()).await;
        let (cpu_before, dropped_before) = (self.cpu()?, queue::dropped(self.clients.server));
        tokio::time::sleep_until((from + seconds).into()).await;
        let (cpu_after, dropped_after) = (self.cpu()?, queue::dropped(self.clients.server));
        let (mut spoken, mut clients) = (Spoken::default(), Vec::with_capacity(sessions));
        while let Some(done) = running.join_next().await {
            let (one, client) = done.map_err(|error| error.to_string())??;
            spoken.sent += one.sent;
            spoken.answered += one.answered;
            spoken.lost += one.lost;
            clients.push(client);
        }
        leave(clients).await?;
        let dropped = dropped_after.zip(dropped_before).map(|(after, before)| after.saturating_sub(before));
        // Where nobody answers, the kernel tells what the server did not take from its socket.
        let (taken, lost) = match window {
            Some(_) => (spoken.answered, spoken.lost),
            None => (spoken.sent.saturating_sub(dropped.unwrap_or(0)), dropped.unwrap_or(0)),
        };
        report
            .add("sessions", sessions)
            .add("answered", self.clients.answered)
            .add("seconds", seconds.as_secs());
        report.add("records", taken).add("records_lost", lost);
        report.add("records_per_second", (taken as f64 / seconds.as_secs_f64()).round());
        if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
            add_cpu(report, "record", after.saturating_sub(before), taken);
        }
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// One client after the other, until there are none left.
async fn lane(
    fleet: Arc<Fleet>,
    next: Arc<AtomicU32>,
    count: u32,
    (then, counters): (Then, Arc<Counters>),
) -> Result<Tally, String> {
    let (mut tally, mut scratch) = (Tally::new()?, Scratch::default());
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= count {
            return Ok(tally);
        }
        let started = Instant::now();
        let mut client = match fleet.shake(n, &mut scratch).await? {
            Shaken::Open(client) => client,
            Shaken::Lost { why, flights_again } => {
                tally.flights_again += flights_again;
                tally.lose(why);
                continue;
            }
        };
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tally.latencies.saturating_record(took.max(1));
        counters.add_done(1);
        tally.flights_again += client.flights_again();
        let said = if then.speaks { client.say(fleet.answered, &mut scratch).await } else { Ok(0) };
        match said {
            Ok(again) => tally.said_again += again,
            Err(why) => {
                tally.lose(why);
                continue;
            }
        }
        if then.leaves {
            client.leave(&mut scratch);
        } else {
            tally.open.push(client);
        }
    }
}

/// All of them say goodbye, no faster than a socket's buffer takes it.
async fn leave(clients: Vec<Client>) -> Result<(), String> {
    let mut scratch = Scratch::default();
    for (n, mut client) in clients.into_iter().enumerate() {
        client.leave(&mut scratch);
        if n % 256 == 255 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// What a session sent while it was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Spoken {
    sent: u64,
    answered: u64,
    lost: u64,
}

/// Records until the end: no more unanswered ones than the window, or as many as the socket takes.
async fn speak(
    mut client: Client,
    window: Option<u32>,
    from: Instant,
    until: Instant,
) -> Result<(Spoken, Client), String> {
    let (mut spoken, mut scratch, mut under_way) = (Spoken::default(), Scratch::default(), 0_u32);
    loop {
        let now = Instant::now();
        if now >= until {
            return Ok((spoken, client));
        }
        let counted = u64::from(now >= from);
        let more = window.map_or(TURN, |window| window - under_way);
        for _ in 0..more {
            client.send(&mut scratch)?;
        }
        spoken.sent += counted * u64::from(more);
        if window.is_none() {
            tokio::task::yield_now().await;
            continue;
        }
        under_way += more;
        let answers = client.answers((now + UNANSWERED).min(until), &mut scratch).await?;
        let answers = answers.min(under_way);
        if answers > 0 {
            under_way -= answers;
            spoken.answered += counted * u64::from(answers);
        } else if Instant::now() >= now + UNANSWERED {
            spoken.lost += counted * u64::from(std::mem::take(&mut under_way));
        }
    }
}

#[cfg(test)]
#[path = "dtls/tests.rs"]
mod tests;
