//! Percentiles: what most requests stay below.

/// The smallest value that `percent` of all do not exceed (nearest rank); `ascending` is sorted.
pub(crate) fn percentile<T: Copy>(ascending: &[T], percent: usize) -> Option<T> {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_at_the_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        for (ascending, percent, expected) in [
            (&hundred[..], 50, Some(50)),
            (&hundred[..], 99, Some(99)),
            (&hundred[..], 100, Some(100)),
            (&hundred[..1], 99, Some(1)),
            (&hundred[..3], 50, Some(2)),
            (&[], 50, None),
        ] {
            assert_eq!(
                percentile(ascending, percent),
                expected,
                "{percent} % of {ascending:?}"
            );
        }
    }
}
