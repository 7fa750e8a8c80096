//! Random moves against a model that says for each of them who is there, and what is told.

use std::collections::HashMap;

use landfall_dtls::{Answer, Closing, Failure, Key, Limits};
use proptest::prelude::*;

use crate::world::{Client, Said, World};

const LIMITS: Limits = Limits {
    max_sessions: 4,
    max_handshakes: 3,
    max_handshakes_per_host: 2,
    max_per_host: 3,
    handshake_timeout_ms: 30_000,
    session_timeout_ms: 120_000,
    alerts_per_second: 1_000,
};

/// Addresses: three hosts with three ports each.
const ADDRESSES: u8 = 9;
/// Randoms that a client may come with.
const RANDOMS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Move {
    /// A ClientHello that shows its cookie.
    Hello(u8, u8),
    /// One that shows none.
    Stranger(u8, u8),
    /// A handshake record: from this address, sealed by the keys of this random.
    Shakes(u8, u8, u8),
    /// A record of data.
    Data(u8, u8, u8),
    Answer(u8, bool),
    Close(u8),
    Send(u8),
    Pass(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..ADDRESSES, 0..RANDOMS).prop_map(|(a, r)| Move::Hello(a, r)),
        1 => (0..ADDRESSES, 0..RANDOMS).prop_map(|(a, r)| Move::Stranger(a, r)),
        6 => (0..ADDRESSES, 0..RANDOMS, prop::sample::select(b"eewWnpfs".to_vec()))
            .prop_map(|(a, r, w)| Move::Shakes(a, r, w)),
        4 => (0..ADDRESSES, 0..RANDOMS, prop::sample::select(b"ddddncps".to_vec()))
            .prop_map(|(a, r, w)| Move::Data(a, r, w)),
        2 => (0..12_u8, any::<bool>()).prop_map(|(k, ok)| Move::Answer(k, ok)),
        1 => (0..12_u8).prop_map(Move::Close),
        1 => (0..12_u8).prop_map(Move::Send),
        2 => prop::sample::select(vec![10, 1_000, 14_000, 31_000, 59_000, 61_000]).prop_map(Move::Pass),
    ];
    prop::collection::vec(one, 0..120)
}

fn client(address: u8, random: u8) -> Client {
    let remote = std::net::SocketAddr::from(([192, 0, 2, address % 3], 1_000 + u16::from(address / 3)));
    Client { remote, way: u32::from(address), random: [random + 1; 32] }
}

/// An association as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    address: u8,
    random: u8,
    is_shaking: bool,
    asked: bool,
    /// An answer establishes it.
    hurries: bool,
    key: Option<Key>,
    began: u64,
    heard: u64,
    /// Counts words, so that of two at one time the later is known.
    order: u64,
}

struct Model {
    world: World,
    there: Vec<Known>,
    order: u64,
    /// Every key ever, with whose it was.
    keys: HashMap<Key, (u8, u8, u64)>,
    ended: u64,
    begun: u64,
}

impl Model {
    fn new() -> Self {
        let world = World::new(LIMITS);
        Self { world, there: vec![], order: 0, keys: HashMap::new(), ended: 0, begun: 0 }
    }

    fn play(&mut self, step: Move) {
        match step {
            Move::Hello(address, random) => self.hello(address, random),
            Move::Stranger(address, random) => {
                let client = client(address, random);
                let said = self.world.receive(&client, &client.hello(&[]));
                assert!(matches!(&said[..], [Said::Transmit(_, reply)] if reply[13] == 3), "{said:?}");
            }
            Move::Shakes(address, random, word) => self.record(address, random, word, true),
            Move::Data(address, random, word) => self.record(address, random, word, false),
            Move::Answer(which, is_good) => self.answer(which, is_good),
            Move::Close(which) => self.close(which),
            Move::Send(which) => self.send(which),
            Move::Pass(ms) => self.pass(ms),
        }
        self.check();
    }

