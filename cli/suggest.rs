//! What was probably meant: the known word nearest to one that is not known.

use weft_injector::compose::nearest;

/// ` (did you mean "reviews"?)`, or nothing where no known word is near.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known.into_iter()) {
        Some(candidate) => format!(" (did you mean {candidate:?}?)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_distant_one_is_not() {
        let known = ["reviews", "ratings", "front"];

        assert_eq!(hint("review", known), " (did you mean \"reviews\"?)");
        assert_eq!(hint("warehouse", known), "");
    }
}
