use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::record::MAX_SEQUENCE;

#[test]
fn a_number_is_new_once() {
    let mut window = ReplayWindow::default();
    for sequence in [0, 1, 5, 3, 2, 4] {
        assert!(window.is_new(sequence), "{sequence}");
        window.mark(sequence);
        assert!(!window.is_new(sequence), "{sequence}");
    }
}

#[test]
fn what_is_older_than_the_window_is_not_new() {
    let mut window = ReplayWindow::default();
    window.mark(100);
    assert!(window.is_new(37));
    assert!(!window.is_new(36));
    window.mark(MAX_SEQUENCE);
    assert!(!window.is_new(100) && !window.is_new(MAX_SEQUENCE));
    assert!(window.is_new(MAX_SEQUENCE - 63) && !window.is_new(MAX_SEQUENCE - 64));
}

proptest! {
    #[test]
    fn it_agrees_with_a_set(numbers in prop::collection::vec(0_u64..300, 0..200)) {
        let (mut window, mut seen) = (ReplayWindow::default(), BTreeSet::new());
        for number in numbers {
            let highest = seen.last().copied();
            let in_window = highest.is_none_or(|highest| number + 64 > highest);
            prop_assert_eq!(window.is_new(number), in_window && !seen.contains(&number));
            if window.is_new(number) {
                window.mark(number);
                seen.insert(number);
            }
        }
    }
}
