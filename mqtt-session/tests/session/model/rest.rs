//! Whether every run comes to an end.

/// A state from which a run can go on for ever, if there is one.
///
/// States without a way on are taken away, then those whose every way leads to one taken away. What
/// is left lies on a circle or leads to one.
pub(super) fn restless(states: usize, edges: &[(u32, u32)]) -> Option<u32> {
    let mut ways_on = vec![0_u32; states];
    // The edges that end in each state lie together in `sources`, from its start on.
    let mut starts = vec![0_u32; states + 1];
    for &(from, to) in edges {
        ways_on[from as usize] += 1;
        starts[to as usize + 1] += 1;
    }
    for state in 0..states {
        starts[state + 1] += starts[state];
    }
    let mut sources = vec![0_u32; edges.len()];
    let mut filled = starts.clone();
    for &(from, to) in edges {
        let place = &mut filled[to as usize];
        sources[*place as usize] = from;
        *place += 1;
    }
    let mut ended: Vec<u32> = (0..)
        .zip(&ways_on)
        .filter(|(_, ways)| **ways == 0)
        .map(|(state, _)| state)
        .collect();
    while let Some(state) = ended.pop() {
        let state = state as usize;
        for &source in &sources[starts[state] as usize..starts[state + 1] as usize] {
            let ways = &mut ways_on[source as usize];
            *ways -= 1;
            if *ways == 0 {
                ended.push(source);
            }
        }
    }
    (0..)
        .zip(&ways_on)
        .find(|(_, ways)| **ways > 0)
        .map(|(state, _)| state)
}

#[test]
fn a_circle_is_restless() {
    assert_eq!(restless(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]), None);
    assert_eq!(restless(4, &[(0, 1), (1, 2), (2, 1), (2, 3)]), Some(0));
}