    fn hello(&mut self, address: u8, random: u8) {
        let client = client(address, random);
        let said = self.world.knock(&client);
        let flight = Said::Transmit(client.way, b"flight".to_vec());
        if let Some(at) = self.position(address, true) {
            if self.there[at].random == random {
                self.word(at);
                return assert_eq!(said, [flight]);
            }
            // In its stead.
            if self.is_full(address) {
                return assert_eq!(said, [Said::Failed(None, client.way, Failure::Limit)]);
            }
            let gone = self.remove(at);
            let told = Said::Failed(gone.key, client.way, Failure::Displaced);
            self.begin(address, random);
            return assert_eq!(said, [told, flight]);
        }
        let of_host = self.there.iter().filter(|known| known.address % 3 == address % 3).count();
        let is_known_here = self.position(address, false).is_some();
        if of_host >= LIMITS.max_per_host && !is_known_here || self.is_full(address) {
            return assert_eq!(said, [Said::Failed(None, client.way, Failure::Limit)]);
        }
        let mut expected = vec![];
        let displaced = match self.displaced(address) {
            Ok(displaced) => displaced,
            Err(()) => return assert_eq!(said, [Said::Failed(None, client.way, Failure::Limit)]),
        };
        if let Some(at) = displaced {
            let gone = self.remove(at);
            expected.push(Said::Failed(gone.key, u32::from(gone.address), Failure::Displaced));
        }
        self.begin(address, random);
        expected.push(flight);
        assert_eq!(said, expected);
    }

    /// Which handshake makes room for one more of this address' host; none may have to, and an error where there is none.
    fn displaced(&self, address: u8) -> Result<Option<usize>, ()> {
        let shaking = || self.there.iter().enumerate().filter(|(_, known)| known.is_shaking);
        let of_host = |host: u8| shaking().filter(|(_, known)| known.address % 3 == host).count();
        let quietest = |may: &dyn Fn(u8) -> bool| {
            let those = shaking().filter(|(_, known)| may(known.address % 3));
            those.min_by_key(|(_, known)| known.order).map(|(at, _)| at)
        };
        let own = of_host(address % 3);
        let most = (0..3).map(of_host).max().unwrap_or(0);
        if own >= LIMITS.max_handshakes_per_host {
            let at = quietest(&|host| host == address % 3).unwrap();
            let is_silent = self.world.now - self.there[at].heard >= Limits::DISPLACE_AFTER_MS;
            return if is_silent { Ok(Some(at)) } else { Err(()) };
        }
        if self.count(true) < LIMITS.max_handshakes {
            return Ok(None);
        }
        Ok(quietest(&|host| if own >= most { host == address % 3 } else { of_host(host) == most }))
    }

    fn begin(&mut self, address: u8, random: u8) {
        let now = self.world.now;
        self.begun += 1;
        self.there.push(Known {
            address,
            random,
            is_shaking: true,
            asked: false,
            hurries: false,
            key: None,
            began: now,
            heard: now,
            order: 0,
        });
        self.word(self.there.len() - 1);
    }

    /// No room for a session more, unless it takes the place of one at its own address.
    fn is_full(&self, address: u8) -> bool {
        self.position(address, false).is_none()
            && self.count(false) >= LIMITS.max_sessions
            && self.evictable().is_none()
    }

    fn evictable(&self) -> Option<usize> {
        let quietest = self.quietest(false)?;
        (self.world.now - self.there[quietest].heard >= Limits::EVICT_AFTER_MS).then_some(quietest)
    }

