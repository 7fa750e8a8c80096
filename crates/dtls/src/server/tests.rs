mod certificates;
mod cost;
mod fuzz;
mod order;
mod peer;
mod psk;

use super::*;

/// 100,000 of them wait for their next record.
#[test]
fn an_established_association_is_small() {
    assert!(size_of::<Server>() <= 128, "{} bytes", size_of::<Server>());
    assert!(size_of::<Shaking>() <= 1_024, "{} bytes", size_of::<Shaking>());
}
