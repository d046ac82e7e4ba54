//! The nearest known word to a mistyped one.

/// Longer words are not compared: the cost grows with the square of the length.
pub const WORD_BYTES_MAX: usize = 64;

/// Returns the candidate that `word` most likely stands for, if any is near.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase().replace('_', "-");
    let near = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX)
        .map(|candidate| {
            let plain = candidate.to_lowercase().replace('_', "-");
            (strsim::osa_distance(&word, &plain), candidate)
        })
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["restore", "reuse", "pool-scan", "deadline"];
        for (word, expected) in [
            ("restor", Some("restore")),
            ("pool_scan", Some("pool-scan")),
            ("dedaline", Some("deadline")),
            ("Reuse", Some("reuse")),
            ("wasm", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"r".repeat(100_000), known), None);
    }
}