    fn record(&mut self, address: u8, random: u8, word: u8, is_handshake: bool) {
        let client = client(address, random);
        let bytes = if is_handshake { client.handshake(1, word, b"x") } else { client.data(word, b"x") };
        let said = self.world.receive(&client, &bytes);
        let place = self.position(address, is_handshake).or(self.position(address, !is_handshake));
        let Some(at) = place.filter(|at| self.there[*at].random == random) else {
            let is_answered = |said: &Said| matches!(said, Said::Transmit(_, bytes) if bytes.len() == 15);
            return assert!(said.iter().all(is_answered) && said.len() <= 1, "nobody's, or forged: {said:?}");
        };
        match (word, self.there[at].is_shaking) {
            (b'e', true) => self.established(at, &said, 1),
            (b'w' | b'W', true) => {
                let [Said::WhoIs(key, way)] = said[..] else { panic!("{said:?}") };
                assert_eq!(way, client.way);
                self.named(at, key);
                self.there[at].asked = true;
                self.there[at].hurries = word == b'W';
                self.word(at);
            }
            (b'f' | b's', true) => {
                let gone = self.remove(at);
                assert!(
                    matches!(said[..], [Said::Failed(key, ..)] if key == gone.key.filter(|_| gone.asked))
                );
            }
            (b'd', false) => {
                assert_eq!(said, [Said::Data(self.there[at].key.unwrap(), client.way, b"x".to_vec())]);
                self.word(at);
            }
            (b'c' | b's', false) => {
                let gone = self.remove(at);
                assert!(matches!(said[..], [Said::Closed(key, ..)] if Some(key) == gone.key));
            }
            (b'n', true) => self.word(at),
            _ => assert_eq!(said, [], "{word}"),
        }
    }

    /// A handshake has succeeded, and `said` begins with what its engine sent.
    fn established(&mut self, at: usize, said: &[Said], data: usize) {
        let address = self.there[at].address;
        let replaced = self.position(address, false);
        let is_full = replaced.is_none() && self.count(false) >= LIMITS.max_sessions;
        let evicted = self.evictable().filter(|_| is_full);
        if is_full && evicted.is_none() {
            assert!(matches!(said[1], Said::Failed(_, _, Failure::Limit)) && said.len() == 3, "{said:?}");
            self.remove(at);
            return;
        }
        let mut told = said[1..].iter();
        if let Some(old) = replaced {
            let key = self.there[old].key.unwrap();
            let way = u32::from(address);
            assert_eq!(told.next(), Some(&Said::Closed(key, way, Closing::Replaced)));
        }
        let Some(Said::Established(key, _)) = told.next() else { panic!("{said:?}") };
        assert_eq!(told.by_ref().take(data).count(), data);
        self.named(at, *key);
        if let Some(old) = evicted {
            let Known { key, address, .. } = self.there[old];
            assert!(matches!(told.next(), Some(Said::Transmit(..))));
            let closed = Said::Closed(key.unwrap(), u32::from(address), Closing::Evicted);
            assert_eq!(told.next(), Some(&closed));
        }
        assert_eq!(told.next(), None);
        self.there[at].is_shaking = false;
        self.word(at);
        if let Some(old) = replaced.or(evicted) {
            self.remove(old);
        }
    }

    fn answer(&mut self, which: u8, is_good: bool) {
        let Some(key) = self.some_key(which) else { return };
        let answer = if is_good { Answer::Admitted } else { Answer::Refused };
        let said = self.world.answer(key, answer);
        let at = self.there.iter().position(|known| known.key == Some(key) && known.is_shaking);
        match at {
            None => assert_eq!(said, []),
            Some(at) if !is_good => {
                let gone = self.remove(at);
                let told = Said::Failed(Some(key), u32::from(gone.address), Failure::WrongKey);
                assert_eq!(said, [told]);
            }
            Some(at) if self.there[at].hurries => self.established(at, &said, 0),
            Some(_) => assert!(matches!(&said[..], [Said::Transmit(_, bytes)] if bytes == b"answered")),
        }
    }

