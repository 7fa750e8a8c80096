//! Whose password is verified next, when more wait than may be computed at once.
//!
//! Owns: the lanes, their order, their bounds, the memory that goes with a permit, which hosts have failed of late. Does not own: what a
//! verification is (`super::password`), who belongs to which lane (`super::devices`).
//!
//! A verification costs a processor for some hundredth of a second, and a stranger asks for one with one packet. So those whose right is
//! likely do not stand in one row with those whose right is not: each lane has its weight, and within a lane each source has its turn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::password::Memory;

/// How long a host that has shown a wrong password counts as one that fails: for so long at least, and twice that at most.
const FAILING_FOR: Duration = Duration::from_secs(60);
/// Hosts that are remembered as failing in one such time; when there are more, the oldest are forgotten sooner.
const MOST_FAILING: usize = 8_192;
/// What a narrow lane may hold of all that wait: one part in so many.
const NARROW_SHARE: usize = 64;

/// Who waits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Devices of the file, from hosts that have not failed of late.
    Known,
    /// Devices of the file by datagrams in the clear, whose address may be forged.
    Unproven,
    /// Devices of the file from hosts that have failed of late.
    Failing,
    /// Names that are in no file, and wrong passwords that are to take as long.
    Unknown,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Known, Self::Unproven, Self::Failing, Self::Unknown];

    /// Its name in the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unproven => "unproven",
            Self::Failing => "failing",
            Self::Unknown => "unknown",
        }
    }

    /// Between two turns of a lane that always waits lie so many steps: the fewer, the more turns it has.
    fn stride(self) -> u64 {
        match self {
            Self::Known => 1,
            Self::Unproven => 3,
            Self::Failing => 4,
            Self::Unknown => 12,
        }
    }

    /// How many of `permits` it may have at once.
    fn most(self, permits: usize) -> usize {
        match self {
            Self::Known => permits,
            Self::Unproven | Self::Failing => permits.div_ceil(2),
            Self::Unknown => permits.div_ceil(4),
        }
    }

    /// How many may wait in it, of `waiting` in all.
    pub(super) fn limit(self, waiting: usize) -> usize {
        match self {
            Self::Known => waiting,
            _ => waiting.div_ceil(NARROW_SHARE),
        }
    }
}

/// Who has a turn of his own within a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// An IPv4 address or the /64 of an IPv6 address.
    Host(IpAddr),
    /// A device that is spoken for, where addresses prove nothing: a hash of its name.
    Name(u64),
}

impl Source {
    pub(super) fn host(address: IpAddr) -> Self {
        Self::Host(match address.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) limit: usize,
}

/// The lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    state: Mutex<State>,
}

/// The right to verify one password, and the memory for it. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Permit {
    lanes: Arc<Lanes>,
    lane: Lane,
    pub(super) memory: Memory,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut state = self.lanes.state.lock();
        state.memories.push(memory);
        state.queues.of_mut(self.lane).running -= 1;
        drop(state);
        self.lanes.go_on();
    }
}

