//! Schema objects parsed from `CREATE` and `ALTER TABLE .. ADD` statements, so that any folder of `.cql` files can be verified
//! against a server.

use std::collections::BTreeMap;

/// A schema object. Names are as the server stores them: lower case unless quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A keyspace with its replication.
    Keyspace {
        /// Its name.
        name: String,
        /// The replication map.
        replication: BTreeMap<String, String>,
    },
    /// A table.
    Table(Table),
    /// An index on one column.
    Index {
        /// Keyspace.
        keyspace: String,
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// The name, if given.
        name: Option<String>,
    },
    /// A column that is added to a table.
    Column(Table),
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its keyspace.
    pub keyspace: String,
    /// Its name.
    pub name: String,
    /// The columns in the order of the text: name, type, role.
    pub columns: Vec<Column>,
    /// The options.
    pub options: BTreeMap<String, OptionValue>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as the server writes it: `frozen<map<text, double>>`.
    pub kind: String,
    /// Its part in the key: `partition key 1`, `clustering key 2 desc`, `static`, `regular`.
    pub role: String,
}

/// The value of a table option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A number, a name or a string.
    One(String),
    /// A map.
    Map(BTreeMap<String, String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        if c == '\'' || c == '"' {
            // A doubled quote stands for one.
            let mut value = String::new();
            let mut inner = &rest[1..];
            loop {
                let Some(end) = inner.find(c) else {
                    value.push_str(inner);
                    inner = "";
                    break;
                };
                value.push_str(&inner[..end]);
                inner = &inner[end + 1..];
                let Some(after) = inner.strip_prefix(c) else { break };
                value.push(c);
                inner = after;
            }
            length = rest.len() - inner.len();
            tokens.push(if c == '\'' { Token::Text(value) } else { Token::Word(value) });
        } else if c.is_alphanumeric() || matches!(c, '_' | '-' | '+') {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
            length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            // A number may contain a point between digits.
            let number = rest[..length].chars().all(|c| c.is_ascii_digit());
            if number && let Some(fraction) = rest[length..].strip_prefix('.') {
                length += 1 + fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            }
            tokens.push(Token::Word(rest[..length].to_lowercase()));
        } else {
            tokens.push(Token::Sign(c));
        }
        rest = rest[length..].trim_start();
    }
    tokens
}

struct Cursor {
    tokens: Vec<Token>,
    at: usize,
}

impl Cursor {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn sign(&mut self, sign: char) -> bool {
        let yes = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(yes);
        yes
    }

    fn word(&mut self, word: &str) -> bool {
        let yes = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.at += usize::from(yes);
        yes
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let yes = words.iter().all(|word| self.word(word));
        if !yes {
            self.at = start;
        }
        yes
    }

    fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(name) | Token::Text(name) => Some(name),
            Token::Sign(_) => None,
        }
    }

    fn qualified(&mut self) -> Option<(String, String)> {
        let first = self.name()?;
        if self.sign('.') { Some((first, self.name()?)) } else { Some((String::new(), first)) }
    }

    fn map(&mut self) -> Option<BTreeMap<String, String>> {
        let mut map = BTreeMap::new();
        while !self.sign('}') {
            let key = self.name()?;
            if !self.sign(':') {
                return None;
            }
            map.insert(key, self.name()?);
            self.sign(',');
        }
        Some(map)
    }
}

/// The object that `text` creates or adds; `None` for any other statement.
pub fn object(text: &str) -> Option<Object> {
    let mut cursor = Cursor { tokens: tokens(text), at: 0 };
    if cursor.words(&["alter", "table"]) {
        return added(&mut cursor).map(Object::Column);
    }
    if !cursor.word("create") {
        return None;
    }
    let what = cursor.name()?;
    let what = if what == "custom" { cursor.name()? } else { what };
    cursor.words(&["if", "not", "exists"]);
    match what.as_str() {
        "keyspace" => keyspace(&mut cursor),
        "table" | "columnfamily" => table(&mut cursor).map(Object::Table),
        "index" => index(&mut cursor),
        _ => None,
    }
}

/// `ADD` of one column: a table with that column only.
fn added(cursor: &mut Cursor) -> Option<Table> {
    cursor.words(&["if", "exists"]);
    let (keyspace, name) = cursor.qualified()?;
    if !cursor.word("add") {
        return None;
    }
    cursor.words(&["if", "not", "exists"]);
    let (column, kind) = (cursor.name()?, column_type(cursor)?);
    let role = if cursor.word("static") { "static" } else { "regular" };
    if cursor.peek().is_some() {
        return None;
    }
    let columns = vec![Column { name: column, kind, role: role.into() }];
    Some(Table { keyspace, name, columns, options: BTreeMap::new() })
}

