use proptest::prelude::*;

use super::{Cadence, Patience};

const LEVEL: f64 = 8.0;

fn heard(intervals: impl IntoIterator<Item = u64>) -> Cadence {
    let mut cadence = Cadence::default();
    intervals.into_iter().for_each(|interval| cadence.heard(interval));
    cadence
}

fn steady(interval: u64, words: usize) -> Cadence {
    heard(std::iter::repeat_n(interval, words))
}

/// The silence at level 8, in s.
fn silence(cadence: &Cadence) -> f64 {
    cadence.silence_ms(LEVEL).unwrap() as f64 / 1_000.0
}

#[test]
fn a_cadence_is_twelve_bytes() {
    assert_eq!(size_of::<Cadence>(), 12);
}

#[test]
fn nothing_is_said_before_enough_was_heard() {
    for words in 0..8 {
        let few = steady(10_000, words);
        assert_eq!(
            (few.interval_ms(), few.phi(99_000), few.silence_ms(LEVEL)),
            (None, None, None),
            "{words}"
        );
    }
    assert_eq!(steady(10_000, 8).interval_ms(), Some(10_000));
    // Many words within one interval are not many intervals.
    assert_eq!(heard([10, 10, 10, 10, 10, 10, 10, 100_000]).interval_ms(), None);
}

#[test]
fn a_steady_device_may_lose_two_words_in_a_row() {
    let steady = steady(10_000, 1_000);
    assert_eq!(steady.interval_ms(), Some(10_000));
    assert_eq!(steady.silence_ms(LEVEL), Some(31_776));
    assert_eq!(steady.silence_ms(4.0), Some(20_263));
    assert_eq!(steady.silence_ms(0.0), Some(8_750));
}

#[test]
fn ordinary_jitter_changes_nothing() {
    let jittered = heard((0..1_000).map(|n| 9_500 + n * 7_919 % 1_000));
    assert!((31.0..32.5).contains(&silence(&jittered)), "{}", silence(&jittered));
}

#[test]
fn no_word_at_all_between_two_says_nothing() {
    let mut cadence = steady(10_000, 100);
    let before = cadence;
    for _ in 0..100_000 {
        cadence.heard(0);
    }
    assert_eq!(cadence, before);
}

#[test]
fn a_burst_does_not_wipe_out_the_memory_of_the_pause() {
    let mut cadence = Cadence::default();
    for _ in 0..10 {
        (0..1_000).for_each(|_| cadence.heard(50));
        cadence.heard(600_000);
    }
    let pause = silence(&cadence) / 600.0;
    assert!((2.9..4.5).contains(&pause), "{pause} pauses");
    // The next burst, twice as long as a pause.
    (0..24_000).for_each(|_| cadence.heard(50));
    assert!(silence(&cadence) > 1.5 * 600.0, "{}", silence(&cadence));
}

#[test]
fn one_long_silence_is_believed_and_forgotten() {
    let mut cadence = steady(10_000, 100);
    cadence.heard(31_000);
    let believed = silence(&cadence);
    assert!((60.0..120.0).contains(&believed), "{believed}");
    (0..60).for_each(|_| cadence.heard(10_000));
    assert!(silence(&cadence) < 34.0, "{}", silence(&cadence));
}

#[test]
fn a_device_that_glides_from_day_to_night_is_followed() {
    let mut cadence = steady(60_000, 100);
    let mut interval = 60_000.0;
    while interval < 600_000.0 {
        interval *= 1.05;
        assert!((interval as u64) < cadence.silence_ms(4.0).unwrap(), "lost at {interval} ms");
        cadence.heard(interval as u64);
    }
    while interval > 60_000.0 {
        interval /= 1.05;
        cadence.heard(interval as u64);
    }
    (0..200).for_each(|_| cadence.heard(60_000));
    assert!(silence(&cadence) < 200.0, "{}", silence(&cadence));
}

#[test]
fn a_device_that_speaks_at_random_is_met_at_its_level() {
    // Exponential waiting times of 60 s, by their quantiles in a scattered order.
    let waiting = |n: u64| -60_000.0 * (1.0 - ((n * 6_151 % 10_007) as f64 + 0.5) / 10_007.0).ln();
    let mut cadence = Cadence::default();
    let (mut all, mut words) = (0.0, 0.0);
    for n in 0..10_007 {
        cadence.heard(waiting(n) as u64);
        if let Some(silence) = cadence.silence_ms(LEVEL) {
            all += silence as f64;
            words += 1.0;
        }
    }
    // P(T > t) = 10^-8 at t = 18.4 means.
    let means = all / words / 60_000.0;
    assert!((16.0..21.0).contains(&means), "{means} means");
}

