//! Tokens of the text form.

use std::fmt;

use super::error::ParseError;
use super::is_word_char;

/// The name of a value: what follows `%`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Name {
    /// Print-time number.
    Number(String),
    /// A name that the value keeps.
    Text(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Number(n) => write!(f, "%{n}"),
            Name::Text(t) if super::is_plain_name(t) => write!(f, "%{t}"),
            Name::Text(t) => write!(f, "%{t:?}"),
        }
    }
}

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Kind {
    /// `%x`, `%3`, `%"a b"`.
    Value(Name),
    /// `^1`; the number is for people.
    Region,
    /// `#9f31c2`, without the `#`.
    Hash(String),
    /// `@name`, `@"a b"`.
    At(String),
    /// Letters, digits, `_`, `.`.
    Word(String),
    /// A quoted string, unescaped.
    Quoted(String),
    /// Digits with an optional fraction and exponent.
    Number(String),
    /// Punctuation.
    Punct(&'static str),
    /// The end of the text.
    End,
}

/// A token and the bytes of the text it covers.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it is the first of its line.
    pub(super) first: bool,
}

const PUNCTUATION: [&str; 15] = ["->", "==", "(", ")", "{", "}", "[", "]", ",", ":", ";", "=", "+", "-", "*"];

/// Texts beyond this many bytes are refused.
const MAX_BYTES: usize = 64 << 20;

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    first: bool,
}

/// The tokens of `source`, ending with [`Kind::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, ParseError> {
    if source.len() > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes of text, found {}", source.len());
        return Err(ParseError::at("", 0, message));
    }
    let mut lexer = Lexer { source, at: 0, first: true };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let (start, first) = (lexer.at, lexer.first);
        lexer.first = false;
        let kind = lexer.kind().map_err(|message| ParseError::at(source, start, message))?;
        let done = kind == Kind::End;
        out.push(Token { kind, start, end: lexer.at, first });
        if done {
            return Ok(out);
        }
    }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Skips blanks and comments: from `//`, or from a `;` that opens a line, to the line's end.
    fn skip_blank(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            let comment = self.rest().starts_with("//") || (self.first && c == ';');
            if comment {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if c.is_whitespace() {
                self.first |= c == '\n';
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn kind(&mut self) -> Result<Kind, String> {
        let Some(c) = self.rest().chars().next() else {
            return Ok(Kind::End);
        };
        if let Some(p) = PUNCTUATION.into_iter().find(|p| self.rest().starts_with(p)) {
            self.at += p.len();
            return Ok(Kind::Punct(p));
        }
        match c {
            '"' => self.quoted().map(Kind::Quoted),
            '%' => self.value(),
            '@' => self.at_name(),
            '^' => self.region(),
            '#' => self.hash(),
            '0'..='9' => Ok(Kind::Number(self.number().to_string())),
            c if is_word_char(c) => Ok(Kind::Word(self.take_while(is_word_char).to_string())),
            c => Err(format!("unexpected character {c:?}")),
        }
    }

    fn value(&mut self) -> Result<Kind, String> {
        self.at += 1;
        let name = match self.rest().chars().next() {
            Some('"') => Name::Text(self.quoted()?),
            Some('0'..='9') => Name::Number(self.take_while(|c| c.is_ascii_digit()).to_string()),
            Some(c) if is_word_char(c) => Name::Text(self.take_while(is_word_char).to_string()),
            _ => return Err("expected a name or a number after `%`".into()),
        };
        Ok(Kind::Value(name))
    }

    fn at_name(&mut self) -> Result<Kind, String> {
        self.at += 1;
        match self.rest().chars().next() {
            Some('"') => self.quoted().map(Kind::At),
            Some(c) if is_word_char(c) => Ok(Kind::At(self.take_while(is_word_char).to_string())),
            _ => Err("expected a name after `@`".into()),
        }
    }

    fn region(&mut self) -> Result<Kind, String> {
        self.at += 1;
        match self.take_while(|c| c.is_ascii_digit()) {
            "" => Err("expected a number after `^`".into()),
            _ => Ok(Kind::Region),
        }
    }

    fn hash(&mut self) -> Result<Kind, String> {
        self.at += 1;
        match self.take_while(|c| c.is_ascii_hexdigit()) {
            "" => Err("expected hexadecimal digits after `#`".into()),
            digits => Ok(Kind::Hash(digits.to_ascii_lowercase())),
        }
    }

    fn number(&mut self) -> &'a str {
        let start = self.at;
        let digit = |c: char| c.is_ascii_digit();
        self.take_while(digit);
        if self.rest().starts_with('.') {
            self.at += 1;
            self.take_while(digit);
        }
        if self.rest().starts_with(['e', 'E']) {
            let sign = usize::from(self.rest()[1..].starts_with(['+', '-']));
            if self.rest()[1 + sign..].starts_with(digit) {
                self.at += 1 + sign;
                self.take_while(digit);
            }
        }
        &self.source[start..self.at]
    }

    /// A string with Rust's escapes, as `{:?}` writes it.
    fn quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            out.push_str(self.take_while(|c| !matches!(c, '"' | '\\' | '\n')));
            match self.rest().chars().next() {
                Some('"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some('\\') => out.push(self.escape()?),
                _ => return Err("expected a closing `\"` on the same line".into()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.rest()[1..].chars().next().unwrap_or('\n');
        self.at += 1 + c.len_utf8().min(self.rest().len().saturating_sub(1));
        match c {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            '0' => Ok('\0'),
            '\\' | '"' | '\'' => Ok(c),
            'u' => self.unicode_escape().ok_or_else(|| "expected `\\u{…}` with a character's number".into()),
            c => Err(format!("unknown escape `\\{}`", c.escape_default())),
        }
    }

    fn unicode_escape(&mut self) -> Option<char> {
        let (digits, _) = self.rest().strip_prefix('{')?.split_once('}')?;
        let c = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        self.at += digits.len() + 2;
        Some(c)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Value(n) => write!(f, "`{n}`"),
            Kind::Region => f.write_str("a region's label"),
            Kind::Hash(h) => write!(f, "`#{h}`"),
            Kind::At(n) => write!(f, "`@{n:?}`"),
            Kind::Word(w) | Kind::Number(w) => write!(f, "`{w}`"),
            Kind::Quoted(s) => write!(f, "{s:?}"),
            Kind::Punct(p) => write!(f, "`{p}`"),
            Kind::End => f.write_str("the end of the text"),
        }
    }
}
