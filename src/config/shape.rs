//! How a value of the configuration is read and described: one definition gives the reader, the list of known keys and the JSON Schema.
//!
//! Pure. A reader never stops at the first fault: what cannot be read files its complaint and is [`Field::Bad`], its neighbours are read all the same.

use schemars::{JsonSchema, Schema};

use super::{
    complaint::{Code, Complaint, Complaints, Place, did_you_mean},
    tree::{Entry, Node, Text, Value},
};

mod forms;

pub use forms::{Either, List, Named, OneOrMore, OrOff, Whole};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

/// What stands under a key.
#[derive(Clone, Debug)]
pub enum Field<T> {
    Absent,
    /// Its complaint is filed already.
    Bad(Place),
    Given(At<T>),
}

impl<T> Field<T> {
    /// `None` where it is absent or bad.
    pub fn given(self) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad(_) => None,
        }
    }

    pub fn value(self) -> Option<T> {
        self.given().map(|at| at.value)
    }

    pub fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    #[must_use]
    pub fn as_ref(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad(_) => None,
        }
    }

    /// Where it stands, well or badly written; `None` where it is absent.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Absent => None,
            Self::Bad(place) => Some(*place),
            Self::Given(at) => Some(at.place),
        }
    }

    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value, or a complaint at `owner` that it is missing (none where it is there but bad).
    pub fn required(self, what: &str, owner: Place, cure: &str, out: &mut Complaints) -> Option<At<T>> {
        if self.is_absent() {
            out.add_with_cure(Code::MissingKey, owner, what, cure);
        }
        self.given()
    }

    /// A key whose function is not built yet is refused, never accepted and ignored.
    pub fn not_yet(&self, what: &str, cure: &str, out: &mut Complaints) {
        if let Some(place) = self.place() {
            not_yet(place, what, cure, out);
        }
    }
}

pub fn not_yet(place: Place, what: &str, cure: &str, out: &mut Complaints) {
    out.add_with_cure(Code::NotSupported, place, format!("{what} is not supported yet"), cure);
}

/// A shape that a value may have.
pub trait Shape: Sized + JsonSchema {
    /// How it stands in a file as a block of its own.
    const BLOCK: Block = Block::None;

    /// As in "expected …, found a table".
    fn expects() -> String;
    /// Whether a value of this kind may be meant; only then is it read.
    fn fits(node: &Node) -> bool;
    fn read(node: Node, out: &mut Complaints) -> Option<Self>;
}

/// How a value stands in a file as a block of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Block {
    /// It does not.
    None,
    /// `[key]`
    Table,
    /// `[[key]]`, once for each.
    Tables,
    /// `[key.NAME]`, once for each.
    Names,
}

/// Reads a value, or files a complaint.
pub fn read<T: Shape>(node: Node, out: &mut Complaints) -> Field<T> {
    let place = node.place;
    if matches!(node.value, Value::Broken) {
        return Field::Bad(place);
    }
    if !T::fits(&node) {
        let message = format!("expected {}, found {}", T::expects(), node.kind());
        out.push(Complaint { code: Code::WrongType, place: Some(place), message, cure: meant(&T::expects(), &node.value) });
        return Field::Bad(place);
    }
    T::read(node, out).map_or(Field::Bad(place), |value| Field::Given(At { value, place }))
}

/// The same value as it would be right, where quotes are all that is wrong.
fn meant(expects: &str, value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if !text.is_hidden() => {
            let bare = text.value.trim();
            let number = expects.contains("number") && bare.parse::<i64>().is_ok();
            let yes = expects.contains("true or false") && matches!(bare, "true" | "false");
            (number || yes).then(|| format!("write it without quotes: {bare}"))
        }
        Value::Integer(Some(port)) if expects.contains("127.0.0.1:") && (1..=65_535).contains(port) => Some(format!(
            "write it with the address: \"0.0.0.0:{port}\" for every address of this machine, \"127.0.0.1:{port}\" for itself alone"
        )),
        Value::Integer(Some(number)) if expects.starts_with("a string") => Some(format!("put it into quotes: \"{number}\"")),
        Value::Bool(yes) if expects.starts_with("a string") => Some(format!("put it into quotes: \"{yes}\"")),
        Value::Array(_) if expects == "a table of names" => Some("write it as { NAME = \"value\" }".to_owned()),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date
        | Value::Array(_)
        | Value::Table(_)
        | Value::Broken => None,
    }
}