const PATIENCE: Patience = Patience { level: LEVEL, least_ms: 5_000, most_ms: 900_000, settle_ms: 600_000 };

#[test]
fn the_fixed_timeout_holds_until_a_device_is_known() {
    assert_eq!(PATIENCE.silence_ms(&steady(10_000, 59)), None);
    assert_eq!(PATIENCE.silence_ms(&steady(10_000, 60)), Some(31_776));
    assert_eq!(PATIENCE.silence_ms(&steady(100_000, 6)), None, "long enough, too few");
}

#[test]
fn patience_has_its_bounds() {
    assert_eq!(PATIENCE.silence_ms(&steady(100, 10_000)), Some(5_000));
    assert_eq!(PATIENCE.silence_ms(&steady(500_000, 100)), Some(900_000));
    let crossed = Patience { least_ms: 2_000, most_ms: 1_000, ..PATIENCE };
    assert_eq!(crossed.silence_ms(&steady(10_000, 100)), Some(2_000), "no panic");
}

#[test]
fn a_device_that_keeps_its_cadence_costs_no_timer() {
    let mut cadence = steady(10_000, 60);
    let in_force = PATIENCE.revised(&cadence, 300_000).unwrap();
    for n in 0..10_000 {
        cadence.heard(9_700 + n * 7_919 % 600);
        assert_eq!(PATIENCE.revised(&cadence, in_force), None);
    }
    cadence.heard(31_000);
    assert!(PATIENCE.revised(&cadence, in_force).unwrap() > 2 * in_force);
}

/// Intervals of every size, and runs of them.
fn intervals() -> impl Strategy<Value = Vec<u64>> {
    let any = prop_oneof![0_u64..10, 0_u64..100_000, any::<u64>()];
    let run = (any, 1_usize..40).prop_map(|(interval, words)| vec![interval; words]);
    prop::collection::vec(run, 1..20).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn whatever_is_heard_the_answers_are_numbers_within_reason(
        intervals in intervals(),
        level in 0.0_f64..40.0,
        silent in any::<u64>(),
    ) {
        let cadence = heard(intervals.iter().copied());
        let Some(mean) = cadence.interval_ms() else { return Ok(()) };
        let (least, most) = (intervals.iter().min().unwrap(), intervals.iter().max().unwrap());
        // Floats of 24 bits.
        let (least, most) = (*least as f64 * 0.99 - 1.0, *most as f64 * 1.01 + 1.0);
        prop_assert!(least <= mean as f64 && mean as f64 <= most, "{least} {mean} {most}");
        let silence = cadence.silence_ms(level).unwrap();
        prop_assert!(silence as f64 <= most * (1.0 + level * 2.4 * 1.75), "{silence}");
        let phi = cadence.phi(silent).unwrap();
        prop_assert!(phi.is_finite() && phi >= 0.0);
    }

    #[test]
    fn phi_and_silence_are_each_others_inverse(
        intervals in prop::collection::vec(1_000_u64..1_000_000, 100..200),
        level in 0.1_f64..40.0,
    ) {
        let cadence = heard(intervals);
        let silence = cadence.silence_ms(level).unwrap();
        let phi = cadence.phi(silence).unwrap();
        prop_assert!(phi >= level - 1e-9 && phi < level + 0.01, "{phi}");
        prop_assert!(cadence.phi(silence + 1_000).unwrap() > phi);
        prop_assert!(cadence.silence_ms(level + 0.1).unwrap() > silence);
    }

    #[test]
    fn scale_does_not_matter(intervals in prop::collection::vec(1_000_u64..100_000, 50..100)) {
        let small = heard(intervals.iter().copied());
        let large = heard(intervals.iter().map(|interval| interval * 64));
        let ratio = silence(&large) / silence(&small);
        prop_assert!((63.9..64.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn what_is_revised_is_in_force_within_an_eighth(intervals in intervals(), in_force in 1_u64..1_000_000) {
        let cadence = heard(intervals);
        match (PATIENCE.silence_ms(&cadence), PATIENCE.revised(&cadence, in_force)) {
            (Some(learned), Some(revised)) => prop_assert_eq!(learned, revised),
            (Some(learned), None) => prop_assert!(learned.abs_diff(in_force) <= in_force / 8),
            (None, revised) => prop_assert_eq!(revised, None),
        }
    }
}
