//! "did you mean": the nearest of the words that would have been right.

/// The word nearest to `wrong`, when one is near enough to be a slip.
pub fn nearest<'w>(wrong: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let lower = wrong.to_ascii_lowercase();
    let far_enough = 1 + wrong.chars().count() / 4;
    words
        .into_iter()
        .map(|word| (distance(&lower, &word.to_ascii_lowercase(), far_enough), word))
        .filter(|(distance, _)| *distance <= far_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edit distance with neighbours exchanged as one edit; more than `limit` may be given as any larger number.
fn distance(left: &str, right: &str, limit: usize) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > limit || left.len().max(right.len()) > 128 {
        return limit + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let change = last[j] + usize::from(a != b);
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["timeout", "retries", "rewrite", "mirror", "match"];
        assert_eq!(nearest("timout", words), Some("timeout"));
        assert_eq!(nearest("timeuot", words), Some("timeout"));
        assert_eq!(nearest("Retries", words), Some("retries"));
        assert_eq!(nearest("retry", words), None);
        assert_eq!(nearest("banana", words), None);
        assert_eq!(nearest("", words), None);
    }
}
