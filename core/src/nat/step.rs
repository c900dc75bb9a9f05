//! The regularity of a NAT's ports.

/// The difference between the ports of mappings that were made one after the other, if it is regular: all
/// in one direction, in steps of one small size. A few steps may be missing between two of them, since
/// others use the NAT too.
pub(super) fn step(ports: &[u16]) -> Option<i32> {
    let differences = ports.windows(2).filter_map(|pair| match pair {
        [a, b] => Some(i32::from(*b) - i32::from(*a)),
        _ => None,
    });
    let differences: Vec<i32> = differences.collect();
    let step = differences.iter().copied().min_by_key(|difference| difference.abs())?;
    let fits = |difference: &i32| {
        difference.signum() == step.signum() && difference % step == 0 && difference / step <= MAX_MISSING
    };
    (step != 0 && step.abs() <= MAX_STEP && differences.iter().all(fits)).then_some(step)
}

/// The largest step: NATs count by 1, or by 2 to keep parity; some by more. Of two random ports one pair in
/// 2,000 is as close.
const MAX_STEP: i32 = 16;
/// How many steps two mappings may be apart.
const MAX_MISSING: i32 = 8;

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn steps_are_found_where_they_are_regular() {
        for (ports, expected) in [
            (&[5000, 5001, 5002][..], Some(1)),
            (&[5000, 5002, 5008], Some(2)),
            (&[5008, 5007, 5005], Some(-1)),
            (&[5000, 5000], None),
            (&[5000, 5001, 5000], None),
            (&[5000, 5002, 5005], None),
            (&[1024, 40_000, 7], None),
            (&[5000, 5001, 6000], None),
            (&[65_535, 1024], None),
            (&[5000], None),
            (&[], None),
        ] {
            assert_eq!(step(ports), expected, "{ports:?}");
        }
    }
}