/// What other programs call it, and what it is called here.
const ELSEWHERE: [(&[&str], &str); 13] = [
    (&["cmd", "exec", "program", "script", "run", "start"], "command"),
    (&["cwd", "directory", "working_directory", "workdir", "chdir", "root_dir"], "dir"),
    (&["environment", "envs", "vars"], "env"),
    (&["instances", "workers", "replicas", "numprocs", "processes"], "procs"),
    (&["autorestart", "restart_policy"], "restart"),
    (&["healthcheck", "health_check", "check"], "health"),
    (&["domain", "domains", "server_name", "hostname", "name", "names"], "host"),
    (&["ssl", "https", "certificate", "cert"], "tls"),
    (&["location", "locations", "routes", "path", "paths"], "route"),
    (&["proxy_pass", "backend", "proxy", "target", "reverse_proxy", "proxy_to"], "upstream"),
    (&["backends", "addresses", "targets", "address", "addr", "host"], "servers"),
    (&["port", "ports", "address", "bind"], "http"),
    (&["limit", "requests", "pace"], "rate"),
];

/// Keys that stand above all tables by mistake.
const SITE_KEYS: [&str; 6] = ["host", "aliases", "route", "root", "headers", "filters"];
const APP_KEYS: [&str; 5] = ["command", "dir", "procs", "env", "port"];

/// The keys of one table, taken one by one; what is left over is unknown.
pub struct Keys {
    place: Place,
    entries: Vec<Entry>,
}

impl Keys {
    #[must_use]
    pub fn open(node: Node) -> Option<Self> {
        match node.value {
            Value::Table(entries) => Some(Self { place: node.place, entries }),
            _ => None,
        }
    }

    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    pub fn take<T: Shape>(&mut self, key: &str, out: &mut Complaints) -> Field<T> {
        let Some(at) = self.entries.iter().position(|entry| entry.key == key) else { return Field::Absent };
        let Entry { node, place, .. } = self.entries.remove(at);
        match (T::BLOCK, &node.value) {
            (Block::Tables, Value::Table(_)) => {
                out.add_with_cure(
                    Code::WrongType,
                    place,
                    format!("there may be several of {key}, and this is one table"),
                    format!("write [[{key}]] in the place of [{key}]"),
                );
                Field::Bad(node.place)
            }
            (Block::Table, Value::Array(nodes)) if !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Value::Table(_))) => {
                out.add_with_cure(
                    Code::WrongType,
                    place,
                    format!("{key} is one table, and this is a list of them"),
                    format!("write [{key}] in the place of [[{key}]]"),
                );
                Field::Bad(node.place)
            }
            (Block::Names, Value::Array(nodes)) if !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Value::Table(_))) => {
                let name = if key == "route" { "\"/\"" } else { "NAME" };
                let message = format!("each {key} has a name, and this is a list without names");
                out.add_with_cure(Code::WrongType, place, message, format!("write [{key}.{name}] in the place of [[{key}]]"));
                Field::Bad(node.place)
            }
            (Block::None | Block::Table | Block::Tables | Block::Names, _) => read(node, out),
        }
    }

    /// Complains about every key that nothing took.
    pub fn close(self, known: &[&str], out: &mut Complaints) {
        for entry in self.entries {
            let near = did_you_mean(&entry.key, known.iter().copied());
            let other = ELSEWHERE.iter().find(|(names, here)| names.contains(&entry.key.as_str()) && known.contains(here));
            let (meant, cure) = match (near.as_str(), other) {
                ("", _) if known.contains(&"site") && SITE_KEYS.contains(&entry.key.as_str()) => {
                    (String::new(), format!("{} is a site's: write it below a line [[site]]", entry.key))
                }
                ("", _) if known.contains(&"site") && APP_KEYS.contains(&entry.key.as_str()) => {
                    (String::new(), format!("{} is an app's: write it below a line [app.NAME]", entry.key))
                }
                ("", Some((_, here))) => (format!(" (here it is {here:?})"), format!("known here: {}", known.join(", "))),
                (near, _) => (near.to_owned(), format!("known here: {}", known.join(", "))),
            };
            out.add_with_cure(Code::UnknownKey, entry.place, format!("unknown key {:?}{meant}", entry.key), cure);
        }
    }
}

