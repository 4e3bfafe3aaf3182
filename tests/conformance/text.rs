//! From the text of a case to bytes.

/// Each character is a byte, so that YAML's `"\xff"` and `"\0"` are what they look like.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| {
            u8::try_from(u32::from(character))
                .unwrap_or_else(|_| panic!("{character:?} is not one byte"))
        })
        .collect()
}

/// A message in lines: the head's get CRLF; after an empty line comes the body, without the last line end.
pub(crate) fn message(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut message = Vec::new();
    for line in head.lines() {
        message.extend(bytes(line));
        message.extend(b"\r\n");
    }
    message.extend(b"\r\n");
    message.extend(bytes(body.strip_suffix('\n').unwrap_or(body)));
    message
}

/// Bytes as a text that can be read.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 2000;
    let cut = &bytes[..bytes.len().min(MOST)];
    let text = cut.escape_ascii().to_string().replace("\\'", "'");
    match bytes.len() > MOST {
        true => format!("{text}… ({} bytes)", bytes.len()),
        false => text,
    }
}

/// `0a ff` and `0aff` as bytes.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    assert!(digits.len().is_multiple_of(2), "{text:?}: half a byte");
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
        .collect()
}