impl Lanes {
    /// At most `permits` verifications at once, of which `waiting` may wait.
    pub(super) fn new(permits: usize, waiting: usize) -> Arc<Self> {
        let queue = |lane: Lane| Queue { limit: lane.limit(waiting), ..Queue::default() };
        let queues = Queues {
            known: queue(Lane::Known),
            unproven: queue(Lane::Unproven),
            failing: queue(Lane::Failing),
            unknown: queue(Lane::Unknown),
        };
        let state = State {
            permits,
            queues,
            clock: 0,
            memories: Vec::new(),
            failing: Failing::default(),
            closed: false,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Stands in a row until there is a permit; nothing when there is no room to wait, or others had a better right to it.
    pub(super) async fn enter(self: &Arc<Self>, lane: Lane, source: Source) -> Option<Permit> {
        self.line_up(lane, source)?.await.ok()
    }

    /// As [`Self::enter`], without waiting: the permit comes there, or the sender is dropped.
    fn line_up(self: &Arc<Self>, lane: Lane, source: Source) -> Option<oneshot::Receiver<Permit>> {
        let (grant, granted) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            let clock = state.clock;
            state.queues.of_mut(lane).push(source, grant, clock)?;
        }
        self.go_on();
        Some(granted)
    }

    /// Gives out the permits that are free.
    fn go_on(self: &Arc<Self>) {
        loop {
            let Some((lane, grant, memory)) = self.state.lock().next() else { return };
            // Whoever has gone meanwhile gives his permit back by dropping it here, outside of the lock.
            let _ = grant.send(Permit { lanes: Arc::clone(self), lane, memory });
        }
    }

    /// Is this host one that failed of late?
    pub(super) fn is_failing(&self, source: Source) -> bool {
        self.state.lock().failing.contains(source)
    }

    /// A host has shown a wrong password: what of it waits among the known devices waits with those that fail from now on.
    pub(super) fn has_failed(&self, source: Source, now: Instant) {
        let mut state = self.state.lock();
        state.failing.note(source, now);
        let clock = state.clock;
        for grant in state.queues.of_mut(Lane::Known).remove(source) {
            // What finds no room there is told to come again.
            let _ = state.queues.of_mut(Lane::Failing).push(source, grant, clock);
        }
    }

    pub(super) fn fill(&self) -> [(&'static str, Fill); 4] {
        let mut state = self.state.lock();
        Lane::ALL.map(|lane| {
            let queue = state.queues.of_mut(lane);
            (lane.name(), Fill { running: queue.running, waiting: queue.waiting, limit: queue.limit })
        })
    }

    #[cfg(test)]
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
    }
}

#[derive(Debug)]
struct State {
    permits: usize,
    queues: Queues,
    /// The step of the last turn.
    clock: u64,
    /// Memory that nobody uses now; the last one given back is taken first, so that no more is touched than is needed.
    memories: Vec<Memory>,
    failing: Failing,
    closed: bool,
}

impl State {
    /// Whose turn it is, if there is a permit.
    fn next(&mut self) -> Option<(Lane, oneshot::Sender<Permit>, Memory)> {
        loop {
            let permits = self.permits;
            let queues = &mut self.queues;
            if Lane::ALL.map(|lane| queues.of_mut(lane).running).iter().sum::<usize>() >= permits {
                return None;
            }
            let mut next: Option<(Lane, u64)> = None;
            for lane in Lane::ALL {
                let queue = queues.of_mut(lane);
                let is_ready = queue.waiting > 0 && queue.running < lane.most(permits);
                if is_ready && next.is_none_or(|(_, turn)| queue.turn < turn) {
                    next = Some((lane, queue.turn));
                }
            }
            let (lane, turn) = next?;
            let queue = queues.of_mut(lane);
            // Where all have gone there is somebody else to look at.
            let Some(grant) = queue.pop() else { continue };
            self.clock = self.clock.max(turn);
            queue.turn = turn + lane.stride();
            queue.running += 1;
            return Some((lane, grant, self.memories.pop().unwrap_or_default()));
        }
    }
}

#[derive(Debug)]
struct Queues {
    known: Queue,
    unproven: Queue,
    failing: Queue,
    unknown: Queue,
}

impl Queues {
    fn of_mut(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Known => &mut self.known,
            Lane::Unproven => &mut self.unproven,
            Lane::Failing => &mut self.failing,
            Lane::Unknown => &mut self.unknown,
        }
    }
}

/// One lane: each source in its turn.
#[derive(Debug, Default)]
struct Queue {
    by_source: HashMap<Source, VecDeque<oneshot::Sender<Permit>>>,
    order: VecDeque<Source>,
    /// Permits that are out.
    running: usize,
    waiting: usize,
    limit: usize,
    /// The step of its next turn.
    turn: u64,
}