    fn close(&mut self, which: u8) {
        let Some(key) = self.some_key(which) else { return };
        let said = self.world.close(key);
        let at = self.there.iter().position(|known| known.key == Some(key));
        let is_session = at.is_some_and(|at| !self.there[at].is_shaking);
        assert_eq!(said.len(), usize::from(is_session), "{said:?}");
        if let Some(at) = at {
            self.remove(at);
        }
    }

    fn send(&mut self, which: u8) {
        let Some(key) = self.some_key(which) else { return };
        let (sent, _) = self.world.send(key, b"x");
        let is_session = self.there.iter().any(|known| known.key == Some(key) && !known.is_shaking);
        assert_eq!(sent.is_ok(), is_session);
    }

    fn pass(&mut self, ms: u64) {
        let said = self.world.pass(ms);
        let mut ended = 0;
        for told in &said {
            let (key, way, is_shaking) = match told {
                Said::Failed(key, way, Failure::TimedOut) => (*key, *way, true),
                Said::Closed(key, way, Closing::Expired) => (Some(*key), *way, false),
                Said::Transmit(_, bytes) if bytes == b"close_notify" => continue,
                other => panic!("{other:?}"),
            };
            let at = self.position(way as u8, is_shaking).unwrap();
            let gone = self.remove(at);
            assert!(is_shaking && !gone.asked || gone.key == key, "{gone:?}: {told:?}");
            ended += 1;
        }
        assert!(ended <= said.len());
        let now = self.world.now;
        for known in &self.there {
            let ends = if known.is_shaking { known.began + 30_000 } else { known.heard + 120_000 };
            assert!(ends + 10 > now, "{known:?} is there at {now}");
        }
    }

    /// Any key that ever was.
    fn some_key(&self, which: u8) -> Option<Key> {
        let mut keys: Vec<Key> = self.keys.keys().copied().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.number()));
        keys.get(usize::from(which)).copied()
    }

    /// A key is whose it was.
    fn named(&mut self, at: usize, key: Key) {
        let known = &mut self.there[at];
        assert!(known.key.is_none_or(|before| before == key), "{known:?} is {key:?}");
        known.key = Some(key);
        let whose = (known.address, known.random, known.began);
        assert_eq!(*self.keys.entry(key).or_insert(whose), whose);
    }

    fn word(&mut self, at: usize) {
        self.order += 1;
        self.there[at].order = self.order;
        self.there[at].heard = self.world.now;
    }

    fn remove(&mut self, at: usize) -> Known {
        self.ended += 1;
        self.there.remove(at)
    }

    fn position(&self, address: u8, is_shaking: bool) -> Option<usize> {
        self.there.iter().position(|known| known.address == address && known.is_shaking == is_shaking)
    }

    fn count(&self, is_shaking: bool) -> usize {
        self.there.iter().filter(|known| known.is_shaking == is_shaking).count()
    }

    fn quietest(&self, is_shaking: bool) -> Option<usize> {
        let there = self.there.iter().enumerate();
        let those = there.filter(|(_, known)| known.is_shaking == is_shaking);
        those.min_by_key(|(_, known)| known.order).map(|(at, _)| at)
    }

    fn check(&self) {
        let listener = &self.world.listener;
        assert_eq!((listener.sessions(), listener.handshakes()), (self.count(false), self.count(true)));
        assert_eq!(listener.counts().begun, self.begun);
        assert_eq!(self.begun, self.ended + self.there.len() as u64);
        for key in self.keys.keys() {
            let is_there = self.there.iter().any(|known| known.key == Some(*key));
            assert_eq!(listener.path(*key).is_some(), is_there, "{key:?}");
        }
        assert_eq!(listener.next_timeout().is_some(), !self.there.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_listener_does_what_the_model_says(moves in moves()) {
        let mut model = Model::new();
        for step in moves {
            model.play(step);
        }
        model.world.close_all();
        let listener = &model.world.listener;
        prop_assert_eq!((listener.sessions(), listener.handshakes()), (0, 0));
        prop_assert_eq!(listener.next_timeout(), None);
    }
}
