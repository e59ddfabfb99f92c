//! Mutations: of bytes, of the numbers and words of a text, of the fields of a protobuf message.

use eec::fit::random::Random;

use super::wire;

/// What an input is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Bytes,
    Text,
    /// A protobuf message.
    Wire,
}

/// Longer inputs are cut, so that growing mutations end.
const LONGEST: usize = 1 << 16;

/// Numbers at which arithmetic tends to break.
pub(super) const NUMBERS: [i64; 22] = [
    0,
    1,
    -1,
    2,
    3,
    7,
    -2,
    8,
    16,
    63,
    64,
    127,
    255,
    256,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    1 << 48,
    i64::MAX,
    i64::MIN,
];

/// A number below `n`, which is not 0.
pub(super) fn below(random: &mut Random, n: usize) -> usize {
    (random.bits() % n as u64) as usize
}

/// Input number `number` of the sequence `seed`.
pub(super) fn mutated(source: Source, seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xa076_1d64_78bd_642f));
    let mut input = seeds[below(&mut random, seeds.len())].clone();
    for _ in 0..=below(&mut random, 4) {
        let other = &seeds[below(&mut random, seeds.len())];
        // Some of the mutations of messages and texts are those of bytes: what no writer would write.
        match source {
            Source::Wire if !random.bits().is_multiple_of(8) => input = wire::mutated(&input, &mut random),
            Source::Text if !random.bits().is_multiple_of(4) => text(&mut input, other, &mut random),
            Source::Bytes | Source::Text | Source::Wire => bytes(&mut input, other, &mut random),
        }
        input.truncate(LONGEST);
    }
    input
}

/// One mutation of bytes; `other` gives what is spliced in.
pub(super) fn bytes(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if input.is_empty() {
        input.extend((0..8).map(|_| random.bits() as u8));
        return;
    }
    let at = below(random, input.len());
    let span = at..(at + 1 + below(random, 32)).min(input.len());
    match random.bits() % 8 {
        0 => input[at] ^= 1 << (random.bits() % 8),
        1 => input[at] = random.bits() as u8,
        2 => input[at] = [0, 1, 0x7f, 0x80, 0xff][below(random, 5)],
        3 => {
            let number = NUMBERS[below(random, NUMBERS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][below(random, 4)].min(input.len() - at);
            input[at..at + width].copy_from_slice(&number[..width]);
        }
        4 => drop(input.drain(span)),
        5 => {
            let copy = input[span].to_vec();
            let to = below(random, input.len() + 1);
            input.splice(to..to, copy);
        }
        6 if !other.is_empty() => {
            let from = below(random, other.len());
            let part = &other[from..(from + 1 + below(random, 64)).min(other.len())];
            input.splice(span, part.iter().copied());
        }
        _ => input.truncate(at),
    }
}

/// One mutation of a text: a number, a word or a line.
fn text(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let whole = String::from_utf8_lossy(input).into_owned();
    let changed = match random.bits() % 4 {
        0 => swapped(&whole, char::is_numeric, random, |random| NUMBERS[below(random, NUMBERS.len())].to_string()),
        1 => {
            let words = words(&whole, is_word);
            let pool: Vec<String> = words.iter().map(|(a, b)| whole[*a..*b].to_string()).collect();
            swapped(&whole, is_word, random, |random| match pool.len() {
                0 => String::new(),
                n => pool[below(random, n)].clone(),
            })
        }
        2 => {
            let mut lines: Vec<&str> = whole.lines().collect();
            let others = String::from_utf8_lossy(other);
            let others: Vec<&str> = others.lines().collect();
            match (lines.is_empty(), random.bits() % 3) {
                (false, 0) => drop(lines.remove(below(random, lines.len()))),
                (false, 1) => lines.insert(below(random, lines.len()), lines[below(random, lines.len())]),
                _ if !others.is_empty() => {
                    lines.insert(below(random, lines.len() + 1), others[below(random, others.len())]);
                }
                _ => {}
            }
            lines.join("\n")
        }
        _ => return bytes(input, other, random),
    };
    *input = changed.into_bytes();
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '%' | '@' | '.')
}

/// The spans of longest runs of `member`.
fn words(text: &str, member: fn(char) -> bool) -> Vec<(usize, usize)> {
    let (mut spans, mut start) = (Vec::new(), None);
    for (at, c) in text.char_indices().chain([(text.len(), '\0')]) {
        match (member(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                spans.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    spans
}

/// The text with one of its words replaced.
fn swapped(
    text: &str,
    member: fn(char) -> bool,
    random: &mut Random,
    new: impl FnOnce(&mut Random) -> String,
) -> String {
    let spans = words(text, member);
    if spans.is_empty() {
        return text.to_string();
    }
    let (from, to) = spans[below(random, spans.len())];
    let new = new(random);
    format!("{}{new}{}", &text[..from], &text[to..])
}