impl Queue {
    fn push(&mut self, source: Source, grant: oneshot::Sender<Permit>, clock: u64) -> Option<()> {
        if self.waiting >= self.limit {
            self.forget_who_has_gone();
        }
        if self.waiting >= self.limit {
            self.make_room(source)?;
        }
        if self.waiting == 0 {
            // Whoever did not wait has saved nothing up.
            self.turn = self.turn.max(clock);
        }
        let own = self.by_source.entry(source).or_default();
        if own.is_empty() {
            self.order.push_back(source);
        }
        own.push_back(grant);
        self.waiting += 1;
        Some(())
    }

    /// Whoever waits most often gives way; nothing where that is the newcomer himself.
    fn make_room(&mut self, newcomer: Source) -> Option<()> {
        let (source, most) =
            self.by_source.iter().map(|(source, own)| (*source, own.len())).max_by_key(|(_, n)| *n)?;
        let theirs = self.by_source.get(&newcomer).map_or(0, VecDeque::len);
        if most <= theirs + 1 {
            return None;
        }
        self.by_source.get_mut(&source)?.pop_back();
        self.waiting -= 1;
        Some(())
    }

    fn forget_who_has_gone(&mut self) {
        for own in self.by_source.values_mut() {
            own.retain(|grant| !grant.is_closed());
        }
        self.by_source.retain(|_, own| !own.is_empty());
        self.order.retain(|source| self.by_source.contains_key(source));
        self.waiting = self.by_source.values().map(VecDeque::len).sum();
    }

    /// The next one who still waits.
    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        while let Some(source) = self.order.pop_front() {
            let Some(own) = self.by_source.get_mut(&source) else { continue };
            let grant = own.pop_front();
            if own.is_empty() {
                self.by_source.remove(&source);
            } else {
                self.order.push_back(source);
            }
            self.waiting -= usize::from(grant.is_some());
            if grant.as_ref().is_some_and(|grant| !grant.is_closed()) {
                return grant;
            }
        }
        None
    }

    fn remove(&mut self, source: Source) -> VecDeque<oneshot::Sender<Permit>> {
        let own = self.by_source.remove(&source).unwrap_or_default();
        if !own.is_empty() {
            self.order.retain(|other| *other != source);
        }
        self.waiting -= own.len();
        own
    }
}

/// The hosts that have failed, in two sets that take turns.
#[derive(Debug, Default)]
struct Failing {
    now: HashSet<Source>,
    before: HashSet<Source>,
    since: Option<Instant>,
}

impl Failing {
    fn note(&mut self, source: Source, at: Instant) {
        let is_old = self.since.is_none_or(|since| at.saturating_duration_since(since) >= FAILING_FOR);
        if is_old || self.now.len() >= MOST_FAILING {
            self.before = std::mem::take(&mut self.now);
            self.since = Some(at);
        }
        self.now.insert(source);
    }

