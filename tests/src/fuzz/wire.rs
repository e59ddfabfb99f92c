//! Protobuf messages as trees of fields, so that mutations keep the lengths around them right.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use eec::fit::random::Random;

use super::mutate::{NUMBERS, below, bytes};

/// A field: its number and value.
#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// Nested deeper, bytes stay bytes.
const DEEPEST: usize = 12;

/// The message with one field changed, doubled, moved or gone; mutated as bytes if it is no message.
pub(super) fn mutated(message: &[u8], random: &mut Random) -> Vec<u8> {
    let Some(mut fields) = parse(message, 0) else {
        let mut input = message.to_vec();
        bytes(&mut input, message, random);
        return input;
    };
    mutate(&mut fields, random);
    let mut out = Vec::with_capacity(message.len() + 16);
    write(&fields, &mut out);
    out
}

fn mutate(fields: &mut Vec<Field>, random: &mut Random) {
    if fields.is_empty() {
        fields.push(Field { number: 1 + random.bits() % 30, value: Value::Varint(random.bits() % 9) });
        return;
    }
    let at = below(random, fields.len());
    // Most changes happen further in.
    if let Value::Message(inner) = &mut fields[at].value
        && !random.bits().is_multiple_of(8)
    {
        return mutate(inner, random);
    }
    match random.bits() % 8 {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = fields[at].clone();
            fields.insert(below(random, fields.len() + 1), copy);
        }
        2 => {
            let other = below(random, fields.len());
            fields.swap(at, other);
        }
        3 => {
            let other = fields[below(random, fields.len())].value.clone();
            fields[at].value = other;
        }
        4 => fields[at].number = 1 + random.bits() % 30,
        _ => change(&mut fields[at].value, random),
    }
}

fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Varint(number) => {
            *number = match random.bits() % 3 {
                0 => number.wrapping_add(random.bits() % 5).wrapping_sub(2),
                _ => NUMBERS[below(random, NUMBERS.len())] as u64,
            }
        }
        Value::Fixed32(raw) => {
            let number = [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::MIN, 1e-42, -3.5][below(random, 8)];
            *raw = number.to_le_bytes();
        }
        Value::Fixed64(raw) => *raw = NUMBERS[below(random, NUMBERS.len())].to_le_bytes(),
        Value::Bytes(raw) => {
            let copy = raw.clone();
            bytes(raw, &copy, random);
        }
        Value::Message(_) => *value = Value::Bytes(Vec::new()),
    }
}

/// The fields of a message, if the bytes are one.
fn parse(mut rest: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            1 => Value::Fixed64(take(&mut rest, 8)?.try_into().ok()?),
            5 => Value::Fixed32(take(&mut rest, 4)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let inner = take(&mut rest, length)?;
                // Names are bytes that could be messages too; in a text of letters the first key is one of theirs.
                let printable = inner.iter().all(|b| b.is_ascii_graphic());
                match (depth < DEEPEST && !printable).then(|| parse(inner, depth + 1)).flatten() {
                    Some(message) => Value::Message(message),
                    None => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let key = |kind: u64, out: &mut Vec<u8>| write_varint(number << 3 | kind, out);
        match value {
            Value::Varint(v) => {
                key(0, out);
                write_varint(*v, out);
            }
            Value::Fixed64(raw) => {
                key(1, out);
                out.extend_from_slice(raw);
            }
            Value::Fixed32(raw) => {
                key(5, out);
                out.extend_from_slice(raw);
            }
            Value::Bytes(raw) => {
                key(2, out);
                write_varint(raw.len() as u64, out);
                out.extend_from_slice(raw);
            }
            Value::Message(inner) => {
                let mut body = Vec::new();
                write(inner, &mut body);
                key(2, out);
                write_varint(body.len() as u64, out);
                out.extend_from_slice(&body);
            }
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_written_again_is_the_same() {
        let message = [0x08, 0x96, 0x01, 0x1a, 0x03, 0x08, 0xff, 0x01, 0x25, 1, 2, 3, 4, 0x12, 2, b'a', b'b'];
        let fields = parse(&message, 0).unwrap_or_default();
        let mut again = Vec::new();
        write(&fields, &mut again);
        assert_eq!((fields.len(), again.as_slice()), (4, &message[..]));
        assert!(matches!(fields[1].value, Value::Message(_)) && matches!(fields[3].value, Value::Bytes(_)));
    }
}
