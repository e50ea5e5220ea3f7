//! SQL text in tokens, with StarRocks' quoting: back-ticks around names, both quotes around text, backslash escapes active.

/// What a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A bare word, keyword or name.
    Word,
    /// A name in back-ticks.
    Name,
    /// A text in single or double quotes.
    Text,
    Number,
    /// `@@name` or `@name`.
    Variable,
    /// A parameter of a prepared statement.
    Mark,
    Symbol,
}

/// A token; `text` is what quotes and escapes stand for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Token {
    /// Whether it is this keyword; the word in upper case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this symbol.
    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }
}

const LONG_SYMBOLS: &[&str] = &["<=>", "<=", ">=", "<>", "!=", "||", "&&"];

/// Cuts a text into tokens; the error says what is wrong.
pub(crate) fn tokenize(sql: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    loop {
        rest = skip_blank(rest)?;
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (kind, text, after) = match first {
            '`' => quoted(rest, '`', Kind::Name)?,
            '\'' | '"' => quoted(rest, first, Kind::Text)?,
            '@' => prefix(rest, Kind::Variable, |c| c == '@' || c == '.' || is_word_part(c)),
            '?' => prefix(rest, Kind::Mark, |c| c == '?'),
            '0'..='9' => number(rest),
            '.' if rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit()) && follows_no_name(&tokens) => {
                number(rest)
            }
            c if is_word_part(c) => prefix(rest, Kind::Word, is_word_part),
            c => {
                let long = LONG_SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
                let length = long.map_or(c.len_utf8(), |symbol| symbol.len());
                let (text, after) = rest.split_at(length);
                (Kind::Symbol, text.to_owned(), after)
            }
        };
        tokens.push(Token { kind, text });
        rest = after;
    }
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn follows_no_name(tokens: &[Token]) -> bool {
    tokens.last().is_none_or(|token| !matches!(token.kind, Kind::Word | Kind::Name))
}

fn prefix(text: &str, kind: Kind, belongs: impl Fn(char) -> bool) -> (Kind, String, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    (kind, word.into(), after)
}

fn number(text: &str) -> (Kind, String, &str) {
    let mut end = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(end) {
        let is_exponent_sign =
            matches!(byte, b'+' | b'-') && end > 0 && matches!(bytes.get(end - 1), Some(b'e' | b'E'));
        if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || is_exponent_sign) {
            break;
        }
        end += 1;
    }
    let (number, after) = text.split_at(end);
    (Kind::Number, number.into(), after)
}

/// Skips white space and comments.
fn skip_blank(mut text: &str) -> Result<&str, String> {
    loop {
        text = text.trim_start();
        if text.starts_with("--") || text.starts_with('#') {
            text = text.find('\n').map_or("", |end| &text[end..]);
        } else if text.starts_with("/*") {
            let end = text.find("*/").ok_or("a comment is not closed")?;
            text = &text[end + 2..];
        } else {
            return Ok(text);
        }
    }
}

fn quoted(text: &str, quote: char, kind: Kind) -> Result<(Kind, String, &str), String> {
    let mut out = String::new();
    let mut rest = text.get(1..).unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        if c == '\\' && kind == Kind::Text {
            let escaped = rest.next().ok_or("a text ends in a backslash")?;
            push_escape(escaped, &mut out);
        } else if c == quote && rest.as_str().starts_with(quote) {
            rest.next();
            out.push(quote);
        } else if c == quote {
            return Ok((kind, out, rest.as_str()));
        } else {
            out.push(c);
        }
    }
    Err(format!("a quote {quote} is not closed"))
}

fn push_escape(escaped: char, out: &mut String) {
    match escaped {
        'n' => out.push('\n'),
        't' => out.push('\t'),
        'r' => out.push('\r'),
        '0' => out.push('\0'),
        'b' => out.push('\u{8}'),
        'Z' => out.push('\u{1a}'),
        // The wildcards of LIKE keep their backslash.
        '%' | '_' => out.extend(['\\', escaped]),
        other => out.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<(Kind, String)> {
        tokenize(sql).unwrap().into_iter().map(|token| (token.kind, token.text)).collect()
    }

    #[test]
    fn names_texts_and_comments_are_told_apart() {
        let found = texts("SELECT `a``b`, 'it''s', \"x\\\"y\\n\" /* c */ FROM t -- end\n WHERE a<=>1.5e-3");
        assert_eq!(found[1], (Kind::Name, "a`b".into()));
        assert_eq!(found[3], (Kind::Text, "it's".into()));
        assert_eq!(found[5], (Kind::Text, "x\"y\n".into()));
        assert_eq!(found[10], (Kind::Symbol, "<=>".into()));
        assert_eq!(found[11], (Kind::Number, "1.5e-3".into()));
    }

    #[test]
    fn dots_after_names_are_no_numbers() {
        let found = texts("db.t1 = .5");
        assert_eq!(found[1], (Kind::Symbol, ".".into()));
        assert_eq!(found[4], (Kind::Number, ".5".into()));
    }

    #[test]
    fn open_quotes_and_comments_are_errors() {
        assert!(tokenize("SELECT 'a").is_err());
        assert!(tokenize("SELECT `a").is_err());
        assert!(tokenize("SELECT /* a").is_err());
    }
}
