//! From a text to an [`Expression`]. Errors are in the words of Calico's tokenizer and parser.

use std::collections::BTreeSet;
use std::fmt;

use super::ast::Expression;

/// Parses a selector; an empty one is `all()`.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Expression::All);
    }
    let mut parser = Parser { rest: &tokens };
    let expression = parser.or()?;
    if parser.rest.is_empty() {
        Ok(expression)
    } else {
        let rest: Vec<String> = parser.rest.iter().map(ToString::to_string).collect();
        Err(format!(
            "unexpected content at end of selector [{}]",
            rest.join(" ")
        ))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Label(&'a str),
    Value(&'a str),
    Has(&'a str),
    All,
    Global,
    Equal,
    NotEqual,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
    LeftParenthesis,
    RightParenthesis,
    LeftBrace,
    RightBrace,
    Comma,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label(text) => text,
            Self::Value(text) => return write!(f, "\"{text}\""),
            Self::Has(key) => return write!(f, "has({key})"),
            Self::All => "all()",
            Self::Global => "global()",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
            Self::Not => "!",
            Self::And => "&&",
            Self::Or => "||",
            Self::LeftParenthesis => "(",
            Self::RightParenthesis => ")",
            Self::LeftBrace => "{",
            Self::RightBrace => "}",
            Self::Comma => ",",
        })
    }
}

/// Punctuation, longest first; a single `=`, `&` or `|` is half of one.
const PUNCTUATION: [(&str, Token<'static>); 10] = [
    ("==", Token::Equal),
    ("!=", Token::NotEqual),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::LeftParenthesis),
    (")", Token::RightParenthesis),
    ("{", Token::LeftBrace),
    ("}", Token::RightBrace),
    (",", Token::Comma),
];

fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = trim(text);
    while !rest.is_empty() {
        let (token, after) = match tokens.last() {
            Some(Token::Label(label)) => after_label(rest, label)?,
            _ => token(rest)?,
        };
        tokens.push(token);
        rest = trim(after);
    }
    Ok(tokens)
}

/// Calico passes over spaces and tabs, but not over line breaks; YAML's folded texts have none.
fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn token(text: &str) -> Result<(Token<'_>, &str), String> {
    if let Some(found) = punctuation_or_value(text)? {
        return Ok(found);
    }
    if let Some(inner) = text.strip_prefix("has(") {
        let (key, after) = identifier(trim(inner)).ok_or("no label name in has( expression")?;
        let after = trim(after).strip_prefix(')');
        return Ok((Token::Has(key), after.ok_or("no closing ')' after has(")?));
    }
    for (name, token) in [("all(", Token::All), ("global(", Token::Global)] {
        if let Some(inner) = text.strip_prefix(name) {
            let after = trim(inner).strip_prefix(')');
            let after = after.ok_or_else(|| format!("no closing ')' after {name}"))?;
            return Ok((token, after));
        }
    }
    match identifier(text) {
        Some((label, after)) => Ok((Token::Label(label), after)),
        None => Err("unexpected characters".into()),
    }
}

/// A word that follows a label is an operator, never another label.
fn after_label<'a>(text: &'a str, label: &str) -> Result<(Token<'a>, &'a str), String> {
    if let Some(found) = punctuation_or_value(text)? {
        return Ok(found);
    }
    let operators: [(&[&str], Token<'static>); 5] = [
        (&["contains"], Token::Contains),
        (&["starts", "with"], Token::StartsWith),
        (&["ends", "with"], Token::EndsWith),
        (&["not", "in"], Token::NotIn),
        (&["in"], Token::In),
    ];
    for (words, token) in operators {
        let after = words
            .iter()
            .try_fold(text, |rest, word| trim(rest).strip_prefix(word));
        if let Some(after) = after {
            return Ok((token, after));
        }
    }
    Err(format!(
        "unexpected characters after label '{label}', was expecting an operator"
    ))
}

fn punctuation_or_value(text: &str) -> Result<Option<(Token<'_>, &str)>, String> {
    for (sign, token) in PUNCTUATION {
        if let Some(after) = text.strip_prefix(sign) {
            return Ok(Some((token, after)));
        }
    }
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            let (value, after) = inner.split_once(quote).ok_or("unterminated string")?;
            return Ok(Some((Token::Value(value), after)));
        }
    }
    for half in ["=", "&", "|"] {
        if text.starts_with(half) {
            return Err(format!("expected {half}{half}"));
        }
    }
    Ok(None)
}

