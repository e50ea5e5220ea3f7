//! A cursor over tokens: what all statements are parsed with.

use crate::sql_error::SqlError;
use crate::sql_tokens::{Kind, Token};

/// The name of a table with its database, if that was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TableName {
    pub(crate) database: Option<String>,
    pub(crate) table: String,
}

/// Reads tokens one after another.
pub(crate) struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Parser<'a> {
    /// A parser at the first token.
    pub(crate) fn new(tokens: &'a [Token]) -> Self {
        Self { tokens, at: 0 }
    }

    /// The next token.
    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token.
    pub(crate) fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    /// All tokens from here to the end.
    pub(crate) fn rest(&self) -> &'a [Token] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    /// An error that names the place.
    pub(crate) fn unexpected(&self) -> SqlError {
        match self.peek() {
            Some(token) => SqlError::syntax(format!("Unexpected input '{}'", token.text)),
            None => SqlError::syntax("Unexpected end of the statement"),
        }
    }

    /// Takes keywords if all of them come next.
    pub(crate) fn eat(&mut self, words: &str) -> bool {
        let count = words.split(' ').count();
        let matches = words
            .split(' ')
            .enumerate()
            .all(|(index, word)| self.tokens.get(self.at + index).is_some_and(|token| token.is_word(word)));
        if matches {
            self.at += count;
        }
        matches
    }

    /// Takes a symbol if it comes next.
    pub(crate) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let matches = self.peek().is_some_and(|token| token.is_symbol(symbol));
        if matches {
            self.at += 1;
        }
        matches
    }

    /// Takes keywords that must come next.
    pub(crate) fn require(&mut self, words: &str) -> Result<(), SqlError> {
        if self.eat(words) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Takes a symbol that must come next.
    pub(crate) fn require_symbol(&mut self, symbol: &str) -> Result<(), SqlError> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Fails unless the statement ends here.
    pub(crate) fn end(&self) -> Result<(), SqlError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Takes a name, bare or in back-ticks.
    pub(crate) fn name(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(token) if matches!(token.kind, Kind::Word | Kind::Name) => {
                self.at += 1;
                Ok(token.text.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes `table` or `database.table`.
    pub(crate) fn table_name(&mut self) -> Result<TableName, SqlError> {
        let first = self.name()?;
        if !self.eat_symbol(".") {
            return Ok(TableName { database: None, table: first });
        }
        Ok(TableName { database: Some(first), table: self.name()? })
    }

    /// Takes a text.
    pub(crate) fn text(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(token) if token.kind == Kind::Text => {
                self.at += 1;
                Ok(token.text.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes a whole number.
    pub(crate) fn number(&mut self) -> Result<u32, SqlError> {
        match self.peek() {
            Some(token) if token.kind == Kind::Number => {
                let value = token.text.parse().map_err(|_| self.unexpected())?;
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes `(name, …)`.
    pub(crate) fn names(&mut self) -> Result<Vec<String>, SqlError> {
        self.require_symbol("(")?;
        let mut names = vec![self.name()?];
        while self.eat_symbol(",") {
            names.push(self.name()?);
        }
        self.require_symbol(")")?;
        Ok(names)
    }
}
