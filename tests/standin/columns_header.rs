//! The `columns` header: plain names, back-ticked names, and the two expressions that are known.

use crate::values::BinaryFormat;

/// One entry of the header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// How the value is made; a plain entry is read from the row.
    pub(crate) expression: Option<Expression>,
}

/// What stands behind `name=`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Expression {
    /// A literal: `'delete'`, `1`.
    Constant(String),
    /// `to_binary(field, 'format')`.
    ToBinary { field: String, format: BinaryFormat },
}

/// Words that must be in back-ticks to be names. Not the whole list, but what tables tend to have.
const RESERVED: &[&str] = &[
    "add",
    "all",
    "alter",
    "and",
    "array",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "char",
    "check",
    "column",
    "convert",
    "create",
    "cross",
    "current_date",
    "current_time",
    "current_timestamp",
    "current_user",
    "database",
    "databases",
    "default",
    "delete",
    "desc",
    "describe",
    "distinct",
    "double",
    "drop",
    "else",
    "except",
    "exists",
    "explain",
    "false",
    "float",
    "for",
    "force",
    "from",
    "full",
    "function",
    "grant",
    "group",
    "grouping",
    "having",
    "if",
    "in",
    "index",
    "inner",
    "insert",
    "int",
    "integer",
    "intersect",
    "into",
    "is",
    "join",
    "json",
    "key",
    "keys",
    "kill",
    "lead",
    "left",
    "like",
    "limit",
    "load",
    "not",
    "null",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "primary",
    "qualify",
    "range",
    "rank",
    "regexp",
    "replace",
    "revoke",
    "right",
    "rlike",
    "row",
    "rows",
    "schema",
    "select",
    "set",
    "show",
    "system",
    "table",
    "text",
    "then",
    "to",
    "true",
    "truncate",
    "union",
    "unique",
    "unsigned",
    "update",
    "use",
    "using",
    "values",
    "varchar",
    "when",
    "where",
    "with",
];

/// Parses the header.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut cursor = Cursor { rest: text };
    let mut entries = Vec::new();
    loop {
        let name = cursor.name()?;
        let expression = if cursor.eat('=') { Some(cursor.expression()?) } else { None };
        entries.push(Entry { name, expression });
        cursor.skip_space();
        if cursor.rest.is_empty() {
            return Ok(entries);
        }
        cursor.require(',')?;
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn failure(&self, what: &str) -> String {
        format!("parse columns header failed: {what} before '{}'", self.rest)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(wanted) else { return false };
        self.rest = rest;
        true
    }

    fn require(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) { Ok(()) } else { Err(self.failure(&format!("'{wanted}' is missing"))) }
    }

    fn name(&mut self) -> Result<String, String> {
        self.skip_space();
        if self.rest.starts_with('`') {
            return self.quoted('`');
        }
        let word = self.word();
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.failure("a name is missing"));
        }
        if RESERVED.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(self.failure(&format!("'{word}' is a reserved word")));
        }
        Ok(word)
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.into()
    }

    /// Text up to the closing quote; a doubled quote stands for itself.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = self.rest.get(1..).unwrap_or_default().chars();
        loop {
            match rest.next() {
                Some(c) if c == quote && rest.as_str().starts_with(quote) => {
                    rest.next();
                    text.push(quote);
                }
                Some(c) if c == quote => break,
                Some(c) => text.push(c),
                None => return Err(self.failure("a quote is not closed")),
            }
        }
        self.rest = rest.as_str();
        if text.is_empty() && quote == '`' { Err(self.failure("a name is empty")) } else { Ok(text) }
    }

    fn expression(&mut self) -> Result<Expression, String> {
        self.skip_space();
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => return self.quoted(quote).map(Expression::Constant),
            Some('0'..='9') => return Ok(Expression::Constant(self.word())),
            _ => {}
        }
        let function = self.word();
        if !function.eq_ignore_ascii_case("to_binary") {
            return Err(
                self.failure(&format!("the expression '{function}' is not supported by this stand-in"))
            );
        }
        self.require('(')?;
        let field = self.name()?;
        self.require(',')?;
        self.skip_space();
        let quote = self.rest.chars().next().filter(|c| "'\"".contains(*c));
        let format = self.quoted(quote.ok_or_else(|| self.failure("the format is missing"))?)?;
        let format = match format.to_ascii_lowercase().as_str() {
            "hex" => BinaryFormat::Hex,
            "base64" => BinaryFormat::Base64,
            "utf8" => BinaryFormat::Utf8,
            _ => return Err(self.failure(&format!("to_binary has no format '{format}'"))),
        };
        self.require(')')?;
        Ok(Expression::ToBinary { field, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &str) -> Entry {
        Entry { name: name.into(), expression: None }
    }

    #[test]
    fn names_and_back_ticks_are_read() {
        assert_eq!(
            parse("id, `a``b` ,`order`,__op").unwrap(),
            [plain("id"), plain("a`b"), plain("order"), plain("__op")]
        );
    }

    #[test]
    fn known_expressions_are_read() {
        let entries = parse("`t1`,`c`=to_binary(`t1`, 'hex'), __op='delete'").unwrap();
        let to_binary = Expression::ToBinary { field: "t1".into(), format: BinaryFormat::Hex };
        assert_eq!(entries[1].expression, Some(to_binary));
        assert_eq!(entries[2].expression, Some(Expression::Constant("delete".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "a,",
            "a b",
            "`a",
            "order",
            "a=upper(b)",
            "a=b+1",
            "1a",
            "a=to_binary(b)",
            "a=to_binary(b,'x')",
            "``",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("parse columns header failed"), "{bad}");
        }
    }
}
