//! A position in the tokens of a text, and the errors found so far.

use super::error::{ParseError, ParseErrors};
use super::lex::{Kind, Token};

/// The construct cannot be completed; the error is recorded, or is the consequence of a recorded one.
#[derive(Debug)]
pub(super) struct Fail;

/// Where the parser stands.
pub(super) struct Cursor<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    position: usize,
    pub(super) errors: Vec<ParseError>,
}

impl<'a> Cursor<'a> {
    /// At the first of `tokens`, which end with [`Kind::End`].
    pub(super) fn new(source: &'a str, tokens: Vec<Token>) -> Self {
        Cursor { source, tokens, position: 0, errors: Vec::new() }
    }

    /// The token `ahead` places further on; the end's from there on.
    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.position + ahead).or(self.tokens.last())
    }

    /// The current token.
    pub(super) fn kind(&self) -> &Kind {
        self.kind_ahead(0)
    }

    /// The token `ahead` places further on.
    pub(super) fn kind_ahead(&self, ahead: usize) -> &Kind {
        self.token(ahead).map_or(&Kind::End, |t| &t.kind)
    }

    /// The byte at which the current token starts.
    pub(super) fn offset(&self) -> usize {
        self.token(0).map_or(0, |t| t.start)
    }

    /// The number of tokens passed, for [`Cursor::rewind`].
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Goes back to an earlier position.
    pub(super) fn rewind(&mut self, position: usize) {
        self.position = position;
    }

    /// Goes to the next token.
    pub(super) fn advance(&mut self) {
        self.position = (self.position + 1).min(self.tokens.len().saturating_sub(1));
    }

    /// Whether the current token is this punctuation.
    pub(super) fn is(&self, punct: &str) -> bool {
        matches!(self.kind(), Kind::Punct(p) if *p == punct)
    }

    /// Whether the current token is this word.
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), Kind::Word(w) if w == word)
    }

    /// Passes this punctuation if it stands here.
    pub(super) fn eat(&mut self, punct: &str) -> bool {
        let here = self.is(punct);
        if here {
            self.advance();
        }
        here
    }

    /// Passes this word if it stands here.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let here = self.is_word(word);
        if here {
            self.advance();
        }
        here
    }

    /// Passes this punctuation, which must stand here.
    pub(super) fn expect(&mut self, punct: &str) -> Result<(), Fail> {
        if self.eat(punct) { Ok(()) } else { self.expected(&format!("`{punct}`")) }
    }

    /// Passes this word, which must stand here.
    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), Fail> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    /// Passes any word and gives it.
    pub(super) fn word(&mut self, what: &str) -> Result<String, Fail> {
        match self.kind() {
            Kind::Word(w) => {
                let word = w.clone();
                self.advance();
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    /// Passes words and numbers joined by `-` without blanks (`exit-heads`), or a quoted string.
    pub(super) fn dashed(&mut self, what: &str) -> Result<String, Fail> {
        if let Kind::Quoted(s) = self.kind() {
            let quoted = s.clone();
            self.advance();
            return Ok(quoted);
        }
        let start = self.offset();
        self.word(what)?;
        let mut end = self.tokens.get(self.position.saturating_sub(1)).map_or(start, |t| t.end);
        while let Some(t) = self.token(0)
            && t.start == end
            && matches!(t.kind, Kind::Punct("-") | Kind::Word(_) | Kind::Number(_))
        {
            end = t.end;
            self.advance();
        }
        Ok(self.source.get(start..end).unwrap_or_default().to_string())
    }

    /// Passes `open`, items separated by commas, and `close`.
    pub(super) fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        item: &mut dyn FnMut(&mut Self) -> Result<T, Fail>,
    ) -> Result<Vec<T>, Fail> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() && !self.eat(",") {
                return self.expected(&format!("`,` or `{close}`"));
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// The error that `what` was expected here.
    pub(super) fn expected<T>(&mut self, what: &str) -> Result<T, Fail> {
        let message = format!("expected {what}, found {}", self.kind());
        self.fail(self.offset(), message)
    }

    /// An error at a byte of the text.
    pub(super) fn fail<T>(&mut self, offset: usize, message: impl Into<String>) -> Result<T, Fail> {
        if self.errors.len() < ParseErrors::MAX {
            self.errors.push(ParseError::at(self.source, offset, message.into()));
        }
        Err(Fail)
    }

    /// Whether so many errors were found that going on is of no use.
    pub(super) fn is_hopeless(&self) -> bool {
        self.errors.len() >= ParseErrors::MAX
    }

    /// After an error in the statement that starts at position `start`: goes to the first token of a
    /// later line that is not inside a region that the statement opens.
    pub(super) fn skip_statement(&mut self, start: usize) {
        if self.position == start {
            self.advance();
        }
        let mut depth = 0usize;
        while let Some(t) = self.token(0) {
            let closes = t.first && t.kind == Kind::Punct("}");
            let region = ["then", "else", "join"].into_iter().any(|word| self.is_word(word));
            if t.kind == Kind::End || (depth == 0 && t.first && !region) {
                return;
            }
            let opens = t.kind == Kind::Punct("{") && self.token(1).is_some_and(|next| next.first);
            depth = if closes { depth.saturating_sub(1) } else { depth + usize::from(opens) };
            self.advance();
        }
    }

    /// Goes to the brace that closes a region at the start of a line.
    pub(super) fn skip_to_brace(&mut self) {
        while let Some(t) = self.token(0) {
            if t.kind == Kind::End || (t.first && t.kind == Kind::Punct("}")) {
                return;
            }
            self.advance();
        }
    }
}
