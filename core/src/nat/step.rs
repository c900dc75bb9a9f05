//! The regularity of a NAT's ports.

/// The difference between the ports of mappings that were made one after the other, if it is regular: all
/// in one direction, and near each other.
///
/// NATs that count do so by 1, or by 2 to keep the parity of a port (RFC 4787 section 4.2.2). Larger distances
/// are taken for steps that others took in between, this host's own connections among them: a step of 3 that
/// was none would let every prediction miss.
pub(super) fn step(ports: &[u16]) -> Option<i32> {
    let differences = ports.windows(2).filter_map(|pair| match pair {
        [a, b] => Some(i32::from(*b) - i32::from(*a)),
        _ => None,
    });
    let differences: Vec<i32> = differences.collect();
    let direction = differences.first()?.signum();
    let regular = |difference: &i32| difference.signum() == direction && difference.abs() <= MAX_DISTANCE;
    if direction == 0 || !differences.iter().all(regular) {
        return None;
    }
    let by_two = differences.iter().all(|difference| difference % 2 == 0);
    Some(if by_two { 2 * direction } else { direction })
}

/// How far apart two mappings may be: eight steps of 2. Of two random ports one pair in 2,000 is as close.
const MAX_DISTANCE: i32 = 16;

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
            (&[5000, 5002, 5005], Some(1)),
            (&[5000, 5003, 5006], Some(1)),
            (&[5000, 5017], None),
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