fn keyspace(cursor: &mut Cursor) -> Option<Object> {
    let name = cursor.name()?;
    let mut options = options(cursor);
    let replication = match options.remove("replication") {
        Some(OptionValue::Map(map)) => map,
        _ => BTreeMap::new(),
    };
    Some(Object::Keyspace { name, replication })
}

fn index(cursor: &mut Cursor) -> Option<Object> {
    let name = if cursor.word("on") {
        None
    } else {
        let name = cursor.name()?;
        if !cursor.word("on") {
            return None;
        }
        Some(name)
    };
    let (keyspace, table) = cursor.qualified()?;
    if !cursor.sign('(') {
        return None;
    }
    Some(Object::Index { keyspace, table, column: cursor.name()?, name })
}

fn table(cursor: &mut Cursor) -> Option<Table> {
    let (keyspace, name) = cursor.qualified()?;
    let mut table = Table { keyspace, name, ..Table::default() };
    let (mut partition, mut clustering) = (Vec::new(), Vec::new());
    if !cursor.sign('(') {
        return None;
    }
    while !cursor.sign(')') {
        if cursor.words(&["primary", "key"]) {
            (partition, clustering) = primary_key(cursor)?;
        } else {
            let name = cursor.name()?;
            let kind = column_type(cursor)?;
            let role = if cursor.word("static") { "static" } else { "regular" };
            if cursor.words(&["primary", "key"]) {
                partition = vec![name.clone()];
            }
            table.columns.push(Column { name, kind, role: role.into() });
        }
        cursor.sign(',');
        cursor.peek()?;
    }
    let orders = clustering_order(cursor);
    table.options = options(cursor);
    for column in &mut table.columns {
        if let Some(n) = partition.iter().position(|name| *name == column.name) {
            column.role = format!("partition key {}", n + 1);
        } else if let Some(n) = clustering.iter().position(|name| *name == column.name) {
            let order = orders.get(&column.name).map_or("asc", String::as_str);
            column.role = format!("clustering key {} {order}", n + 1);
        }
    }
    Some(table)
}

type Names = Vec<String>;

fn primary_key(cursor: &mut Cursor) -> Option<(Names, Names)> {
    if !cursor.sign('(') {
        return None;
    }
    let mut partition = Vec::new();
    if cursor.sign('(') {
        while !cursor.sign(')') {
            partition.push(cursor.name()?);
            cursor.sign(',');
        }
    } else {
        partition.push(cursor.name()?);
    }
    let mut clustering = Vec::new();
    while !cursor.sign(')') {
        if !cursor.sign(',') {
            clustering.push(cursor.name()?);
        }
    }
    Some((partition, clustering))
}

fn column_type(cursor: &mut Cursor) -> Option<String> {
    let mut kind = match cursor.name()? {
        name if name == "varchar" => "text".to_owned(),
        name => name,
    };
    if cursor.sign('<') {
        kind.push('<');
        loop {
            kind.push_str(&column_type(cursor)?);
            if cursor.sign('>') {
                break;
            }
            if !cursor.sign(',') {
                return None;
            }
            kind.push_str(", ");
        }
        kind.push('>');
    }
    Some(kind)
}

/// Removes `CLUSTERING ORDER BY (..)` from the options, at any position, and returns it.
fn clustering_order(cursor: &mut Cursor) -> BTreeMap<String, String> {
    let mut orders = BTreeMap::new();
    let start = cursor.at;
    while cursor.peek().is_some() {
        let clause = cursor.at;
        if cursor.words(&["clustering", "order", "by"]) && cursor.sign('(') {
            while !cursor.sign(')') && cursor.peek().is_some() {
                let Some(name) = cursor.name() else { continue };
                let order = if cursor.word("desc") { "desc" } else { "asc" };
                cursor.word("asc");
                orders.insert(name, order.to_owned());
                cursor.sign(',');
            }
            let end = cursor.at.min(cursor.tokens.len());
            cursor.tokens.drain(clause..end);
            break;
        }
        cursor.at = clause + 1;
    }
    cursor.at = start;
    orders
}

fn options(cursor: &mut Cursor) -> BTreeMap<String, OptionValue> {
    let mut options = BTreeMap::new();
    while cursor.peek().is_some() {
        if cursor.word("with") || cursor.word("and") {
            continue;
        }
        let Some(name) = cursor.name() else { continue };
        if !cursor.sign('=') {
            continue;
        }
        let value =
            if cursor.sign('{') { cursor.map().map(OptionValue::Map) } else { cursor.name().map(OptionValue::One) };
        if let Some(value) = value {
            options.insert(name, value);
        }
    }
    options
}

#[cfg(test)]
mod tests;