/// Defines a table of the configuration: the struct, its reader, its keys and its schema, from one list.
macro_rules! table {
    ($(#[doc = $about:literal])* $name:ident { $($(#[doc = $doc:literal])* $field:ident $(= $key:literal)?: $kind:ty,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            pub place: $crate::config::complaint::Place,
            $($(#[doc = $doc])* pub $field: $crate::config::shape::Field<$kind>,)*
        }

        impl $name {
            /// The table as if it stood there without a key.
            #[must_use]
            pub fn empty(place: $crate::config::complaint::Place) -> Self {
                Self { place, $($field: $crate::config::shape::Field::Absent,)* }
            }
        }

        impl $crate::config::shape::Shape for $name {
            const BLOCK: $crate::config::shape::Block = $crate::config::shape::Block::Table;

            fn expects() -> String {
                "a table".into()
            }

            fn fits(node: &$crate::config::tree::Node) -> bool {
                matches!(node.value, $crate::config::tree::Value::Table(_))
            }

            fn read(node: $crate::config::tree::Node, out: &mut $crate::config::complaint::Complaints) -> Option<Self> {
                let mut keys = $crate::config::shape::Keys::open(node)?;
                let read = Self {
                    place: keys.place(),
                    $($field: keys.take($crate::config::shape::table!(@key $field $($key)?), out),)*
                };
                keys.close(&[$($crate::config::shape::table!(@key $field $($key)?)),*], out);
                Some(read)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                $(
                    let described = $crate::config::shape::described(generator.subschema_for::<$kind>(), &[$($doc),*]);
                    properties.insert($crate::config::shape::table!(@key $field $($key)?).into(), described);
                )*
                schemars::json_schema!({
                    "type": "object",
                    "description": $crate::config::shape::sentence(&[$($about),*]),
                    "properties": properties,
                    "additionalProperties": false,
                })
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}
pub(crate) use table;

/// Defines a choice of words.
macro_rules! words {
    ($(#[doc = $about:literal])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $text:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            pub const WORDS: &[&str] = &[$($text),*];
        }

        impl $crate::config::shape::Shape for $name {
            fn expects() -> String {
                Self::WORDS.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
            }

            fn fits(node: &$crate::config::tree::Node) -> bool {
                matches!(node.value, $crate::config::tree::Value::Text(_))
            }

            fn read(node: $crate::config::tree::Node, out: &mut $crate::config::complaint::Complaints) -> Option<Self> {
                let $crate::config::tree::Value::Text(text) = node.value else { return None };
                match text.value.as_str() {
                    $($text => Some(Self::$variant),)*
                    _ => {
                        $crate::config::shape::unknown_word(&text, node.place, Self::WORDS, out);
                        None
                    }
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": Self::WORDS })
            }
        }
    };
}
pub(crate) use words;

/// Defines a type that is written as a string.
macro_rules! written {
    ($(#[doc = $about:literal])* $name:ident($inner:ty) = $expects:literal, $code:ident, $parse:expr) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub $inner);

        impl $crate::config::shape::Shape for $name {
            fn expects() -> String {
                $expects.into()
            }

            fn fits(node: &$crate::config::tree::Node) -> bool {
                matches!(node.value, $crate::config::tree::Value::Text(_))
            }

            fn read(node: $crate::config::tree::Node, out: &mut $crate::config::complaint::Complaints) -> Option<Self> {
                let $crate::config::tree::Value::Text(text) = node.value else { return None };
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                $crate::config::shape::parsed(&text, node.place, $crate::config::complaint::Code::$code, $expects, parse, out).map(Self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $crate::config::shape::sentence(&[$($about),*]) })
            }
        }
    };
}
pub(crate) use written;

/// Parses a string; a complaint never quotes what a variable, a file or a secret holds.
pub fn parsed<T>(
    text: &Text,
    place: Place,
    code: Code,
    expects: &str,
    parse: fn(&str) -> Result<T, String>,
    out: &mut Complaints,
) -> Option<T> {
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(_) if text.is_hidden() => {
            out.add(code, place, format!("what {} stands for (not shown) is not {expects}", text.shown()));
            None
        }
        Err(message) => {
            out.add(code, place, message);
            None
        }
    }
}

pub fn unknown_word(text: &Text, place: Place, known: &[&str], out: &mut Complaints) {
    let meant = if text.is_hidden() { String::new() } else { did_you_mean(&text.value, known.iter().copied()) };
    let known: Vec<_> = known.iter().map(|word| format!("{word:?}")).collect();
    out.add_with_cure(
        Code::UnknownWord,
        place,
        format!("unknown word {}{meant}", text.shown()),
        format!("known here: {}", known.join(", ")),
    );
}

/// A schema with what the key is for beside it.
#[must_use]
pub fn described(schema: Schema, lines: &[&str]) -> serde_json::Value {
    let mut value = schema.to_value();
    if let (Some(object), false) = (value.as_object_mut(), lines.is_empty()) {
        object.insert("description".into(), sentence(lines).into());
    }
    value
}

#[must_use]
pub fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