    fn contains(&self, source: Source) -> bool {
        self.now.contains(&source) || self.before.contains(&source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> Source {
        Source::host(IpAddr::from([192, 0, 2, n]))
    }

    fn granted(waiting: &mut oneshot::Receiver<Permit>) -> Option<Permit> {
        waiting.try_recv().ok()
    }

    #[test]
    fn each_source_has_its_turn_however_many_another_has_waiting() {
        let lanes = Lanes::new(1, 64);
        let held = lanes.line_up(Lane::Known, host(1)).unwrap().try_recv().unwrap();
        let mut crowd: Vec<_> = (0..9).map(|_| lanes.line_up(Lane::Known, host(1)).unwrap()).collect();
        let mut one = lanes.line_up(Lane::Known, host(2)).unwrap();
        drop(held);
        let first = granted(&mut crowd[0]).expect("who came first");
        drop(first);
        assert!(granted(&mut one).is_some(), "then the other source");
    }

    #[test]
    fn names_that_are_not_known_hold_up_nobody_and_have_turns_all_the_same() {
        let lanes = Lanes::new(4, 4096);
        let mut strangers: Vec<_> = (0..60).map(|n| lanes.line_up(Lane::Unknown, host(n)).unwrap()).collect();
        let running = strangers.iter_mut().filter_map(granted).collect::<Vec<_>>();
        assert_eq!(running.len(), 1, "a quarter of the permits");
        let mut devices: Vec<_> = (0..60).map(|n| lanes.line_up(Lane::Known, host(n)).unwrap()).collect();
        let (mut served, mut meanwhile, mut permits) = (0, 0, running);
        while served < 60 {
            permits.remove(0);
            let device = devices.iter_mut().filter_map(granted).collect::<Vec<_>>();
            let stranger = strangers.iter_mut().filter_map(granted).collect::<Vec<_>>();
            (served, meanwhile) = (served + device.len(), meanwhile + stranger.len());
            permits.extend(device.into_iter().chain(stranger));
        }
        assert!((3..=20).contains(&meanwhile), "{meanwhile}");
    }

    #[test]
    fn a_host_that_fails_waits_behind_and_takes_those_along_who_wait() {
        let lanes = Lanes::new(1, 64);
        let held = lanes.line_up(Lane::Known, host(1)).unwrap().try_recv().unwrap();
        let mut theirs = lanes.line_up(Lane::Known, host(1)).unwrap();
        let now = Instant::now();
        lanes.has_failed(host(1), now);
        assert!(lanes.is_failing(host(1)) && !lanes.is_failing(host(2)));
        assert_eq!(lanes.fill()[2].1, Fill { running: 0, waiting: 1, limit: 1 });
        let mut ours: Vec<_> = (2..5).map(|n| lanes.line_up(Lane::Known, host(n)).unwrap()).collect();
        drop(held);
        let mut order = Vec::new();
        for _ in 0..4 {
            let theirs = granted(&mut theirs).map(|permit| (1, permit));
            let ours = ours.iter_mut().enumerate().find_map(|(n, w)| granted(w).map(|p| (n + 2, p)));
            order.extend(theirs.or(ours).map(|(n, _permit)| n));
        }
        assert!(order.len() == 4 && order.contains(&1), "{order:?}");
        lanes.has_failed(host(9), now + FAILING_FOR);
        assert!(lanes.is_failing(host(1)));
        lanes.has_failed(host(9), now + FAILING_FOR * 2);
        assert!(!lanes.is_failing(host(1)), "it is forgotten");
    }

    #[test]
    fn at_the_limit_the_source_that_waits_most_gives_way() {
        let lanes = Lanes::new(1, 4);
        let _held = lanes.line_up(Lane::Known, host(9)).unwrap().try_recv().unwrap();
        let mut crowd: Vec<_> = (0..4).map(|_| lanes.line_up(Lane::Known, host(1)).unwrap()).collect();
        assert!(lanes.line_up(Lane::Known, host(1)).is_none(), "there is no room for more of it");
        let _one = lanes.line_up(Lane::Known, host(2)).expect("there is for another");
        assert_eq!(crowd[3].try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        let _two = lanes.line_up(Lane::Known, host(3)).unwrap();
        let _three = lanes.line_up(Lane::Known, host(4)).unwrap();
        assert!(lanes.line_up(Lane::Known, host(5)).is_none(), "where nobody waits more often than once");
        assert_eq!(lanes.fill()[0].1, Fill { running: 1, waiting: 4, limit: 4 });
        crowd.clear();
        assert!(lanes.line_up(Lane::Known, host(6)).is_some(), "who has gone takes no room");
    }

    #[test]
    fn what_is_remembered_of_hosts_is_bounded() {
        let mut failing = Failing::default();
        let now = Instant::now();
        for n in 0..100_000 {
            failing.note(Source::Name(n), now);
            assert!(failing.now.len() <= MOST_FAILING && failing.before.len() <= MOST_FAILING);
        }
        assert!(failing.contains(Source::Name(99_999)));
        let networks = ["2001:db8::1", "2001:db8::2:0:0:1"].map(|ip| Source::host(ip.parse().unwrap()));
        assert_eq!(networks[0], networks[1]);
    }
}
