//! Mutations of encoded messages that stay encoded messages.
//!
//! A byte changed anywhere in a message mostly breaks the lengths around it, and nothing behind the decoder is
//! reached. Here the bytes become a tree of fields, one of which is changed, and bytes again. What a field means is
//! not looked at: bytes that could be a message are taken as one.

/// How deep is looked.
const MAX_DEPTH: usize = 24;

/// A field of a message.
#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Number(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// Numbers that break things.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    7,
    100,
    0x7f,
    65_535,
    65_536,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// A message with one field changed; `None` where the bytes are no message. `mutate` changes bytes in place, of which
/// the first so many are filled, and says how many are then.
pub fn mutated(
    bytes: &[u8],
    seed: u32,
    mutate: impl FnOnce(&mut [u8], usize) -> usize,
) -> Option<Vec<u8>> {
    let mut fields = parsed(bytes, 0)?;
    let mut random = Random(u64::from(seed) | 1 << 32);
    let count = count(&fields);
    if count == 0 {
        return None;
    }
    let other = nth(&mut fields, &mut random.below(count)).clone();
    let at = random.below(count);
    match random.below(6) {
        0 => drop(edit(&mut fields, &mut { at }, &mut |all, at| {
            drop(all.remove(at))
        })),
        1 => drop(edit(&mut fields, &mut { at }, &mut |all, at| {
            all.insert(at, all[at].clone());
        })),
        2 => drop(edit(&mut fields, &mut { at }, &mut |all, at| {
            all.insert(at, other.clone());
        })),
        3 => nth(&mut fields, &mut { at }).number = 1 + random.below(48) as u64,
        4 => nth(&mut fields, &mut { at }).value = other.value,
        _ => change(nth(&mut fields, &mut { at }), &mut random, mutate),
    }
    let mut written = vec![];
    write(&fields, &mut written);
    Some(written)
}

fn change(field: &mut Field, random: &mut Random, mutate: impl FnOnce(&mut [u8], usize) -> usize) {
    let fresh = |bytes: &[u8]| {
        let mut room = vec![0; bytes.len() + 24];
        room[..bytes.len()].copy_from_slice(bytes);
        let length = mutate(&mut room, bytes.len());
        room.truncate(length);
        room
    };
    field.value = match &field.value {
        Value::Number(number) => Value::Number(match random.below(3) {
            0 => NUMBERS[random.below(NUMBERS.len())],
            1 => number.wrapping_add(1),
            _ => number ^ 1 << random.below(64),
        }),
        Value::Fixed64(_) => Value::Fixed64(random.next().to_le_bytes()),
        Value::Fixed32(_) => Value::Fixed32((random.next() as u32).to_le_bytes()),
        Value::Bytes(bytes) => Value::Bytes(fresh(bytes)),
        // Texts may look like messages.
        Value::Message(fields) => {
            let mut bytes = vec![];
            write(fields, &mut bytes);
            Value::Bytes(fresh(&bytes))
        }
    };
}

fn count(fields: &[Field]) -> usize {
    let inner = fields.iter().map(|field| match &field.value {
        Value::Message(inner) => count(inner),
        _ => 0,
    });
    fields.len() + inner.sum::<usize>()
}

/// The field of this number, counted depth first; there is one.
fn nth<'f>(fields: &'f mut [Field], left: &mut usize) -> &'f mut Field {
    let at = fields.iter().position(|field| {
        let size = 1 + match &field.value {
            Value::Message(inner) => count(inner),
            _ => 0,
        };
        if *left < size {
            return true;
        }
        *left -= size;
        false
    });
    let field = &mut fields[at.expect("the number is below the count")];
    if *left == 0 {
        return field;
    }
    *left -= 1;
    match &mut field.value {
        Value::Message(inner) => nth(inner, left),
        _ => unreachable!("only messages have more than one"),
    }
}

/// Does something to the list that the field of this number is in.
fn edit(
    fields: &mut Vec<Field>,
    left: &mut usize,
    what: &mut impl FnMut(&mut Vec<Field>, usize),
) -> bool {
    for at in 0..fields.len() {
        if *left == 0 {
            what(fields, at);
            return true;
        }
        *left -= 1;
        if let Value::Message(inner) = &mut fields[at].value
            && edit(inner, left, what)
        {
            return true;
        }
    }
    false
}

fn parsed(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Fixed64(*split(&mut bytes, 8)?.first_chunk()?),
            5 => Value::Fixed32(*split(&mut bytes, 4)?.first_chunk()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = split(&mut bytes, length)?;
                let message = (depth < MAX_DEPTH)
                    .then(|| parsed(inner, depth + 1))
                    .flatten();
                match message {
                    Some(fields) if !fields.is_empty() => Value::Message(fields),
                    _ => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn split<'b>(bytes: &mut &'b [u8], at: usize) -> Option<&'b [u8]> {
    let (first, rest) = bytes.split_at_checked(at)?;
    *bytes = rest;
    Some(first)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = split(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn write(fields: &[Field], to: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let key = number << 3;
        match value {
            Value::Number(number) => {
                write_varint(key, to);
                write_varint(*number, to);
            }
            Value::Fixed64(bytes) => {
                write_varint(key | 1, to);
                to.extend(bytes);
            }
            Value::Fixed32(bytes) => {
                write_varint(key | 5, to);
                to.extend(bytes);
            }
            Value::Bytes(bytes) => {
                write_varint(key | 2, to);
                write_varint(bytes.len() as u64, to);
                to.extend(bytes);
            }
            Value::Message(fields) => {
                let mut inner = vec![];
                write(fields, &mut inner);
                write_varint(key | 2, to);
                write_varint(inner.len() as u64, to);
                to.extend(inner);
            }
        }
    }
}

fn write_varint(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
