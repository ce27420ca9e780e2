//! Which columns of a table fit, and how wide each is.

/// Blanks between two columns.
pub const GAP: usize = 2;

/// What a column needs.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Columns of the terminal without any cut.
    pub natural: usize,
    /// The least that it can be cut to.
    pub least: usize,
    /// 0 stays; of the other columns, the one with the highest number is left out first.
    pub rank: u8,
}

/// The width of each column; `None`: it is left out. Without a limit, every column is as wide as it would be.
pub fn fit(extents: &[Extent], limit: Option<usize>) -> Vec<Option<usize>> {
    let Some(limit) = limit else { return extents.iter().map(|extent| Some(extent.natural)).collect() };
    let mut widths: Vec<Option<usize>> = extents.iter().map(|extent| Some(extent.least)).collect();
    while total(&widths) > limit {
        let shown = || extents.iter().enumerate().filter(|(at, _)| widths[*at].is_some());
        // Of two that are equally important, the one to the right is left out.
        match shown().max_by_key(|(_, extent)| extent.rank) {
            Some((at, _)) if shown().count() > 1 => widths[at] = None,
            _ => break,
        }
    }
    // What is left goes to the columns that were cut, the most important first.
    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_by_key(|at| extents[*at].rank);
    let mut spare = limit.saturating_sub(total(&widths));
    for at in order {
        if let Some(width) = &mut widths[at] {
            let more = extents[at].natural.saturating_sub(*width).min(spare);
            *width += more;
            spare -= more;
        }
    }
    widths
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = || widths.iter().flatten();
    shown().sum::<usize>() + GAP * shown().count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(natural: usize, least: usize, rank: u8) -> Extent {
        Extent { natural, least, rank }
    }

    #[test]
    fn the_least_important_columns_are_left_out_and_text_is_cut() {
        let columns = [extent(8, 8, 0), extent(60, 8, 1), extent(9, 9, 2), extent(6, 6, 0), extent(19, 19, 5)];
        for (limit, widths) in [
            (None, [Some(8), Some(60), Some(9), Some(6), Some(19)]),
            (Some(110), [Some(8), Some(60), Some(9), Some(6), Some(19)]),
            (Some(109), [Some(8), Some(59), Some(9), Some(6), Some(19)]),
            (Some(58), [Some(8), Some(8), Some(9), Some(6), Some(19)]),
            (Some(57), [Some(8), Some(28), Some(9), Some(6), None]),
            (Some(36), [Some(8), Some(18), None, Some(6), None]),
            (Some(25), [Some(8), None, None, Some(6), None]),
            (Some(10), [Some(8), None, None, None, None]),
            (Some(3), [Some(8), None, None, None, None]),
        ] {
            assert_eq!(fit(&columns, limit), widths, "{limit:?}");
        }
        assert_eq!(fit(&[], Some(40)), []);
    }
}