/// A label's key; one that reaches the end of the text lacks its operator.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let length = text.find(|c| !inner(c))?;
    (length > 0).then(|| text.split_at(length))
}

struct Parser<'t, 'a> {
    rest: &'t [Token<'a>],
}

impl<'a> Parser<'_, 'a> {
    fn or(&mut self) -> Result<Expression, String> {
        let mut operands = vec![self.and()?];
        while self.take(&Token::Or) {
            operands.push(self.and()?);
        }
        Ok(one_or(operands, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut operands = vec![self.operation()?];
        while self.take(&Token::And) {
            operands.push(self.operation()?);
        }
        Ok(one_or(operands, Expression::And))
    }

    fn operation(&mut self) -> Result<Expression, String> {
        let mut negated = false;
        while self.take(&Token::Not) {
            negated = !negated;
        }
        let term = self.term()?;
        Ok(match negated {
            true => Expression::Not(Box::new(term)),
            false => term,
        })
    }

    fn term(&mut self) -> Result<Expression, String> {
        match self.next()? {
            Token::All => Ok(Expression::All),
            Token::Global => Ok(Expression::Global),
            Token::Has(key) => Ok(Expression::Has(key.to_owned())),
            Token::Label(key) => self.comparison(key),
            Token::LeftParenthesis => {
                let inner = self.or()?;
                match self.take(&Token::RightParenthesis) {
                    true => Ok(inner),
                    false => Err("expected )".into()),
                }
            }
            other => Err(format!("unexpected token: {other}")),
        }
    }

    fn comparison(&mut self, key: &str) -> Result<Expression, String> {
        let key = key.to_owned();
        Ok(match self.next()? {
            Token::Equal => Expression::Equal(key, self.value()?),
            Token::NotEqual => Expression::NotEqual(key, self.value()?),
            Token::Contains => Expression::Contains(key, self.value()?),
            Token::StartsWith => Expression::StartsWith(key, self.value()?),
            Token::EndsWith => Expression::EndsWith(key, self.value()?),
            Token::In => Expression::In(key, self.set()?),
            Token::NotIn => Expression::NotIn(key, self.set()?),
            other => return Err(format!("expected == or != not: {other}")),
        })
    }

    fn value(&mut self) -> Result<String, String> {
        match self.next()? {
            Token::Value(value) => Ok(value.to_owned()),
            _ => Err("expected string".into()),
        }
    }

    /// `{}` and a comma before the closing brace are taken, as Calico takes them.
    fn set(&mut self) -> Result<BTreeSet<String>, String> {
        if !self.take(&Token::LeftBrace) {
            return Err("expected set literal".into());
        }
        let mut values = BTreeSet::new();
        while let Some(Token::Value(value)) = self.rest.first() {
            values.insert((*value).to_owned());
            self.rest = &self.rest[1..];
            if !self.take(&Token::Comma) {
                break;
            }
        }
        match self.take(&Token::RightBrace) {
            true => Ok(values),
            false => Err("expected }".into()),
        }
    }

    fn take(&mut self, token: &Token) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if first == token => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Result<Token<'a>, String> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or("unexpected end of string looking for op")?;
        self.rest = rest;
        Ok(first.clone())
    }
}

fn one_or(mut operands: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match operands.len() {
        1 => operands.remove(0),
        _ => many(operands),
    }
}
